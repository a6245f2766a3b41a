/**
 * Runs the tasks of one handler: takes what its lanes hold, runs attempts, and
 * gives the lanes back.
 *
 * The loop runs for every record, so the way of nearly all events (it decodes
 * at once, the handler succeeds, nobody logs it) is written out in it and has
 * no frames of its own.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"
import type * as Event from "../../Event.ts"
import type { Task } from "./assignment.ts"
import * as Attempt from "./attempt.ts"
import * as Decode from "./decode.ts"
import * as Groups from "./groups.ts"
import type { Reader } from "./handler.ts"
import { type Lane, Ready } from "./lanes.ts"
import * as Outcome from "./outcome.ts"
import * as Slots from "./slots.ts"

type Slot = Slots.Slot

/** Events, or batches, that a worker runs before it offers its slot to whoever else waits for the semaphore. */
const eventsPerTurn = 64
const batchesPerTurn = 1

export const make = Effect.fnUntraced(function*(options: Outcome.Options) {
  const { handler } = options
  const debugging =
    LogLevel.Order("Debug", Context.get(yield* Effect.context<never>(), References.MinimumLogLevel)) >= 0
  const timeoutMillis = Attempt.timeoutMillis(handler)
  const decode = Decode.make(handler.topic)
  const outcome = Outcome.make({ ...options, debugging })
  const ready = new Ready<Task>()

  const work = Effect.fnUntraced(function*(slot: Slot): Effect.fn.Return<void> {
    for (
      let left = handler.batch === undefined ? eventsPerTurn : batchesPerTurn;
      left > 0 && slot.interrupted === undefined;
      left--
    ) {
      if (handler.batch !== undefined) {
        const tasks = ready.take(handler.batch)
        if (tasks.length === 0) return
        kick()
        yield* runTogether(slot, tasks, runHalves)
        settleAll(tasks)
      } else if (groups !== undefined && busy()) {
        const tasks = ready.take(groups.limits())
        if (tasks.length === 0) return
        yield* runTogether(slot, tasks, groups.run)
        settleAll(tasks)
      } else {
        const task = ready.takeOne()
        if (task === undefined) return
        kick()
        const event = task.failures === undefined ? decoded(task) : undefined
        if (event !== undefined && isDecoded(event)) {
          const exit = yield* attempt(slot, [event.value], [task])
          slot.running = []
          settle(task, Exit.isSuccess(exit) && !debugging ? outcome.done(task) : yield* conclude(slot, task, exit))
        } else {
          settle(task, yield* runTask(slot, task))
        }
      }
    }
  })

  const { begin, busy, fork, interrupt, kick } = yield* Slots.make({
    handler,
    timeoutMillis,
    waiting: () => ready.size,
    work
  })

  // --- attempts ---

  const decoded = (task: Task): Effect.Effect<Event.Event<unknown>, Decode.Undecodable> => {
    const { assignment, record } = task.delivery
    return decode(assignment.grant.partition, record, (task.failures?.attempts ?? 0) + 1)
  }

  const attempt = (
    slot: Slot,
    events: Arr.NonEmptyReadonlyArray<Event.Event<unknown>>,
    tasks: ReadonlyArray<Task>
  ): Effect.Effect<Exit.Exit<unknown, unknown>> => {
    begin(slot, tasks)
    for (const task of tasks) task.delivery.assignment.start(task)
    const applied = handler.apply(events)
    return Effect.exit(slot.restore(handler.batch === undefined ? applied : bounded(applied)))
  }

  const bounded = Effect.timeoutOrElse({
    duration: timeoutMillis,
    orElse: () => Effect.fail(Attempt.timedOut(handler))
  })

  /** Carries out what an attempt's exit calls for; `false` if the task must run again. */
  const conclude = (slot: Slot, task: Task, exit: Exit.Exit<unknown, unknown>): Effect.Effect<boolean> => {
    if (Exit.isFailure(exit)) return outcome.failed(slot, task, exit.cause)
    outcome.done(task)
    return Effect.as(outcome.debug([task]), true)
  }

  /** Runs a task by itself; `false` if it must run again. */
  const runTask = Effect.fnUntraced(function*(slot: Slot, task: Task): Effect.fn.Return<boolean> {
    if (task.failures?.givenUp !== undefined) return yield* outcome.giveUp(slot, task, task.failures.givenUp)
    const event = yield* Effect.exit(decoded(task))
    if (Exit.isFailure(event)) return yield* outcome.failed(slot, task, event.cause)
    const exit = yield* attempt(slot, [event.value], [task])
    slot.running = []
    return yield* conclude(slot, task, exit)
  })

  /** Decodes tasks and runs them by `run`, which adds the lanes of those that must run again to `held`. */
  const runTogether = Effect.fnUntraced(function*(
    slot: Slot,
    tasks: ReadonlyArray<Task>,
    run: (slot: Slot, batch: ReadonlyArray<Groups.Decoded>, held: Set<Lane<Task>>) => Effect.Effect<void>
  ) {
    const held = new Set<Lane<Task>>()
    const together = new Set<Lane<Task>>()
    const later = new Set<Lane<Task>>()
    const batch: Array<Groups.Decoded> = []
    for (const task of tasks) {
      const { lane } = task
      if (task.dropped || held.has(lane) || later.has(lane)) continue
      // What has failed before goes alone, so that it does not take others with
      // it again; but not before those in front of it.
      if (task.failures !== undefined && together.has(lane)) {
        later.add(lane)
        continue
      }
      const event = task.failures === undefined ? yield* Effect.exit(decoded(task)) : undefined
      if (event !== undefined && Exit.isSuccess(event)) {
        batch.push({ task, event: event.value })
        together.add(lane)
      } else if (together.has(lane)) later.add(lane)
      else if (!(yield* runTask(slot, task))) held.add(lane)
    }
    yield* run(slot, batch, held)
  })

  const groups = handler.grouped === undefined
    ? undefined
    : yield* Groups.make({ handler, grouped: handler.grouped, outcome, begin, runTask })

  // A failing batch is halved until the record at fault stands alone: one
  // poison record among n costs at most 2·⌈log2 n⌉+1 attempts. Tasks behind one
  // that must run again are left for later.
  const runHalves = Effect.fnUntraced(function*(
    slot: Slot,
    batch: ReadonlyArray<Groups.Decoded>,
    held: Set<Lane<Task>>
  ): Effect.fn.Return<void> {
    const own = batch.filter(({ task }) => !task.dropped && !held.has(task.lane))
    if (slot.interrupted !== undefined || !Arr.isReadonlyArrayNonEmpty(own)) return
    const tasks = own.map(({ task }) => task)
    const exit = yield* attempt(slot, Arr.map(own, ({ event }) => event), tasks)
    slot.running = []
    if (Exit.isSuccess(exit)) {
      for (const task of tasks) outcome.done(task)
      return yield* outcome.debug(tasks)
    }
    // While the store is away no half would fare better: all wait together.
    if (Attempt.isOutage(handler, exit.cause)) return yield* outcome.waitOut(tasks, exit.cause)
    if (own.length === 1) {
      if (!(yield* conclude(slot, tasks[0]!, exit))) held.add(tasks[0]!.lane)
      return
    }
    const middle = own.length >> 1
    yield* runHalves(slot, own.slice(0, middle), held)
    yield* runHalves(slot, own.slice(middle), held)
  })

  // --- lanes ---

  const settle = (task: Task, finished: boolean) => {
    if (finished || task.dropped) ready.settle(task.lane)
    else putBack(task.lane, [task])
  }

  /** Gives the lanes of a batch back, with the tasks in front that must run again. */
  const settleAll = (tasks: ReadonlyArray<Task>) => {
    const lanes = new Map<Lane<Task>, Array<Task>>()
    for (const task of tasks) {
      const again = lanes.get(task.lane) ?? []
      if (again.length === 0) lanes.set(task.lane, again)
      if (!task.finished && !task.dropped) again.push(task)
    }
    for (const [lane, again] of lanes) {
      if (again.length === 0) ready.settle(lane)
      else putBack(lane, again)
    }
  }

  /** Puts tasks back in front of their lane, which waits if the first of them backs off. A drain takes them instead. */
  const putBack = (lane: Lane<Task>, tasks: ReadonlyArray<Task>) => {
    ready.wait(lane, tasks)
    const first = tasks[0]!
    const { assignment } = first.delivery
    const { waitMillis } = first
    first.waitMillis = undefined
    if (assignment.phase._tag !== "Owned") {
      for (let task = lane.first; task !== undefined; task = task.behind) assignment.handBack(task)
      ready.wake(lane)
    } else if (waitMillis === undefined) {
      ready.wake(lane)
    } else {
      fork(Effect.andThen(Effect.sleep(waitMillis), Effect.sync(() => wake(lane))))
    }
  }

  const wake = (lane: Lane<Task>) => {
    ready.wake(lane)
    kick()
  }

  const takes = handler.batch?.maxSize ?? 1
  return { topic: handler.topic.name, ordering: handler.ordering, takes, ready, kick, interrupt } satisfies Reader
})

// Most schemas decode without running an effect.
const isDecoded = (
  event: Effect.Effect<Event.Event<unknown>, Decode.Undecodable>
): event is Exit.Success<Event.Event<unknown>> => Exit.isExit(event) && Exit.isSuccess(event)

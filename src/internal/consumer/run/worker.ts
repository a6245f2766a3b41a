/**
 * Runs the tasks of one handler: takes what its lanes hold, runs attempts, and
 * gives the lanes back. Single events go the straight way, and come here when
 * that is none.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"
import type { Limits } from "../../../Batching.ts"
import type * as Event from "../../../Event.ts"
import { Meter } from "../../metrics.ts"
import * as Attempt from "../failure/attempt.ts"
import * as Outcome from "../failure/outcome.ts"
import type { Reader } from "../handler.ts"
import type { Task } from "../order/assignment.ts"
import type { Lane } from "../order/lanes.ts"
import { Ready } from "../order/ready.ts"
import * as Batches from "./batches.ts"
import * as Decode from "./decode.ts"
import * as Doubt from "./doubt.ts"
import * as Gather from "./gather.ts"
import * as Groups from "./groups.ts"
import * as Slots from "./slots.ts"
import * as Straight from "./straight.ts"
import * as Together from "./together.ts"

type Slot = Slots.Slot

/** Events, or batches, that a worker runs before it offers its slot to whoever else waits for the semaphores. */
const eventsPerTurn = 64
const batchesPerTurn = 1
/** How long it runs single events before it does. */
const turnMillis = 100

export const make = Effect.fnUntraced(function*(
  options: Outcome.Options & {
    /** Whether what is assigned is certainly still ours. */
    readonly trusted?: () => boolean
  }
) {
  const { handler, trusted = () => true } = options
  const context = yield* Effect.context<never>()
  const clock = Context.get(context, Clock.Clock)
  const debugging = LogLevel.Order("Debug", Context.get(context, References.MinimumLogLevel)) >= 0
  const timeoutMillis = Attempt.timeoutMillis(handler)
  const decode = Decode.make(handler.topic)
  const meter = new Meter({ group: options.group, topic: handler.topic.name, handler: handler.name }, context)
  const outcome = Outcome.make({ ...options, debugging, meter })
  const ready = new Ready<Task>()

  const work = (slot: Slot): Effect.Effect<void> =>
    handler.batch === undefined ? workOnEvents(slot) : workOnBatches(slot, handler.batch)

  const workOnEvents = Effect.fnUntraced(function*(slot: Slot): Effect.fn.Return<void> {
    const turnEnds = clock.currentTimeMillisUnsafe() + turnMillis
    let left = eventsPerTurn
    const isTurn = () => left > 0 && slot.interrupted === undefined && slot.startedMillis < turnEnds
    const goesStraight = () => isTurn() && (groups === undefined || !busy()) && trusted() && left-- > 0
    while (isTurn()) {
      if (!trusted()) yield* untilTrusted
      if (groups !== undefined && busy()) {
        left--
        const tasks = ready.take(groups.limits())
        if (tasks.length === 0) return
        yield* runTogether(slot, tasks, groups.run)
        settleAll(slot, tasks)
        continue
      }
      const odd = yield* straight(slot, goesStraight)
      if (odd === undefined) {
        if (ready.size === 0) return
      } else if (odd.exit === undefined) settle(slot, odd.task, yield* runTask(slot, odd.task))
      else {
        slot.running = []
        settle(slot, odd.task, yield* conclude(slot, odd.task, odd.exit))
      }
    }
  })

  const workOnBatches = Effect.fnUntraced(function*(slot: Slot, limits: Limits): Effect.fn.Return<void> {
    for (let left = batchesPerTurn; left > 0 && slot.interrupted === undefined; left--) {
      if (!trusted()) yield* untilTrusted
      if (!mayTake()) return
      const tasks = ready.take(limits)
      if (tasks.length === 0) return
      const closed = ready.end !== "empty" ? ready.end : gather === undefined ? "slot" : gather.reason()
      slot.closed = closed
      kick()
      yield* outcome.batchClosed(tasks.length, closed)
      yield* runTogether(slot, tasks, batches.run)
      settleAll(slot, tasks)
    }
  })

  // A batch may have to wait for more events.
  const mayTake = (): boolean => gather === undefined || gather.may()

  const untilTrusted = Doubt.resolved(trusted, () => ready.size > 0)

  const { all, begin, busy, fork, interrupt, kick } = yield* Slots.make({
    handler,
    timeoutMillis,
    waiting: () => mayTake() ? ready.size : 0,
    work
  })
  const gather: Gather.Gather | undefined = handler.batch === undefined || handler.batch.minSize === 1
    ? undefined
    : Gather.make({ limits: handler.batch, clock, waiting: () => ready.tasks, again: kick, fork })

  // --- attempts ---

  const decoded = (task: Task): Effect.Effect<Event.Event<unknown>, Decode.Undecodable> => {
    const { partition, record } = task.delivery
    return decode(partition, record, (task.failures?.attempts ?? 0) + 1)
  }

  const attempt = (slot: Slot, event: Event.Event<unknown>, task: Task): Effect.Effect<Exit.Exit<unknown, unknown>> => {
    begin(slot, [task])
    task.delivery.assignment.start(task)
    return Effect.exit(slot.restore(handler.apply([event])))
  }

  /** Carries out what an attempt's exit calls for; `false` if the task must run again. */
  const conclude = (slot: Slot, task: Task, exit: Exit.Exit<unknown, unknown>): Effect.Effect<boolean> => {
    if (Exit.isFailure(exit)) return outcome.failed(slot, task, exit.cause)
    outcome.done(task)
    return Effect.as(outcome.debug([task]), true)
  }

  /** Runs a task by itself; `false` if it must run again. */
  const runTask = Effect.fnUntraced(function*(slot: Slot, task: Task): Effect.fn.Return<boolean> {
    if (task.failures?.givenUp !== undefined) return yield* outcome.giveUp(slot, task, task.failures.givenUp.cause)
    const event = yield* Effect.exit(decoded(task))
    if (Exit.isFailure(event)) return yield* outcome.failed(slot, task, event.cause)
    if (handler.batch !== undefined) {
      yield* batches.run(slot, [{ task, event: event.value }], new Set())
      return task.finished
    }
    const exit = yield* attempt(slot, event.value, task)
    slot.running = []
    return yield* conclude(slot, task, exit)
  })

  const straight = Straight.make({
    handler,
    take: () => {
      const task = ready.takeOne()
      if (task !== undefined) kick()
      return task
    },
    decoded: ({ delivery }) => debugging ? undefined : decode.atOnce(delivery.partition, delivery.record),
    begin,
    succeeded: (slot, task) => settle(slot, task, outcome.done(task))
  })
  const runTogether = Together.make({ decoded, runTask })
  const batches = Batches.make({ handler, outcome, begin, meter, clock })
  const groups = handler.grouped === undefined
    ? undefined
    : yield* Groups.make({ handler, grouped: handler.grouped, outcome, begin, runTask, meter })

  // --- lanes ---

  const settle = (slot: Slot, task: Task, finished: boolean) => {
    const { lane } = task
    const gone = finished || task.dropped
    if (gone && lane.first?.dueMillis === undefined) ready.settle(lane)
    else if (giveBack(slot, lane, gone ? [] : [task])) wakeAt(lane.first!.dueMillis!, [lane])
  }

  /** Gives the lanes of tasks that ran together back, with those in front that must run again. */
  const settleAll = (slot: Slot, tasks: ReadonlyArray<Task>) => {
    if (tasks.every(isThrough)) {
      for (const { lane } of tasks) if (lane.state === "Busy") ready.settle(lane)
      return
    }
    const lanes = new Map<Lane<Task>, Array<Task>>()
    for (const task of tasks) {
      const again = lanes.get(task.lane) ?? []
      if (again.length === 0) lanes.set(task.lane, again)
      if (!task.finished && !task.dropped) again.push(task)
    }
    const waiting = new Map<number, Array<Lane<Task>>>()
    for (const [lane, again] of lanes) {
      if (!giveBack(slot, lane, again)) continue
      const dueMillis = lane.first!.dueMillis!
      const others = waiting.get(dueMillis)
      if (others === undefined) waiting.set(dueMillis, [lane])
      else others.push(lane)
    }
    for (const [dueMillis, lanes] of waiting) wakeAt(dueMillis, lanes)
  }

  /**
   * Gives a lane back, with these tasks in front again. `true` if its first
   * task backs off, and somebody must wake it. A drain does not wait for that:
   * it takes the tasks, and all of them when it interrupted the worker. What is
   * only left over runs within the drain.
   */
  const giveBack = (slot: Slot, lane: Lane<Task>, again: ReadonlyArray<Task>): boolean => {
    ready.wait(lane, again)
    const { first } = lane
    if (first !== undefined && !first.dropped) {
      const { assignment } = first.delivery
      const backsOff = first.dueMillis !== undefined
      if (assignment.phase._tag === "Owned") {
        if (backsOff) return true
      } else if (backsOff || slot.interrupted === "Drain") {
        for (let task: Task | undefined = first; task !== undefined; task = task.behind) assignment.handBack(task)
      }
    }
    ready.wake(lane)
    return false
  }

  /** Wakes lanes when their first task is due: one timer for all that back off together. */
  const wakeAt = (dueMillis: number, lanes: ReadonlyArray<Lane<Task>>) =>
    fork(Effect.andThen(
      Effect.sleep(Math.max(0, dueMillis - clock.currentTimeMillisUnsafe())),
      Effect.sync(() => {
        for (const lane of lanes) {
          for (
            let task = lane.first;
            task?.dueMillis !== undefined && task.dueMillis <= dueMillis;
            task = task.behind
          ) {
            task.dueMillis = undefined
          }
          ready.wake(lane)
        }
        kick()
      })
    ))

  const draining = (begins: boolean) => gather?.draining(begins)
  const takes = handler.batch?.maxSize ?? 1
  return {
    topic: handler.topic.name,
    handler: handler.name,
    open: false,
    timeoutMillis,
    meter,
    running: () => all,
    ordering: handler.ordering,
    takes,
    ready,
    kick,
    draining,
    interrupt
  } satisfies Reader
})

/** Whether its lane goes on with the next task at once. */
const isThrough = ({ finished, lane }: Task): boolean => finished && lane.first?.dueMillis === undefined

/**
 * Runs the tasks of one handler: takes what its lanes hold, runs attempts, and
 * says what became of them.
 *
 * A worker is a fiber that holds one slot and loops: no fiber, timer or span
 * per record. While work is ready, exactly one further worker stands in line
 * for the next permit; so the number of workers follows the permits of the
 * handler's semaphore, also when it is shared or resized, and an idle handler
 * has none. The loop is uninterruptible except inside the handler, so
 * interrupting a worker ends the attempt and never the bookkeeping.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as LogLevel from "effect/LogLevel"
import * as References from "effect/References"
import type { BrokerError, ProducerRecord } from "../../Broker.ts"
import type * as Event from "../../Event.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Envelope from "../wire/envelope.ts"
import type { Assignment, Task } from "./assignment.ts"
import * as Attempt from "./attempt.ts"
import * as Decode from "./decode.ts"
import * as Exhausted from "./exhausted.ts"
import type { Handler, Reader } from "./handler.ts"
import { type Lane, Ready } from "./lanes.ts"

/** One running worker. `running` holds the tasks of the attempt that runs now; it is empty between attempts. */
interface Slot {
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  running: ReadonlyArray<Task>
  startedMillis: number
  /** Why the fiber was interrupted, by us or by its handler; the worker then ends after its bookkeeping. */
  interrupted: "Timeout" | "Drain" | "Handler" | undefined
}

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** Tasks that a worker runs before it offers its slot to whoever else waits for the semaphore. */
const quantum = 256

export const make = Effect.fnUntraced(function*(options: {
  readonly group: string
  readonly handler: Handler
  readonly writeDeadLetter: (topic: string, record: ProducerRecord) => Effect.Effect<void, BrokerError>
  /** Called after a task of an assignment has finished. */
  readonly finished: (assignment: Assignment) => void
}) {
  const { group, handler } = options
  const context = yield* Effect.context<never>()
  const scope = yield* Effect.scope
  const clock = Context.get(context, Clock.Clock)
  const debugging = LogLevel.Order("Debug", Context.get(context, References.MinimumLogLevel)) >= 0
  const decode = Decode.make(handler.topic)
  const timeoutMillis = Attempt.timeoutMillis(handler)
  const ready = new Ready<Task>()
  const slots = new Set<Slot>()
  const run = Effect.runForkWith(context)
  const fork = (effect: Effect.Effect<unknown>) => void run(Effect.forkIn(effect, scope))

  // --- slots: who runs ---

  let inLine = false

  const kick = () => {
    if (inLine || ready.size === 0) return
    inLine = true
    fork(worker)
  }

  const worker = Effect.suspend(() => {
    const slot: Slot = { fiber: undefined, running: [], startedMillis: 0, interrupted: undefined }
    return handler.slots.withPermit(Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber) => {
        slot.fiber = fiber
        slots.add(slot)
        inLine = false
        return loop(slot, restore)
      })
    )).pipe(
      Effect.onExit(() =>
        Effect.sync(() => {
          if (!slots.delete(slot)) inLine = false
          kick()
        })
      )
    )
  })

  const loop = Effect.fnUntraced(function*(slot: Slot, restore: Restore) {
    for (let left = quantum; left > 0 && slot.interrupted === undefined; left--) {
      if (handler.batch !== undefined) {
        const tasks = ready.take(handler.batch)
        if (tasks.length === 0) return
        kick()
        yield* runBatch(slot, tasks, restore)
        settleAll(tasks)
      } else {
        const task = ready.takeOne()
        if (task === undefined) return
        kick()
        const event = task.failures === undefined ? decoded(task) : undefined
        // The way of nearly all events, without the frames of `runTask`.
        if (event !== undefined && isDecoded(event)) {
          const exit = yield* attempt(slot, [event.value], [task], restore)
          slot.running = []
          settle(task, Exit.isSuccess(exit) && !debugging ? done(task) : yield* conclude(slot, task, exit, restore))
        } else {
          settle(task, yield* runTask(slot, task, restore))
        }
      }
    }
  })

  // One watchdog for all slots bounds the attempts: it sleeps until the oldest
  // running one may be due, and ends when nothing runs.
  let watching = false

  const watchdog: Effect.Effect<void> = Effect.suspend(() => {
    const now = clock.currentTimeMillisUnsafe()
    let next = Infinity
    for (const slot of slots) {
      if (slot.running.length === 0 || slot.interrupted !== undefined) continue
      const left = slot.startedMillis + timeoutMillis - now
      if (left > 0) next = Math.min(next, left)
      else interruptSlot(slot, "Timeout")
    }
    if (next === Infinity) {
      watching = false
      return Effect.void
    }
    return Effect.andThen(Effect.sleep(next), watchdog)
  })

  const interruptSlot = (slot: Slot, why: "Timeout" | "Drain") => {
    slot.interrupted = why
    slot.fiber?.interruptUnsafe()
  }

  // --- attempts: what runs ---

  /** Runs a task by itself; `false` if it must run again. */
  const runTask = Effect.fnUntraced(function*(slot: Slot, task: Task, restore: Restore): Effect.fn.Return<boolean> {
    if (task.failures?.givenUp !== undefined) return yield* giveUp(slot, task, task.failures.givenUp, restore)
    const event = yield* Effect.exit(decoded(task))
    if (Exit.isFailure(event)) return yield* failed(slot, task, event.cause, restore)
    const exit = yield* attempt(slot, [event.value], [task], restore)
    slot.running = []
    return yield* conclude(slot, task, exit, restore)
  })

  const runBatch = Effect.fnUntraced(function*(slot: Slot, tasks: ReadonlyArray<Task>, restore: Restore) {
    const held = new Set<Lane<Task>>()
    const batch: Array<Decoded> = []
    for (const task of tasks) {
      if (task.dropped || held.has(task.lane)) continue
      const event = task.failures?.givenUp === undefined ? yield* Effect.exit(decoded(task)) : undefined
      if (event !== undefined && Exit.isSuccess(event)) batch.push({ task, event: event.value })
      else if (!(yield* runTask(slot, task, restore))) held.add(task.lane)
    }
    yield* runHalves(slot, batch, held, restore)
  })

  // A failing batch is halved until the record at fault stands alone: one
  // poison record among n costs at most 2·⌈log2 n⌉+1 attempts. Tasks behind one
  // that must run again are left for later.
  const runHalves = Effect.fnUntraced(function*(
    slot: Slot,
    batch: ReadonlyArray<Decoded>,
    held: Set<Lane<Task>>,
    restore: Restore
  ): Effect.fn.Return<void> {
    const own = batch.filter(({ task }) => !task.dropped && !held.has(task.lane))
    if (slot.interrupted !== undefined || !Arr.isReadonlyArrayNonEmpty(own)) return
    const tasks = own.map(({ task }) => task)
    const exit = yield* attempt(slot, Arr.map(own, ({ event }) => event), tasks, restore)
    slot.running = []
    if (Exit.isSuccess(exit)) {
      for (const task of tasks) done(task)
      return debugging
        ? yield* Effect.forEach(tasks, (task) => EngineEvent.log(handledEvent(task)), { discard: true })
        : undefined
    }
    // While the store is away no half would fare better: all wait together.
    if (Attempt.isOutage(handler, exit.cause)) return yield* waitOut(tasks, exit.cause)
    if (own.length === 1) {
      if (!(yield* conclude(slot, tasks[0]!, exit, restore))) held.add(tasks[0]!.lane)
      return
    }
    const middle = own.length >> 1
    yield* runHalves(slot, own.slice(0, middle), held, restore)
    yield* runHalves(slot, own.slice(middle), held, restore)
  })

  const decoded = (task: Task): Effect.Effect<Event.Event<unknown>, Decode.Undecodable> => {
    const { assignment, record } = task.delivery
    return decode(assignment.grant.partition, record, (task.failures?.attempts ?? 0) + 1)
  }

  const attempt = (
    slot: Slot,
    events: Arr.NonEmptyReadonlyArray<Event.Event<unknown>>,
    tasks: ReadonlyArray<Task>,
    restore: Restore
  ): Effect.Effect<Exit.Exit<unknown, unknown>> => {
    slot.running = tasks
    slot.startedMillis = clock.currentTimeMillisUnsafe()
    for (const task of tasks) task.delivery.assignment.start(task)
    return Effect.exit(restore(bounded(handler.apply(events))))
  }

  // A batch carries its own timer: when it is due, the same worker goes on
  // with the halves. Single events share the watchdog instead.
  const bounded = (effect: Effect.Effect<unknown, unknown>): Effect.Effect<unknown, unknown> => {
    if (handler.batch !== undefined) {
      return Effect.timeoutOrElse(effect, {
        duration: timeoutMillis,
        orElse: () => Effect.fail(Attempt.timedOut(handler))
      })
    }
    if (!watching) {
      watching = true
      fork(watchdog)
    }
    return effect
  }

  // --- outcomes: what becomes of it ---

  /** Carries out what an attempt's exit calls for; `false` if the task must run again later. */
  const conclude = (
    slot: Slot,
    task: Task,
    exit: Exit.Exit<unknown, unknown>,
    restore: Restore
  ): Effect.Effect<boolean> => {
    if (Exit.isFailure(exit)) return failed(slot, task, exit.cause, restore)
    done(task)
    return debugging ? Effect.as(EngineEvent.log(handledEvent(task)), true) : Effect.succeed(true)
  }

  const failed = Effect.fnUntraced(function*(
    slot: Slot,
    task: Task,
    exitCause: Cause.Cause<unknown>,
    restore: Restore
  ): Effect.fn.Return<boolean> {
    if (slot.interrupted === "Drain") return false
    // A handler that interrupted its own fiber has failed; the fiber is of no further use.
    if (slot.interrupted === undefined && Cause.hasInterrupts(exitCause)) slot.interrupted = "Handler"
    const cause = slot.interrupted === "Timeout" ? Cause.fail(Attempt.timedOut(handler)) : exitCause
    if (Attempt.isOutage(handler, cause)) return yield* Effect.as(waitOut([task], cause), false)
    const verdict = yield* Attempt.judge(handler, task, cause)
    switch (verdict._tag) {
      case "Ignore":
        yield* EngineEvent.log({ _tag: "Ignored", ...at(task), cause })
        return done(task)
      case "Wait": {
        const { afterMillis } = verdict
        yield* EngineEvent.log({
          _tag: "Retrying",
          ...at(task),
          attempt: task.failures?.attempts ?? 0,
          afterMillis,
          cause
        })
        task.waitMillis = afterMillis
        return false
      }
      case "GiveUp":
        return yield* giveUp(slot, task, cause, restore)
    }
  })

  /** Waits for the store to come back, with one line for all of them. */
  const waitOut = (tasks: ReadonlyArray<Task>, cause: Cause.Cause<unknown>): Effect.Effect<void> => {
    for (const task of tasks) task.waitMillis = Attempt.outageMillis
    return EngineEvent.log({
      _tag: "StoreOutage",
      group,
      handler: handler.name,
      waiting: tasks.length,
      afterMillis: Attempt.outageMillis,
      cause
    })
  }

  const giveUp = Effect.fnUntraced(function*(
    slot: Slot,
    task: Task,
    cause: Cause.Cause<unknown>,
    restore: Restore
  ): Effect.fn.Return<boolean> {
    // An interrupted fiber cannot write: the task goes back, and the next
    // worker finds it given up.
    if (slot.interrupted !== undefined) return false
    task.delivery.assignment.start(task)
    const route = handler.policy.exhausted === "discard" ? "discard" : "save"
    const exit = yield* Effect.exit(restore(
      Exhausted.giveUp({ group, handler, task, route, cause, at: at(task), write: options.writeDeadLetter })
    ))
    if (Exit.isSuccess(exit)) return done(task)
    if (slot.interrupted === "Drain") return false
    yield* EngineEvent.log({
      _tag: "DeadLetterUnwritten",
      ...at(task),
      afterMillis: Exhausted.retryMillis,
      cause: exit.cause
    })
    task.waitMillis = Exhausted.retryMillis
    return false
  })

  const done = (task: Task): true => {
    task.delivery.assignment.finish(task)
    options.finished(task.delivery.assignment)
    return true
  }

  const at = (task: Task): EngineEvent.At => {
    const { assignment, record } = task.delivery
    const { partition } = assignment.grant
    const topic = handler.topic.name
    const messageId = Envelope.read(topic, partition, record).id
    return { topic, partition, offset: record.offset, group, handler: handler.name, messageId }
  }

  const handledEvent = (task: Task): EngineEvent.EngineEvent => ({
    _tag: "Handled",
    ...at(task),
    attempt: (task.failures?.attempts ?? 0) + 1
  })

  // --- lanes: what comes next ---

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

  const putBack = (lane: Lane<Task>, tasks: ReadonlyArray<Task>) => {
    ready.wait(lane, tasks)
    const first = tasks[0]!
    const { assignment } = first.delivery
    const waitMillis = first.waitMillis
    first.waitMillis = undefined
    if (assignment.phase._tag !== "Owned") {
      for (let task = lane.first; task !== undefined; task = task.behind) assignment.handBack(task)
      ready.wake(lane)
    } else if (waitMillis === undefined) {
      ready.wake(lane)
    } else {
      fork(Effect.andThen(
        Effect.sleep(waitMillis),
        Effect.sync(() => {
          ready.wake(lane)
          kick()
        })
      ))
    }
  }

  const interrupt = (assignments: ReadonlySet<Assignment>): Array<Fiber.Fiber<unknown, unknown>> => {
    const interrupted: Array<Fiber.Fiber<unknown, unknown>> = []
    for (const slot of slots) {
      if (slot.fiber === undefined || !slot.running.some((task) => assignments.has(task.delivery.assignment))) continue
      interruptSlot(slot, "Drain")
      interrupted.push(slot.fiber)
    }
    return interrupted
  }

  return { topic: handler.topic.name, ordering: handler.ordering, ready, kick, interrupt } satisfies Reader
})

// Most schemas decode without running an effect.
const isDecoded = (
  event: Effect.Effect<Event.Event<unknown>, Decode.Undecodable>
): event is Exit.Success<Event.Event<unknown>> => Exit.isExit(event) && Exit.isSuccess(event)

/** A task beside its decoded event. */
interface Decoded {
  readonly task: Task
  readonly event: Event.Event<unknown>
}

/**
 * What becomes of a task after an attempt: it is finished, it must run again,
 * or it is given up on. Decides nothing itself: `attempt.judge` does.
 *
 * Each verb returns whether the task is finished; if not, `dueMillis` says
 * until when it backs off.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { CloseReason } from "../../../Batching.ts"
import * as EngineEvent from "../../engineEvent.ts"
import type { Meter } from "../../metrics.ts"
import * as Envelope from "../../wire/envelope.ts"
import type { Handler } from "../handler.ts"
import type { Assignment, Task } from "../order/assignment.ts"
import type { Slot } from "../run/slots.ts"
import { keyOf } from "../status/status.ts"
import * as Waits from "../status/waits.ts"
import * as Attempt from "./attempt.ts"
import * as Exhausted from "./exhausted.ts"

export interface Options {
  readonly group: string
  readonly handler: Handler
  readonly writeDeadLetter: Exhausted.WriteLetter
  /** Called after the task of a dead letter that came back was applied, instead of `finished`. */
  readonly applied?: (task: Task) => void
  /** Called after a task of an assignment has finished. */
  readonly finished: (assignment: Assignment) => void
}

export type Outcome = ReturnType<typeof make>

export const make = (options: Options & { readonly debugging: boolean; readonly meter: Meter }) => {
  const { debugging, group, handler, meter } = options
  const topic = handler.topic.name

  const at = (task: Task): EngineEvent.At => {
    const { partition, record } = task.delivery
    const messageId = Envelope.read(topic, partition, record).id
    return { topic, partition, offset: record.offset, key: keyOf(task), group, handler: handler.name, messageId }
  }

  const done = (task: Task): true => {
    if (task.delivery.letter === undefined || options.applied === undefined) return finish(task)
    meter.finished++
    options.applied(task)
    return true
  }

  const finish = (task: Task): true => {
    meter.finished++
    task.delivery.assignment.finish(task)
    options.finished(task.delivery.assignment)
    return true
  }

  /** Logs handled events, for those who log each. */
  const debug = (tasks: ReadonlyArray<Task>): Effect.Effect<void> =>
    debugging
      ? Effect.forEach(tasks, (task) =>
        EngineEvent.log({ _tag: "Handled", ...at(task), attempt: (task.failures?.attempts ?? 0) + 1 }), {
        discard: true
      })
      : Effect.void

  /** Waits for the store to come back, with one line for all of them. */
  const waitOut = Effect.fnUntraced(function*(tasks: ReadonlyArray<Task>, cause: Cause.Cause<unknown>) {
    const afterMillis = Attempt.outageMillis
    const dueMillis = (yield* Clock.currentTimeMillis) + afterMillis
    for (const task of tasks) task.dueMillis = dueMillis
    yield* EngineEvent.log({
      _tag: "StoreOutage",
      topic,
      from: firstOf(tasks),
      group,
      handler: handler.name,
      waiting: tasks.length,
      afterMillis,
      cause
    })
    yield* Waits.note(tasks, "store", afterMillis, cause)
  })

  /** Says that a batch backs off as a whole, with one line for all of it. */
  const batchFailed = Effect.fnUntraced(function*(
    tasks: ReadonlyArray<Task>,
    afterMillis: number,
    cause: Cause.Cause<unknown>
  ) {
    meter.retried += tasks.length
    yield* Waits.note(tasks, handler.policy.exhausted === "block" ? "block" : "retry", afterMillis, cause)
    yield* EngineEvent.log({
      _tag: "BatchFailed",
      topic,
      from: firstOf(tasks),
      group,
      handler: handler.name,
      events: tasks.length,
      attempt: Math.max(...tasks.map(({ failures }) => failures?.attempts ?? 0)),
      afterMillis,
      cause
    })
  })

  /** Says why a batch closed, to those who log each. */
  const batchClosed = (events: number, closed: CloseReason): Effect.Effect<void> =>
    debugging
      ? EngineEvent.log({ _tag: "BatchClosed", topic, group, handler: handler.name, events, closed })
      : Effect.void

  const giveUp = Effect.fnUntraced(function*(
    slot: Slot,
    task: Task,
    cause: Cause.Cause<unknown>
  ): Effect.fn.Return<boolean> {
    // An interrupted fiber cannot write: the task goes back, and the next
    // worker finds it given up.
    if (slot.interrupted !== undefined) return false
    task.delivery.assignment.start(task)
    slot.running = [task]
    const route = task.failures?.givenUp?.route ?? "save"
    const exit = yield* Effect.exit(slot.restore(
      Exhausted.giveUp({ group, handler, task, route, cause, at: at(task), write: options.writeDeadLetter })
    ))
    slot.running = []
    if (Exit.isSuccess(exit)) {
      if (route === "discard") meter.discarded++
      else meter.deadLettered++
      // A letter that is discarded is done with, too; any other has been written anew.
      return route === "discard" ? done(task) : finish(task)
    }
    if (slot.interrupted === "Drain") return false
    const afterMillis = Exhausted.retryMillis
    yield* Waits.note([task], "deadLetter", afterMillis, exit.cause)
    yield* EngineEvent.log({ _tag: "DeadLetterUnwritten", ...at(task), afterMillis, cause: exit.cause })
    task.dueMillis = (yield* Clock.currentTimeMillis) + afterMillis
    return false
  })

  const failed = Effect.fnUntraced(function*(
    slot: Slot,
    task: Task,
    exitCause: Cause.Cause<unknown>
  ): Effect.fn.Return<boolean> {
    if (slot.interrupted === "Drain") return false
    // A handler that interrupted its own fiber has failed; the fiber is of no further use.
    if (slot.interrupted === undefined && Cause.hasInterrupts(exitCause)) slot.interrupted = "Handler"
    const cause = slot.interrupted === "Timeout" ? Cause.fail(Attempt.timedOut(handler)) : exitCause
    if (Attempt.isOutage(handler, cause)) return yield* Effect.as(waitOut([task], cause), false)
    meter.failed++
    const verdict = yield* Attempt.judge(handler, task, cause)
    switch (verdict._tag) {
      case "Ignore":
        meter.ignored++
        yield* EngineEvent.log({ _tag: "Ignored", ...at(task), cause })
        return done(task)
      case "Wait": {
        const { afterMillis } = verdict
        meter.retried++
        yield* Waits.note([task], handler.policy.exhausted === "block" ? "block" : "retry", afterMillis, cause)
        const attempt = task.failures?.attempts ?? 0
        yield* EngineEvent.log({ _tag: "Retrying", ...at(task), attempt, afterMillis, cause })
        task.dueMillis = (yield* Clock.currentTimeMillis) + afterMillis
        return false
      }
      case "GiveUp":
        return yield* giveUp(slot, task, cause)
    }
  })

  return { done, debug, batchFailed, batchClosed, waitOut, giveUp, failed }
}

/** Where the first task of each partition lies, for a line about many. */
const firstOf = (tasks: ReadonlyArray<Task>): string => {
  const first = new Map<number, bigint>()
  for (const { delivery: { partition, record: { offset } } } of tasks) {
    const known = first.get(partition)
    if (known === undefined || offset < known) first.set(partition, offset)
  }
  return Array.from(first, ([partition, offset]) => `${partition}/${offset}`).join(",")
}

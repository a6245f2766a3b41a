/**
 * What becomes of a task after an attempt: it is finished, it must run again,
 * or it is given up on. Decides nothing itself: `attempt.judge` does.
 *
 * Each verb returns whether the task is finished; if not, `waitMillis` says
 * how long its lane backs off.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { BrokerError, ProducerRecord } from "../../Broker.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Envelope from "../wire/envelope.ts"
import type { Assignment, Task } from "./assignment.ts"
import * as Attempt from "./attempt.ts"
import * as Exhausted from "./exhausted.ts"
import type { Handler } from "./handler.ts"
import type { Slot } from "./slots.ts"

export interface Options {
  readonly group: string
  readonly handler: Handler
  readonly writeDeadLetter: (topic: string, record: ProducerRecord) => Effect.Effect<void, BrokerError>
  /** Called after a task of an assignment has finished. */
  readonly finished: (assignment: Assignment) => void
}

export type Outcome = ReturnType<typeof make>

export const make = (options: Options & { readonly debugging: boolean }) => {
  const { debugging, group, handler } = options
  const topic = handler.topic.name

  const at = (task: Task): EngineEvent.At => {
    const { assignment, record } = task.delivery
    const { partition } = assignment.grant
    const messageId = Envelope.read(topic, partition, record).id
    return { topic, partition, offset: record.offset, group, handler: handler.name, messageId }
  }

  const done = (task: Task): true => {
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
  const waitOut = (tasks: ReadonlyArray<Task>, cause: Cause.Cause<unknown>): Effect.Effect<void> => {
    const afterMillis = Attempt.outageMillis
    for (const task of tasks) task.waitMillis = afterMillis
    return EngineEvent.log({
      _tag: "StoreOutage",
      group,
      handler: handler.name,
      waiting: tasks.length,
      afterMillis,
      cause
    })
  }

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
    const route = handler.policy.exhausted === "discard" ? "discard" : "save"
    const exit = yield* Effect.exit(slot.restore(
      Exhausted.giveUp({ group, handler, task, route, cause, at: at(task), write: options.writeDeadLetter })
    ))
    slot.running = []
    if (Exit.isSuccess(exit)) return done(task)
    if (slot.interrupted === "Drain") return false
    const afterMillis = Exhausted.retryMillis
    yield* EngineEvent.log({ _tag: "DeadLetterUnwritten", ...at(task), afterMillis, cause: exit.cause })
    task.waitMillis = afterMillis
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
    const verdict = yield* Attempt.judge(handler, task, cause)
    switch (verdict._tag) {
      case "Ignore":
        yield* EngineEvent.log({ _tag: "Ignored", ...at(task), cause })
        return done(task)
      case "Wait": {
        const { afterMillis } = verdict
        const attempt = task.failures?.attempts ?? 0
        yield* EngineEvent.log({ _tag: "Retrying", ...at(task), attempt, afterMillis, cause })
        task.waitMillis = afterMillis
        return false
      }
      case "GiveUp":
        return yield* giveUp(slot, task, cause)
    }
  })

  return { done, debug, waitOut, giveUp, failed }
}

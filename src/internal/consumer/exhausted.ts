/**
 * What becomes of a task that its handler gave up on: the dead-letter topic,
 * or nothing but a log line.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import { hasProperty } from "effect/Predicate"
import * as Schedule from "effect/Schedule"
import type { ProducerRecord } from "../../Broker.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as DeadLetter from "../wire/deadLetter.ts"
import type { Task } from "./assignment.ts"
import type { Handler } from "./handler.ts"

/** How long to wait after a dead letter could not be written. */
export const retryMillis = 5_000
export const retrySchedule = Schedule.spaced(retryMillis)

const iso = (millis: number): string => DateTime.formatIso(DateTime.makeUnsafe(millis))

const describe = (cause: Cause.Cause<unknown>): { readonly tag: string; readonly message: string } => {
  const error = Cause.squash(cause)
  return {
    tag: hasProperty(error, "_tag") && typeof error._tag === "string"
      ? error._tag
      : error instanceof Error
      ? error.name
      : typeof error,
    message: error instanceof Error ? error.message : String(error)
  }
}

/** Carries out the policy's last step. Fails only when the dead letter could not be written. */
export const giveUp = Effect.fnUntraced(function*<E>(options: {
  readonly group: string
  readonly handler: Handler
  readonly task: Task
  readonly route: "save" | "discard"
  readonly cause: Cause.Cause<unknown>
  readonly at: EngineEvent.At
  readonly write: (topic: string, record: ProducerRecord) => Effect.Effect<void, E>
}) {
  const { at, cause, group, handler, task } = options
  const attempt = task.failures?.attempts ?? 1
  if (options.route === "discard") {
    return yield* EngineEvent.log({ _tag: "Discarded", ...at, attempt, cause })
  }
  const now = yield* Clock.currentTimeMillis
  const { message, tag } = describe(cause)
  const deadLetterTopic = DeadLetter.topicName(handler.topic.name, group)
  yield* options.write(
    deadLetterTopic,
    DeadLetter.write(task.delivery.record, {
      topic: handler.topic.name,
      partition: at.partition,
      group,
      handler: handler.name,
      errorTag: tag,
      errorMessage: message,
      attempts: attempt,
      firstFailure: iso(task.failures?.firstMillis ?? now),
      lastFailure: iso(task.failures?.lastMillis ?? now)
    })
  )
  yield* EngineEvent.log({ _tag: "DeadLetter", ...at, attempt, deadLetterTopic, cause })
})

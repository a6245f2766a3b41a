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
import * as Schedule from "effect/Schedule"
import type { BrokerError, ProducerRecord } from "../../../Broker.ts"
import { delayOf, type Route } from "../../../FailurePolicy.ts"
import * as EngineEvent from "../../engineEvent.ts"
import * as Thrown from "../../thrown.ts"
import * as DeadLetter from "../../wire/deadLetter.ts"
import type { Handler } from "../handler.ts"
import type { Task } from "../order/assignment.ts"

/** How long to wait after a dead letter could not be written. */
export const retryMillis = 5_000
export const retrySchedule = Schedule.spaced(retryMillis)

/** Writes a letter, or a marker of one, to a partition of a dead-letter topic. */
export type WriteLetter = (
  topic: string,
  record: ProducerRecord,
  partition: number
) => Effect.Effect<void, BrokerError>

const iso = (millis: number): string => DateTime.formatIso(DateTime.makeUnsafe(millis))

/** Carries out the policy's last step. Fails only when the dead letter could not be written. */
export const giveUp = Effect.fnUntraced(function*(options: {
  readonly group: string
  readonly handler: Handler
  readonly task: Task
  readonly route: Route
  readonly cause: Cause.Cause<unknown>
  readonly at: EngineEvent.At
  readonly write: WriteLetter
}) {
  const { at, cause, group, handler, task } = options
  const attempt = task.failures?.attempts ?? 1
  if (options.route === "discard") {
    return yield* EngineEvent.log({ _tag: "Discarded", ...at, attempt, cause })
  }
  const now = yield* Clock.currentTimeMillis
  const error = Cause.squash(cause)
  const { assignment, letter, record } = task.delivery
  const afterMillis = options.route === "retryLater"
    ? delayOf(handler.policy, letter === undefined ? 0 : letter.head.round + 1 - letter.head.replays)
    : undefined
  const deadLetterTopic = DeadLetter.topicName(handler.topic.name, group)
  yield* options.write(
    deadLetterTopic,
    DeadLetter.write(record, {
      topic: handler.topic.name,
      partition: at.partition,
      group,
      handler: handler.name,
      errorTag: Thrown.tagOf(error),
      errorMessage: Thrown.messageOf(error),
      attempts: attempt,
      firstFailure: iso(task.failures?.firstMillis ?? now),
      lastFailure: iso(task.failures?.lastMillis ?? now),
      due: afterMillis === undefined ? undefined : now + afterMillis,
      before: letter
    }),
    // All records of a letter lie in one partition; the first of it in that of its record.
    assignment.grant.partition
  )
  yield* EngineEvent.log(
    afterMillis === undefined
      ? { _tag: "DeadLetter", ...at, attempt, deadLetterTopic, cause }
      : { _tag: "RetryLater", ...at, attempt, deadLetterTopic, afterMillis, cause }
  )
})

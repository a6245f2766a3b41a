/**
 * What the user defined, and what is wrong with it: consumers are values whose
 * constructors never throw, so everything that can be checked is checked here,
 * when they start.
 *
 * @internal
 */
import type * as Arr from "effect/Array"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Semaphore from "effect/Semaphore"
import * as Batching from "../../Batching.ts"
import { BrokerError } from "../../Broker.ts"
import type * as Event from "../../Event.ts"
import * as FailurePolicy from "../../FailurePolicy.ts"
import { MessageStoreError } from "../../MessageStore.ts"
import type * as Topic from "../../Topic.ts"
import * as Limit from "../limit.ts"
import * as DeadLetter from "../wire/deadLetter.ts"
import type { Ordering } from "./order/lanes.ts"

export type Mode = "idempotent" | "exactlyOnce" | "broadcast"

export interface Definition {
  readonly mode: Mode
  readonly topic: Topic.Any
  readonly name: string
  readonly named: boolean
  readonly policy: FailurePolicy.FailurePolicy<unknown>
  readonly ordering: Ordering
  readonly concurrency: number | Semaphore.Semaphore
  /** Limits of a batch, for handlers of batches. */
  readonly batch: Batching.Limits | undefined
  /** Limits of a group that shares a transaction, for `exactlyOnce` handlers of single events. */
  readonly group: Batching.Limits | undefined
  readonly handle: (events: Arr.NonEmptyReadonlyArray<Event.Event<unknown>>) => Effect.Effect<unknown, unknown>
}

/**
 * Two handlers that cannot be told apart, or one topic consumed twice.
 *
 * @category errors
 * @since 0.1.0
 */
export class DuplicateHandler extends Schema.TaggedError<DuplicateHandler>("effect-events/Consumer/DuplicateHandler")(
  "DuplicateHandler",
  { group: Schema.String, topic: Schema.String, detail: Schema.String }
) {
  override get message() {
    return this.detail
  }
}

/**
 * A name of a topic, group or handler that cannot be used.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidName extends Schema.TaggedError<InvalidName>("effect-events/Consumer/InvalidName")("InvalidName", {
  name: Schema.String,
  detail: Schema.String
}) {
  override get message() {
    return this.detail
  }
}

/**
 * An option out of its range; `handler` is the group's name if it is an option
 * of the group.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidOption extends Schema.TaggedError<InvalidOption>("effect-events/Consumer/InvalidOption")(
  "InvalidOption",
  { handler: Schema.String, detail: Schema.String }
) {
  override get message() {
    return `Consumer "${this.handler}": ${this.detail}.`
  }
}

/**
 * An `exactlyOnce` handler with a `SqlClient` whose statements are not part of
 * the store's transactions: they would commit apart from the mark that the
 * message is applied.
 *
 * @category errors
 * @since 0.1.0
 */
export class OtherDatabase extends Schema.TaggedError<OtherDatabase>("effect-events/Consumer/OtherDatabase")(
  "OtherDatabase",
  { handler: Schema.String, dialect: Schema.String }
) {
  override get message() {
    return `Consumer "${this.handler}": the SqlClient in its context is not the one that the message store ` +
      `(${this.dialect}) was built on, so its statements would not commit together with the mark of the message. ` +
      `Provide one and the same client Layer to the store and to the consumer, or use Consumer.idempotent.`
  }
}

/**
 * Why a consumer cannot run.
 *
 * @category errors
 * @since 0.1.0
 */
export type ConsumerErrorReason =
  | DuplicateHandler
  | InvalidName
  | InvalidOption
  | OtherDatabase
  | BrokerError
  | MessageStoreError

/**
 * Schema of `ConsumerErrorReason`.
 *
 * @category errors
 * @since 0.1.0
 */
export const ConsumerErrorReason = Schema.Union([
  DuplicateHandler,
  InvalidName,
  InvalidOption,
  OtherDatabase,
  BrokerError,
  MessageStoreError
])

/**
 * A consumer that cannot start, or cannot go on; `reason` says why.
 *
 * @category errors
 * @since 0.1.0
 */
export class ConsumerError extends Schema.TaggedError<ConsumerError>("effect-events/Consumer/ConsumerError")(
  "ConsumerError",
  { reason: ConsumerErrorReason }
) {
  override readonly cause = this.reason
  override get message() {
    return this.reason.message
  }
}

const checkName = (definition: Definition, group: string | undefined): InvalidName | undefined => {
  const { topic } = definition
  const illegalTopic = DeadLetter.illegalName(topic.name)
  if (illegalTopic !== undefined) {
    return new InvalidName({
      name: topic.name,
      detail: `"${topic.name}" cannot name a topic: ${illegalTopic}. Change the name in Topic.make.`
    })
  }
  if (definition.name.length === 0) {
    return new InvalidName({
      name: "",
      detail: `A consumer of "${topic.name}" has an empty name. Pass { name } or leave it out.`
    })
  }
  if (group === undefined) return undefined
  const illegalGroup = DeadLetter.illegalName(group)
  if (illegalGroup !== undefined) {
    return new InvalidName({
      name: group,
      detail: `"${group}" cannot name a consumer group: ${illegalGroup}. It becomes part of dead-letter topic names.`
    })
  }
  const deadLetters = DeadLetter.topicName(topic.name, group)
  const illegalDeadLetters = DeadLetter.illegalName(deadLetters)
  return illegalDeadLetters === undefined ? undefined : new InvalidName({
    name: deadLetters,
    detail:
      `The dead-letter topic "${deadLetters}" cannot exist: ${illegalDeadLetters}. Shorten the topic's or the group's name.`
  })
}

const checkOptions = (definition: Definition): InvalidOption | undefined => {
  const { concurrency, mode, name, policy } = definition
  const batch = definition.batch ?? definition.group
  const invalid = (detail: string) => new InvalidOption({ handler: name, detail })
  const illegal = Limit.illegalConcurrency(concurrency) ??
    (batch === undefined ? undefined : Batching.illegal(batch)) ??
    Limit.illegalDuration("timeout of the failure policy", policy.timeout, "positive") ??
    FailurePolicy.illegalDelays(policy)
  if (illegal !== undefined) return invalid(illegal)
  if (mode === "broadcast" && (policy.exhausted === "save" || policy.exhausted === "retryLater")) {
    return invalid(
      "a broadcast consumer belongs to no group and has no dead-letter topic; use FailurePolicy.discard() or block()"
    )
  }
  return undefined
}

const checkDuplicates = (definitions: ReadonlyArray<Definition>, group: string): DuplicateHandler | undefined => {
  const seen = new Map<string, Definition>()
  for (const definition of definitions) {
    const { topic } = definition
    const id = `${topic.name}\u0000${definition.name}`
    const other = seen.get(id)
    if (other !== undefined) {
      return new DuplicateHandler({
        group,
        topic: topic.name,
        detail: other.named || definition.named
          ? `Two handlers of group "${group}" read "${topic.name}" under the name "${definition.name}". Pass a { name } of its own to one.`
          : `Two handlers of group "${group}" read "${topic.name}" without a name. Pass { name } to each.`
      })
    }
    seen.set(id, definition)
  }
  return undefined
}

/** The first thing that is wrong with these definitions, or `undefined`. `group` is that of those that are not broadcast. */
export const check = (definitions: ReadonlyArray<Definition>, group: string): ConsumerError | undefined => {
  const grouped = definitions.filter((definition) => definition.mode !== "broadcast")
  for (const definition of definitions) {
    const reason = checkName(definition, definition.mode === "broadcast" ? undefined : group) ??
      checkOptions(definition)
    if (reason !== undefined) return new ConsumerError({ reason })
  }
  const duplicate = checkDuplicates(grouped, group)
  return duplicate === undefined ? undefined : new ConsumerError({ reason: duplicate })
}

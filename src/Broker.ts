/**
 * The contract between the library and a message broker: bytes in, bytes out.
 *
 * A `Broker` knows topics, partitions, offsets and groups, and nothing of
 * schemas, handlers or policies. The fronts (`Publisher`, `Consumer`,
 * `Outbox`) own those. Each Layer (`Layers/KafkaJs`, `Layers/Memory`, …)
 * implements this file and passes `test/suites/broker`.
 *
 * Rules that every implementation keeps:
 *
 * - `Producer.send` carries one partition, and succeeds only when the broker
 *   has acknowledged every record of it durably.
 * - The signals of one subscription arrive as: `Assigned`, then `Records` of
 *   the assigned partitions, then `Revoked` or `Lost`. The Layer awaits
 *   `onSignal` and never overlaps two calls for one partition.
 * - An epoch names one grant of one partition. A commit under an epoch that
 *   has ended fails with `Fenced` and moves nothing.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"

const ErrorTypeId = "~effect-events/Broker/BrokerError" as const

/**
 * One header value. Text is UTF-8 on the wire.
 *
 * @category models
 * @since 0.1.0
 */
export type HeaderValue = string | Uint8Array

/**
 * Headers of a record by name. A name that occurs several times holds its
 * values as an array, in order.
 *
 * @category models
 * @since 0.1.0
 */
export interface Headers {
  readonly [name: string]: HeaderValue | ReadonlyArray<HeaderValue> | undefined
}

/**
 * A record as it lies in a partition.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConsumerRecord {
  readonly key: Uint8Array | null
  /** `null` is a tombstone. */
  readonly value: Uint8Array | null
  readonly headers: Headers
  readonly offset: bigint
  /** The broker's timestamp, milliseconds since the epoch. */
  readonly timestamp: number
}

/**
 * A record on its way to a partition.
 *
 * @category models
 * @since 0.1.0
 */
export interface ProducerRecord {
  /** Text is UTF-8 on the wire. `null` means without a key; `""` is a key. */
  readonly key: string | Uint8Array | null
  /** `null` is a tombstone. */
  readonly value: Uint8Array | null
  readonly headers: Headers
}

/**
 * Names one partition of one topic.
 *
 * @category models
 * @since 0.1.0
 */
export interface TopicPartition {
  readonly topic: string
  readonly partition: number
}

/**
 * One grant of a partition: `epoch` differs for each time it is granted.
 *
 * @category models
 * @since 0.1.0
 */
export interface Assignment extends TopicPartition {
  readonly epoch: number
}

/**
 * A position to commit: the offset of the next record to read.
 *
 * @category models
 * @since 0.1.0
 */
export interface Position extends Assignment {
  readonly offset: bigint
}

/**
 * What a subscription tells its consumer.
 *
 * **Details**
 *
 * - `Assigned`: these partitions are ours from now on. Sent for every join,
 *   also with an empty list.
 * - `Records`: a chunk in offset order. `nextOffset` is the offset after the
 *   chunk, past control records and compacted gaps; `records` may be empty
 *   when only such offsets were passed.
 * - `Revoked`: the partitions go to somebody else as soon as `onSignal`
 *   returns. Until `within` has passed a commit still counts; a call that
 *   takes much longer is interrupted, and `Lost` follows.
 * - `Lost`: the partitions may already belong to somebody else. Nothing may be
 *   committed, and running work should end. A call of `onSignal` that still
 *   runs for one of them is interrupted first.
 *
 * `Revoked` and `Lost` are not sent for empty lists.
 *
 * @category models
 * @since 0.1.0
 */
export type Signal =
  | { readonly _tag: "Assigned"; readonly assignments: ReadonlyArray<Assignment> }
  | {
    readonly _tag: "Records"
    readonly assignment: Assignment
    readonly records: ReadonlyArray<ConsumerRecord>
    readonly nextOffset: bigint
  }
  | {
    readonly _tag: "Revoked"
    readonly assignments: ReadonlyArray<Assignment>
    readonly within: Duration.Duration
  }
  | { readonly _tag: "Lost"; readonly assignments: ReadonlyArray<Assignment> }

/**
 * Flow control of a running subscription or tail. Pausing a partition that is
 * not assigned does nothing; a pause ends with its assignment. Neither `pause`
 * nor `resume` waits for a signal that is being handled.
 *
 * @category models
 * @since 0.1.0
 */
export interface Flow {
  /** No further `Records` of these partitions, apart from one chunk already on its way. */
  readonly pause: (partitions: ReadonlyArray<TopicPartition>) => Effect.Effect<void>
  readonly resume: (partitions: ReadonlyArray<TopicPartition>) => Effect.Effect<void>
  /** Fails when the feed cannot go on by itself, for example because its topic was deleted. */
  readonly failed: Effect.Effect<never, BrokerError>
}

/**
 * A membership of a group.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subscription extends Flow {
  /**
   * Commits positions. The caller has one commit in flight at a time. Fails
   * with reason `Fenced` when an epoch has ended.
   */
  readonly commit: (positions: ReadonlyArray<Position>) => Effect.Effect<void, BrokerError>
  /**
   * Whether what is assigned is certainly still ours. It is not when the
   * process stood still past its session and has not heard of it yet: nothing
   * should begin then, until `Lost` comes, or trust. Asked before each attempt.
   * Without it: always.
   */
  readonly trusted?: (() => boolean) | undefined
}

/**
 * Creation settings of a topic. Without `partitions` or `replicationFactor`
 * the broker's own defaults hold.
 *
 * @category models
 * @since 0.1.0
 */
export interface TopicCreation {
  readonly partitions?: number | undefined
  readonly replicationFactor?: number | undefined
  /** Broker-side settings by name, such as `retention.ms`. */
  readonly config?: { readonly [name: string]: string } | undefined
}

/**
 * A topic that a program needs: it must exist, or `create` says how to make it.
 *
 * @category models
 * @since 0.1.0
 */
export interface TopicRequirement {
  readonly name: string
  readonly create: TopicCreation | undefined
}

/**
 * A topic as the broker has it. `config` holds the settings that the program
 * may see: `cleanup.policy`, `retention.ms` and `max.message.bytes` at least,
 * or nothing if the broker does not let it look.
 *
 * @category models
 * @since 0.1.0
 */
export interface TopicDescription {
  readonly partitions: number
  readonly replicationFactor: number
  readonly config: { readonly [name: string]: string }
}

/**
 * Some records of one partition, in offset order.
 *
 * @category models
 * @since 0.1.0
 */
export interface Chunk {
  readonly partition: number
  readonly records: ReadonlyArray<ConsumerRecord>
}

/**
 * Sends records to partitions.
 *
 * @category models
 * @since 0.1.0
 */
export interface Producer {
  /**
   * Number of partitions of a topic. Fails with `UnknownTopic` if it does not
   * exist. Waits while no broker answers and none has told it before: whoever
   * calls has the deadline.
   */
  readonly partitions: (topic: string) => Effect.Effect<number, BrokerError>
  /**
   * Sends records to one partition and returns the offset of the first; `-1n`
   * if a retry was only told that the broker has them already.
   *
   * **Details**
   *
   * The caller has at most one send in flight for a partition; sends of
   * different partitions may overlap. Transient failures are retried inside,
   * without reordering or doubling, until `timeout`; then the send fails with
   * reason `ResultUnknown`, and the Layer makes sure that no request of it
   * leaves any more. After any failure the Layer begins a new idempotent
   * sequence, so that no batch is taken for the one that failed.
   */
  readonly send: (batch: {
    readonly topic: string
    readonly partition: number
    readonly records: Arr.NonEmptyReadonlyArray<ProducerRecord>
    readonly timeout: Duration.Duration
  }) => Effect.Effect<bigint, BrokerError>
}

/**
 * The service that moves records.
 *
 * **When to use**
 *
 * Programs name it only to provide a Layer; `Publisher`, `Consumer` and
 * `Outbox` are the fronts to use.
 *
 * @category services
 * @since 0.1.0
 */
export class Broker extends Context.Service<Broker, {
  /** Default `ce_source` of events published through this broker: the service's name. */
  readonly source: string
  /** Where the broker is, for error messages and logs; never contains secrets. */
  readonly address: string
  /** The Layer's scope: what the fronts keep per broker, such as the Publisher's producer, lives as long. */
  readonly scope: Scope.Scope
  /** Checks that topics exist, and creates those that say how. */
  readonly ensureTopics: (topics: ReadonlyArray<TopicRequirement>) => Effect.Effect<void, BrokerError>
  /** Looks at a topic. Fails with `UnknownTopic` if it does not exist, and never creates it. */
  readonly describe: (topic: string) => Effect.Effect<TopicDescription, BrokerError>
  /**
   * Checks that the program may write to an existing topic, without writing
   * anything. Fails with `NotAllowed` if it may not.
   */
  readonly mayWrite: (topic: string) => Effect.Effect<void, BrokerError>
  /**
   * Reads a whole topic without a group: partition by partition, from the
   * first record to the ends as they were at the start. Fails with
   * `UnknownTopic` if the topic does not exist.
   */
  readonly read: (topic: string) => Stream.Stream<Chunk, BrokerError>
  /** A producer of its own, closed with the scope. */
  readonly producer: Effect.Effect<Producer, BrokerError, Scope.Scope>
  /**
   * Joins a group, and returns once the group is joined; signals may come
   * before that. Closing the scope leaves the group, without further signals.
   * The Layer reconnects and rejoins by itself afterwards.
   */
  readonly subscribe: (options: {
    readonly group: string
    readonly topics: ReadonlyArray<string>
    readonly onSignal: (signal: Signal) => Effect.Effect<void>
  }) => Effect.Effect<Subscription, BrokerError, Scope.Scope>
  /**
   * Reads all partitions of the topics without a group, from their ends, and
   * returns once the start positions are known. Signals are one `Assigned`
   * per partition grant and `Records`; partitions that are added later are
   * read from their beginning. A partition whose log starts anew, as when its
   * topic was deleted and created again, is `Revoked` and granted once more.
   */
  readonly tail: (options: {
    readonly topics: ReadonlyArray<string>
    readonly onSignal: (signal: Signal) => Effect.Effect<void>
  }) => Effect.Effect<Flow, BrokerError, Scope.Scope>
}>()("effect-events/Broker") {}

/**
 * The broker could not be reached.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unreachable extends Schema.TaggedError<Unreachable>("effect-events/Broker/Unreachable")("Unreachable", {
  address: Schema.String,
  /** What was tried, for how long. */
  tried: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `No broker answers at ${this.address} (${this.tried}). Check the address and that the broker runs.`
  }
}

/**
 * The broker refused the credentials, or wants some.
 *
 * @category errors
 * @since 0.1.0
 */
export class AuthenticationFailed
  extends Schema.TaggedError<AuthenticationFailed>("effect-events/Broker/AuthenticationFailed")(
    "AuthenticationFailed",
    { address: Schema.String, detail: Schema.String, cause: Schema.Defect() }
  )
{
  override get message() {
    return `The broker at ${this.address} refused the login: ${this.detail}. Check the mechanism, user name and password.`
  }
}

/**
 * The broker's certificate is signed by nobody who is trusted, has expired, or
 * was made for another name.
 *
 * @category errors
 * @since 0.1.0
 */
export class CertificateRejected
  extends Schema.TaggedError<CertificateRejected>("effect-events/Broker/CertificateRejected")(
    "CertificateRejected",
    { address: Schema.String, detail: Schema.String, cause: Schema.Defect() }
  )
{
  override get message() {
    return `The certificate of the broker at ${this.address} is not accepted: ${this.detail}. Give its authority as \`ssl: { ca }\`, and connect by the name that it was made for.`
  }
}

/**
 * A topic or partition does not exist.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownTopic extends Schema.TaggedError<UnknownTopic>("effect-events/Broker/UnknownTopic")(
  "UnknownTopic",
  { topic: Schema.String, partition: Schema.optional(Schema.Number) }
) {
  override get message() {
    return this.partition === undefined
      ? `Topic "${this.topic}" does not exist. Create it, or pass { create: {} } to Topic.make.`
      : `Topic "${this.topic}" has no partition ${this.partition}.`
  }
}

/**
 * The program has not the right to do this with a topic.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotAllowed extends Schema.TaggedError<NotAllowed>("effect-events/Broker/NotAllowed")("NotAllowed", {
  /** The right that is missing, as the broker names it: `Write`, `Read`, … */
  right: Schema.String,
  topic: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `This program lacks the right ${this.right} on topic "${this.topic}". ` +
      `Grant it to the user that the program logs in as (on Kafka: kafka-acls --add --operation ${this.right} --topic ${this.topic}).`
  }
}

/**
 * The broker refused a request for good: trying again cannot help.
 *
 * @category errors
 * @since 0.1.0
 */
export class Refused extends Schema.TaggedError<Refused>("effect-events/Broker/Refused")("Refused", {
  operation: Schema.String,
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `The broker refused to ${this.operation}: ${this.detail}.`
  }
}

/**
 * A record, or one partition's batch, is larger than the broker takes.
 *
 * @category errors
 * @since 0.1.0
 */
export class TooLarge extends Schema.TaggedError<TooLarge>("effect-events/Broker/TooLarge")("TooLarge", {
  topic: Schema.String,
  bytes: Schema.Number,
  detail: Schema.String
}) {
  override get message() {
    return `${this.bytes} bytes are too large for topic "${this.topic}": ${this.detail}. ` +
      `Publish less, or raise the topic's max.message.bytes and Topic.make's maxBytes.`
  }
}

/**
 * No answer came in time: the records may or may not be in the log.
 *
 * @category errors
 * @since 0.1.0
 */
export class ResultUnknown extends Schema.TaggedError<ResultUnknown>("effect-events/Broker/ResultUnknown")(
  "ResultUnknown",
  { topic: Schema.String, partition: Schema.Number, detail: Schema.String }
) {
  override get message() {
    return `The result of publishing to "${this.topic}" partition ${this.partition} is unknown: ${this.detail}. ` +
      `Publishing again may double the event; consumers recognise it only by the same id.`
  }
}

/**
 * The epoch of a commit has ended: the partition was granted anew, or the
 * member was evicted. Nothing was committed.
 *
 * @category errors
 * @since 0.1.0
 */
export class Fenced extends Schema.TaggedError<Fenced>("effect-events/Broker/Fenced")("Fenced", {
  detail: Schema.String
}) {
  override get message() {
    return `The commit came after its assignment had ended: ${this.detail}.`
  }
}

/**
 * Why a broker operation failed.
 *
 * @category errors
 * @since 0.1.0
 */
export type BrokerErrorReason =
  | Unreachable
  | AuthenticationFailed
  | CertificateRejected
  | UnknownTopic
  | NotAllowed
  | Refused
  | TooLarge
  | ResultUnknown
  | Fenced

/**
 * Schema of `BrokerErrorReason`.
 *
 * @category errors
 * @since 0.1.0
 */
export const BrokerErrorReason = Schema.Union([
  Unreachable,
  AuthenticationFailed,
  CertificateRejected,
  UnknownTopic,
  NotAllowed,
  Refused,
  TooLarge,
  ResultUnknown,
  Fenced
])

/**
 * A failed broker operation; `reason` says why. Handle single reasons with
 * `Effect.catchReason("BrokerError", "UnknownTopic", …)`.
 *
 * @category errors
 * @since 0.1.0
 */
export class BrokerError extends Schema.TaggedError<BrokerError>("effect-events/Broker/BrokerError")("BrokerError", {
  reason: BrokerErrorReason
}) {
  readonly [ErrorTypeId] = ErrorTypeId
  override readonly cause = this.reason
  override get message() {
    return this.reason.message
  }
}

/**
 * Checks for a `BrokerError`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isBrokerError = (u: unknown): u is BrokerError => Predicate.hasProperty(u, ErrorTypeId)

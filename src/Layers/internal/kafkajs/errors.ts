/**
 * Owns the reading of KafkaJS errors: what one means, and which reason of
 * `BrokerError` it becomes.
 *
 * Invariant: no other file looks into an error of KafkaJS.
 *
 * The insight: KafkaJS wraps. The error that says something (`type` of the
 * protocol, `code` of the socket) is the innermost `cause`, while `retriable`
 * of the wrapper tells only that KafkaJS has given up.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Broker from "../../../Broker.ts"

interface KafkaJsError {
  readonly name?: string
  readonly message?: string
  readonly type?: string
  readonly code?: string | number
  readonly retriable?: boolean
  readonly topic?: string
  readonly partition?: number
  readonly cause?: unknown
  readonly errors?: ReadonlyArray<unknown>
}

const innermost = (error: unknown, depth = 0): KafkaJsError => {
  const e = (typeof error === "object" && error !== null ? error : { message: String(error) }) as KafkaJsError
  const first = e.name === "KafkaJSAggregateError" ? e.errors?.[0] : e.cause
  return depth < 8 && typeof first === "object" && first !== null && e.type === undefined
    ? innermost(first, depth + 1)
    : e
}

/** A failed call into KafkaJS. `error` is what KafkaJS threw. */
export class KafkaJsFailure extends Data.TaggedError("KafkaJsFailure")<{ readonly error: unknown }> {
  /** The protocol's name of the error, such as `NOT_LEADER_FOR_PARTITION`. */
  get type(): string | undefined {
    return innermost(this.error).type
  }
  /** The class of the innermost error, such as `KafkaJSConnectionError`. */
  get kind(): string {
    return innermost(this.error).name ?? "Error"
  }
  get detail(): string {
    return innermost(this.error).message ?? String(this.error)
  }
  /** The partition that the error is about, if it names one. */
  get subject(): Broker.TopicPartition | undefined {
    const { topic, partition } = innermost(this.error)
    return topic !== undefined && partition !== undefined ? { topic, partition } : undefined
  }
  /** No answer came, so a request may or may not have taken effect. */
  get unanswered(): boolean {
    return this.type === undefined && /Connection|RequestTimeout|LockTimeout|BrokerNotFound/.test(this.kind)
  }
  /**
   * KafkaJS takes a broker for connected once its socket is, hands it out, and
   * throws a plain error for requests until it has heard the broker's versions.
   */
  get unsent(): boolean {
    const { message, name, type } = innermost(this.error)
    return type === undefined && name === "Error" && message === "Broker not connected"
  }
  get transient(): boolean {
    const inner = innermost(this.error)
    if (inner.name === "KafkaJSSASLAuthenticationError" || authTypes.has(inner.type ?? "")) return false
    return this.unanswered || this.unsent || inner.retriable === true || otherTransient.has(inner.type ?? "") ||
      inner.name === "KafkaJSMetadataNotLoaded" || inner.name === "KafkaJSTopicMetadataNotLoaded" ||
      inner.name === "KafkaJSGroupCoordinatorNotFound" || inner.name === "KafkaJSNoBrokerAvailableError"
  }
  get authentication(): boolean {
    return this.kind === "KafkaJSSASLAuthenticationError" || authTypes.has(this.type ?? "")
  }
}

/** KafkaJS did not come back in time. */
export const noAnswer = new KafkaJsFailure({
  error: Object.assign(new Error("KafkaJS did not answer"), { name: "KafkaJSRequestTimeoutError", retriable: true })
})

const authTypes = new Set(["SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "ILLEGAL_SASL_STATE"])

// Retriable by the protocol, but not in KafkaJS's table.
const otherTransient = new Set([
  "BROKER_NOT_AVAILABLE",
  "KAFKA_STORAGE_ERROR",
  "OFFSET_NOT_AVAILABLE",
  "FENCED_LEADER_EPOCH",
  "UNKNOWN_LEADER_EPOCH",
  "UNSTABLE_OFFSET_COMMIT",
  "REBALANCE_IN_PROGRESS"
])

/** Errors that say the group has moved to another coordinator, or is loading there. */
export const coordinatorMoved = (failure: KafkaJsFailure): boolean =>
  failure.type === undefined
    ? failure.unanswered || failure.kind === "KafkaJSGroupCoordinatorNotFound"
    : failure.type === "NOT_COORDINATOR_FOR_GROUP" || failure.type === "GROUP_COORDINATOR_NOT_AVAILABLE" ||
      failure.type === "GROUP_LOAD_IN_PROGRESS"

/** Errors that say this member, or its generation, is no longer part of the group. */
export const evicted = (failure: KafkaJsFailure): boolean =>
  failure.type === "UNKNOWN_MEMBER_ID" || failure.type === "ILLEGAL_GENERATION" || failure.type === "FENCED_INSTANCE_ID"

export const unknownTopic = (failure: KafkaJsFailure): boolean => failure.type === "UNKNOWN_TOPIC_OR_PARTITION"

export const notAllowed = (failure: KafkaJsFailure): boolean => failure.type === "TOPIC_AUTHORIZATION_FAILED"

/** Calls KafkaJS; whatever it throws or rejects with becomes a `KafkaJsFailure`. */
export const attempt = <A>(call: () => PromiseLike<A>): Effect.Effect<A, KafkaJsFailure> =>
  Effect.tryPromise({ try: call, catch: (error) => new KafkaJsFailure({ error }) })

export const brokerError = (reason: Broker.BrokerErrorReason): Broker.BrokerError => new Broker.BrokerError({ reason })

/** The reason for a failure that ends an operation, seen from outside. */
export const toBrokerError = (failure: KafkaJsFailure, options: {
  readonly operation: string
  readonly address: string
  readonly tried: string
  readonly topic?: string | undefined
  /** What the broker calls the right that the operation needs. */
  readonly right?: string | undefined
}): Broker.BrokerError => {
  if (failure.authentication) {
    return brokerError(
      new Broker.AuthenticationFailed({ address: options.address, detail: failure.detail, cause: failure.error })
    )
  }
  if (notAllowed(failure) && options.topic !== undefined) {
    return brokerError(
      new Broker.NotAllowed({ right: options.right ?? "Describe", topic: options.topic, cause: failure.error })
    )
  }
  if (unknownTopic(failure) && options.topic !== undefined) {
    return brokerError(new Broker.UnknownTopic({ topic: options.topic }))
  }
  return failure.transient
    ? brokerError(
      new Broker.Unreachable({
        address: options.address,
        tried: `${options.tried}: ${failure.detail}`,
        cause: failure.error
      })
    )
    : brokerError(
      new Broker.Refused({
        operation: options.operation,
        detail: failure.type === undefined ? failure.detail : `${failure.type}: ${failure.detail}`,
        cause: failure.error
      })
    )
}

/**
 * Owns the reading of KafkaJS errors: what one means.
 *
 * Invariant: no other file looks into an error of KafkaJS.
 *
 * The insight: KafkaJS wraps. The error that says something (`type` of the
 * protocol, `code` of the socket) is the innermost `cause`, while `retriable`
 * of the wrapper tells only that KafkaJS has given up.
 */
import * as Effect from "effect/Effect"
import { isAuthenticationType, isCertificateCode, isTransientType, KafkaFailure } from "../kafka/failure.ts"

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

/** What KafkaJS calls by an older name than Kafka does. */
const renamed: { readonly [type: string]: string } = {
  UNKNOWN: "UNKNOWN_SERVER_ERROR",
  NOT_LEADER_FOR_PARTITION: "NOT_LEADER_OR_FOLLOWER",
  GROUP_LOAD_IN_PROGRESS: "COORDINATOR_LOAD_IN_PROGRESS",
  GROUP_COORDINATOR_NOT_AVAILABLE: "COORDINATOR_NOT_AVAILABLE",
  NOT_COORDINATOR_FOR_GROUP: "NOT_COORDINATOR"
}

/** Errors of KafkaJS's own that stand for one of the protocol. */
const typeOf = ({ name, type }: KafkaJsError): string | undefined =>
  type !== undefined
    ? renamed[type] ?? type
    : name === "KafkaJSGroupCoordinatorNotFound"
    ? "COORDINATOR_NOT_AVAILABLE"
    : undefined

const retriableKinds = new Set([
  "KafkaJSMetadataNotLoaded",
  "KafkaJSTopicMetadataNotLoaded",
  "KafkaJSNoBrokerAvailableError"
])

/** What KafkaJS threw, and what it means. */
export const failureOf = (error: unknown): KafkaFailure => {
  const inner = innermost(error)
  const { code, message, name, partition, retriable, topic } = inner
  const kind = name ?? "Error"
  const type = typeOf(inner)
  const unanswered = type === undefined && /Connection|RequestTimeout|LockTimeout|BrokerNotFound/.test(kind)
  // KafkaJS takes a broker for connected once its socket is, hands it out, and throws a plain error for requests
  // until it has heard the broker's versions.
  const unsent = type === undefined && kind === "Error" && message === "Broker not connected"
  const authentication = kind === "KafkaJSSASLAuthenticationError" || (type !== undefined && isAuthenticationType(type))
  return new KafkaFailure({
    error,
    detail: message ?? String(error),
    type,
    subject: topic !== undefined && partition !== undefined ? { topic, partition } : undefined,
    unanswered,
    unsent,
    transient: !authentication && (unanswered || unsent || retriable === true || retriableKinds.has(kind) ||
      (type !== undefined && isTransientType(type))),
    authentication,
    certificate: isCertificateCode(code),
    closed: kind === "KafkaJSConnectionClosedError" || code === "ECONNRESET"
  })
}

/** A connection that failed, and was not merely silent. */
export const isConnectionError = ({ error }: KafkaFailure): boolean =>
  innermost(error).name === "KafkaJSConnectionError"

/** Calls KafkaJS; whatever it throws or rejects with becomes a `KafkaFailure`. */
export const attempt = <A>(call: () => PromiseLike<A>): Effect.Effect<A, KafkaFailure> =>
  Effect.tryPromise({ try: call, catch: failureOf })

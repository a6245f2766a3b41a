/**
 * Owns what a failed request to Kafka means, whichever client made it, and
 * which reason of `BrokerError` it becomes.
 *
 * Invariant: errors of the protocol have the names of Kafka's own list; a
 * client's `errors.ts` translates what it calls differently.
 */
import * as Data from "effect/Data"
import * as Broker from "../../../Broker.ts"

/** A failed request. */
export class KafkaFailure extends Data.TaggedError("KafkaFailure")<{
  /** What the client threw. */
  readonly error: unknown
  readonly detail: string
  /** The protocol's name of the error, such as `NOT_LEADER_OR_FOLLOWER`; `undefined`: no broker has said it. */
  readonly type: string | undefined
  /** The partition that the error is about, if it names one. */
  readonly subject?: Broker.TopicPartition | undefined
  /** No answer came, so a request may or may not have taken effect. */
  readonly unanswered: boolean
  /** The request certainly did not leave. */
  readonly unsent: boolean
  /** Trying again may help. */
  readonly transient: boolean
  /** The login was refused. */
  readonly authentication: boolean
  /** The broker's certificate is not accepted. */
  readonly certificate?: boolean | undefined
  /** The broker took the connection, and closed it before it said anything. */
  readonly closed?: boolean | undefined
}> {}

/** What Node.js calls a certificate that it does not accept: OpenSSL's verify errors, and its own of names. */
export const isCertificateCode = (code: unknown): boolean =>
  typeof code === "string" &&
  /^(CERT_|UNABLE_TO_|DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|ERR_TLS_CERT_|HOSTNAME_MISMATCH|INVALID_CA|PATH_LENGTH_EXCEEDED|INVALID_PURPOSE)/
    .test(code)

/** What we say ourselves, in the words of the protocol. */
export const protocolFailure = (
  type: string,
  detail: string,
  transient: boolean,
  subject?: Broker.TopicPartition
): KafkaFailure =>
  new KafkaFailure({
    error: new Error(detail),
    detail,
    type,
    subject,
    unanswered: false,
    unsent: false,
    transient,
    authentication: false
  })

/** No answer came in time. */
export const noAnswer = new KafkaFailure({
  error: new Error("no answer"),
  detail: "no answer in time",
  type: undefined,
  unanswered: true,
  unsent: false,
  transient: true,
  authentication: false
})

/** Errors that are no refusal for good. Those that clients call retriable, and some that they forget. */
const transientTypes = new Set([
  "BROKER_NOT_AVAILABLE",
  "CONCURRENT_TRANSACTIONS",
  "COORDINATOR_LOAD_IN_PROGRESS",
  "COORDINATOR_NOT_AVAILABLE",
  "CORRUPT_MESSAGE",
  "FENCED_LEADER_EPOCH",
  "FETCH_SESSION_ID_NOT_FOUND",
  "INVALID_FETCH_SESSION_EPOCH",
  "KAFKA_STORAGE_ERROR",
  "LEADER_NOT_AVAILABLE",
  "LISTENER_NOT_FOUND",
  "NETWORK_EXCEPTION",
  "NOT_CONTROLLER",
  "NOT_COORDINATOR",
  "NOT_ENOUGH_REPLICAS",
  "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
  "NOT_LEADER_OR_FOLLOWER",
  "OFFSET_NOT_AVAILABLE",
  "PREFERRED_LEADER_NOT_AVAILABLE",
  "REBALANCE_IN_PROGRESS",
  "REPLICA_NOT_AVAILABLE",
  "REQUEST_TIMED_OUT",
  "THROTTLING_QUOTA_EXCEEDED",
  "UNKNOWN_LEADER_EPOCH",
  "UNKNOWN_TOPIC_ID",
  "UNKNOWN_TOPIC_OR_PARTITION",
  "UNSTABLE_OFFSET_COMMIT"
])

export const isTransientType = (type: string): boolean => transientTypes.has(type)

const authenticationTypes = new Set(["SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM", "ILLEGAL_SASL_STATE"])

export const isAuthenticationType = (type: string): boolean => authenticationTypes.has(type)

/** Errors that say the group has moved to another coordinator, or is loading there. */
export const coordinatorMoved = (failure: KafkaFailure): boolean =>
  failure.type === undefined
    ? failure.unanswered
    : failure.type === "NOT_COORDINATOR" || failure.type === "COORDINATOR_NOT_AVAILABLE" ||
      failure.type === "COORDINATOR_LOAD_IN_PROGRESS"

/** Errors that say this member, or its generation, is no longer part of the group. */
export const evicted = ({ type }: KafkaFailure): boolean =>
  type === "UNKNOWN_MEMBER_ID" || type === "ILLEGAL_GENERATION" || type === "FENCED_INSTANCE_ID"

export const unknownTopic = ({ type }: KafkaFailure): boolean =>
  type === "UNKNOWN_TOPIC_OR_PARTITION" || type === "UNKNOWN_TOPIC_ID"

export const notAllowed = ({ type }: KafkaFailure): boolean => type === "TOPIC_AUTHORIZATION_FAILED"

export const brokerError = (reason: Broker.BrokerErrorReason): Broker.BrokerError => new Broker.BrokerError({ reason })

/** The reason for a failure that ends an operation, seen from outside. */
export const toBrokerError = (failure: KafkaFailure, options: {
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

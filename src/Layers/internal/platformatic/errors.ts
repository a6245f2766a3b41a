/**
 * Owns the reading of errors of `@platformatic/kafka`: what one means.
 *
 * Invariant: no other file looks into an error of that client.
 *
 * The insight: the error that says something lies two or three deep, as one of
 * `errors` or as a `cause`. One of the protocol has an `apiId`; a refused login
 * is the cause of a failed connection, which calls itself retriable. A
 * connection that breaks while it logs in, or while TLS begins, is told as a
 * refused login, or a wrong use of the client, with the break as its cause.
 */
import * as Effect from "effect/Effect"
import type { TopicPartition } from "../../../Broker.ts"
import { isAuthenticationType, isCertificateCode, isTransientType, KafkaFailure } from "../kafka/failure.ts"

interface ClientError {
  readonly name?: string
  readonly message?: string
  /** Of the client, such as `PLT_KFK_NETWORK`. */
  readonly code?: string
  /** Of the protocol, such as `NOT_LEADER_OR_FOLLOWER`. */
  readonly apiId?: string
  /** Where in the answer it stands. */
  readonly path?: string
  readonly serverErrorMessage?: string | null
  readonly cause?: unknown
  readonly errors?: ReadonlyArray<unknown>
}

/** The error and what is in it, from the outside in. */
const layers = (error: unknown, depth = 0): ReadonlyArray<ClientError> => {
  if (typeof error !== "object" || error === null || depth > 8) return []
  const { cause, errors = [] }: ClientError = error
  return [error, ...[...errors, cause].flatMap((inner) => layers(inner, depth + 1))]
}

const network = "PLT_KFK_NETWORK"
const silence = "PLT_KFK_TIMEOUT"
/** Of Node.js: the other side has closed the socket. */
const reset = "ECONNRESET"

/** Whether the error has this code, and no broken connection as its cause. */
const isItself = (error: ClientError, code: string): boolean =>
  error.code === code && !layers(error).some(({ code }) => code === network || code === silence || code === reset)

/** What the client threw, and what it means; `subject` is what was asked about. */
export const failureOf = (error: unknown, subject?: TopicPartition): KafkaFailure => {
  const all = layers(error)
  const ofProtocol = all.filter(({ apiId }) => apiId !== undefined)
  // What a broker says of single records comes first and has no code of its own; what counts is the batch's.
  const protocol = ofProtocol.find(({ path }) => !path?.includes("/record_errors/")) ?? ofProtocol[0]
  const type = protocol?.apiId
  const authentication = all.some((error) => isItself(error, "PLT_KFK_AUTHENTICATION")) ||
    (type !== undefined && isAuthenticationType(type))
  const misused = all.find((error) => isItself(error, "PLT_KFK_USER"))
  const unanswered = type === undefined && !authentication && misused === undefined &&
    all.some(({ code }) => code === network || code === silence)
  const telling = protocol ?? misused ?? all.at(-1)
  return new KafkaFailure({
    error,
    detail: protocol?.serverErrorMessage ?? telling?.message ?? String(error),
    type,
    subject,
    unanswered,
    unsent: false,
    transient: !authentication && (unanswered || (type !== undefined && isTransientType(type))),
    authentication,
    certificate: all.some(({ code }) => isCertificateCode(code)),
    closed: telling?.code === reset || telling?.message === "Connection closed"
  })
}

/** Calls the client; whatever it throws or rejects with becomes a `KafkaFailure`. */
export const attempt = <A>(
  call: () => PromiseLike<A>,
  subject?: TopicPartition
): Effect.Effect<A, KafkaFailure> => Effect.tryPromise({ try: call, catch: (error) => failureOf(error, subject) })

/** The id that a coordinator gives to a member that comes without one. */
export const memberIdOf = (error: unknown): string | undefined =>
  layers(error).map((layer) => (layer as { readonly memberId?: unknown }).memberId)
    .find((memberId): memberId is string => typeof memberId === "string" && memberId !== "")

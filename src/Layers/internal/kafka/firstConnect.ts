/**
 * Owns the first contact with the cluster: whether somebody answers, and
 * whether they let us in.
 *
 * Invariant: it ends within `connectTimeout`, with a reason that says what was
 * tried.
 *
 * The insight: a listener that wants a login takes the connection and closes it
 * at a request. Clients call that a connection error that may pass, and would
 * try again for ever; and so they call a certificate that is not accepted.
 */
import * as Effect from "effect/Effect"
import * as Broker from "../../../Broker.ts"
import { brokerError, type KafkaFailure, noAnswer } from "./failure.ts"
import type { Settings } from "./settings.ts"

/** What one broker had to say to a client that knocked. */
export type Finding =
  | { readonly _tag: "Welcome" }
  | { readonly _tag: "ClosedAfterGreeting"; readonly failure: KafkaFailure }
  | { readonly _tag: "Refused"; readonly failure: KafkaFailure }
  | { readonly _tag: "NoAnswer"; readonly failure: KafkaFailure }

export const welcome: Finding = { _tag: "Welcome" }

/** Any name will do: every answer from the protocol says that we are let in. */
export const probeTopic = "effect-events-probe"

/** Asks the broker of this index, counted round. */
export type Knock = (first: number) => Effect.Effect<Finding>

const authenticationFailed = (settings: Settings, detail: string, failure: KafkaFailure) =>
  brokerError(new Broker.AuthenticationFailed({ address: settings.address, detail, cause: failure.error }))

const certificateRejected = (settings: Settings, { detail, error }: KafkaFailure) =>
  brokerError(new Broker.CertificateRejected({ address: settings.address, detail, cause: error }))

/** Why a broker may close a connection before it says anything. */
const suspicion = ({ ssl }: Settings, { closed }: KafkaFailure): string =>
  closed !== true
    ? ""
    : ssl === false
    ? "; one that wants TLS does that, and `ssl` is not set"
    : "; one without TLS does that, and `ssl` is set"

/**
 * One that takes the connection and says nothing leaves time for others; but
 * not for all of a long list, since a slow one needs time, too.
 */
const knockInTime = (settings: Settings, knock: Knock, first: number) => {
  const millis = Math.ceil(settings.connectTimeout / Math.min(3, settings.brokers.length))
  return Effect.timeoutOrElse(knock(first), {
    duration: millis,
    orElse: (): Effect.Effect<Finding> =>
      Effect.succeed({
        _tag: "NoAnswer",
        failure: noAnswer
      })
  })
}

/** Succeeds when one of the brokers answers and accepts us. */
export const firstConnect = Effect.fnUntraced(function*(
  settings: Settings,
  knock: Knock
): Effect.fn.Return<void, Broker.BrokerError> {
  let tries = 0
  let closed = 0
  let untrusted = 0
  let last: KafkaFailure = noAnswer
  const loop = Effect.gen(function*() {
    for (;;) {
      const finding = yield* knockInTime(settings, knock, tries++)
      if (finding._tag === "Welcome") return
      last = finding.failure
      if (finding._tag === "Refused") return yield* authenticationFailed(settings, last.detail, last)
      // Another one may have its certificate in order.
      if (last.certificate === true && ++untrusted >= settings.brokers.length) {
        return yield* certificateRejected(settings, last)
      }
      if (
        finding._tag === "ClosedAfterGreeting" && settings.sasl === undefined && ++closed >= 2 * settings.brokers.length
      ) {
        const tls = settings.ssl === false ? " or TLS (`ssl` is not set)" : ""
        const detail = "it closes the connection after the greeting, so it probably wants a login (`sasl` is not set)"
        return yield* authenticationFailed(settings, detail + tls, last)
      }
      yield* Effect.sleep(250)
    }
  })
  const unreachable = Effect.suspend(() =>
    Effect.fail(brokerError(
      new Broker.Unreachable({
        address: settings.address,
        tried: `${tries} attempts in ${settings.connectTimeout} ms, the last: ${last.detail}${
          suspicion(settings, last)
        }`,
        cause: last.error
      })
    ))
  )
  return yield* Effect.timeoutOrElse(loop, { duration: settings.connectTimeout, orElse: () => unreachable })
})

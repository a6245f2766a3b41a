/**
 * Owns the first contact with the cluster: whether somebody answers, and
 * whether they let us in.
 *
 * Invariant: it ends within `connectTimeout`, with a reason that says what was
 * tried.
 *
 * The insight: a listener that wants a login answers the first request
 * (ApiVersions) and closes the connection at the next one. KafkaJS calls that a
 * retriable connection error, and would retry it for ever.
 */
import * as Effect from "effect/Effect"
import * as Broker from "../../../Broker.ts"
import * as Connection from "./connection.ts"
import { attempt, brokerError, KafkaJsFailure } from "./errors.ts"
import type { Settings } from "./settings.ts"

type Finding =
  | { readonly _tag: "Welcome" }
  | { readonly _tag: "ClosedAfterGreeting"; readonly failure: KafkaJsFailure }
  | { readonly _tag: "Refused"; readonly failure: KafkaJsFailure }
  | { readonly _tag: "NoAnswer"; readonly failure: KafkaJsFailure }

const welcome: Finding = { _tag: "Welcome" }

/** Any name will do: every answer from the protocol says that we are let in. */
const probeTopic = "effect-events-probe"

const knock = Effect.fnUntraced(function*(settings: Settings, first: number) {
  const door = yield* Connection.open(settings, Connection.impatient, first)
  const network = Connection.network(settings, door)
  const greeted = yield* Effect.result(attempt(() => network.connect()))
  if (greeted._tag === "Failure") {
    const failure = greeted.failure
    const finding: Finding = failure.authentication
      ? { _tag: "Refused", failure }
      : { _tag: "NoAnswer", failure }
    return finding
  }
  const seed = network.brokerPool.seedBroker
  const asked = yield* Effect.result(attempt(() => seed!.metadata([probeTopic])))
  if (asked._tag === "Success" || asked.failure.type !== undefined) return welcome
  const finding: Finding = { _tag: "ClosedAfterGreeting", failure: asked.failure }
  return finding
}, Effect.scoped)

const authenticationFailed = (settings: Settings, detail: string, failure: KafkaJsFailure) =>
  brokerError(new Broker.AuthenticationFailed({ address: settings.address, detail, cause: failure.error }))

/**
 * One that takes the connection and says nothing leaves time for others; but
 * not for all of a long list, since a slow one needs time, too.
 */
const knockInTime = (settings: Settings, first: number) => {
  const millis = Math.ceil(settings.connectTimeout / Math.min(3, settings.brokers.length))
  return Effect.timeoutOrElse(knock(settings, first), {
    duration: millis,
    orElse: (): Effect.Effect<Finding> =>
      Effect.succeed({
        _tag: "NoAnswer",
        failure: new KafkaJsFailure({ error: new Error(`no answer in ${millis} ms`) })
      })
  })
}

/** Succeeds when one of the brokers answers and accepts us. */
export const firstConnect = Effect.fnUntraced(function*(
  settings: Settings
): Effect.fn.Return<void, Broker.BrokerError> {
  let tries = 0
  let closed = 0
  let last = new KafkaJsFailure({ error: new Error("no answer") })
  const loop = Effect.gen(function*() {
    for (;;) {
      const finding = yield* knockInTime(settings, tries++)
      if (finding._tag === "Welcome") return
      last = finding.failure
      if (finding._tag === "Refused") return yield* authenticationFailed(settings, last.detail, last)
      if (
        finding._tag === "ClosedAfterGreeting" && settings.sasl === undefined && ++closed >= 2 * settings.brokers.length
      ) {
        const detail =
          "it closes the connection after the greeting, so it probably wants a login, and `sasl` is not set"
        return yield* authenticationFailed(settings, detail, last)
      }
      yield* Effect.sleep(250)
    }
  })
  const unreachable = Effect.suspend(() =>
    Effect.fail(brokerError(
      new Broker.Unreachable({
        address: settings.address,
        tried: `${tries} attempts in ${settings.connectTimeout} ms, the last: ${last.detail}`,
        cause: last.error
      })
    ))
  )
  return yield* Effect.timeoutOrElse(loop, { duration: settings.connectTimeout, orElse: () => unreachable })
})

/**
 * Owns KafkaJS's first word to a broker.
 *
 * The insight: KafkaJS greets first (ApiVersions), which a listener answers
 * that wants a login, and is turned away at the next request.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Finding, probeTopic, welcome } from "../kafka/firstConnect.ts"
import type { Settings } from "../kafka/settings.ts"
import * as Connection from "./connection.ts"
import { attempt } from "./errors.ts"

const ask = Effect.fnUntraced(function*(
  settings: Settings,
  first: number
): Effect.fn.Return<Finding, never, Scope.Scope> {
  const door = yield* Connection.open(settings, Connection.impatient, first)
  const network = Connection.network(settings, door)
  const greeted = yield* Effect.result(attempt(() => network.connect()))
  if (greeted._tag === "Failure") {
    const failure = greeted.failure
    return failure.authentication ? { _tag: "Refused", failure } : { _tag: "NoAnswer", failure }
  }
  const seed = network.brokerPool.seedBroker
  const asked = yield* Effect.result(attempt(() => seed!.metadata([probeTopic])))
  if (asked._tag === "Success" || asked.failure.type !== undefined) return welcome
  return { _tag: "ClosedAfterGreeting", failure: asked.failure }
})

export const knock = (settings: Settings, first: number): Effect.Effect<Finding> => Effect.scoped(ask(settings, first))

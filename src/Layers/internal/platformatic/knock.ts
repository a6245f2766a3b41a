/** Owns the first word to a broker over `@platformatic/kafka`. */
import { metadataV10 } from "@platformatic/kafka"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type Finding, probeTopic, welcome } from "../kafka/firstConnect.ts"
import type { Settings } from "../kafka/settings.ts"
import { parseAddress } from "./cluster.ts"
import * as Connections from "./connections.ts"
import { attempt } from "./errors.ts"

const ask = Effect.fnUntraced(function*(
  settings: Settings,
  first: number
): Effect.fn.Return<Finding, never, Scope.Scope> {
  const connections = yield* Connections.make(settings)
  const address = parseAddress(settings.brokers[first % settings.brokers.length]!)
  const connected = yield* Effect.result(connections.get(address, "talk"))
  if (connected._tag === "Failure") {
    const failure = connected.failure
    return failure.authentication ? { _tag: "Refused", failure } : { _tag: "NoAnswer", failure }
  }
  const asked = yield* Effect.result(
    attempt(() => metadataV10.api.async(connected.success, [probeTopic], false, false, false))
  )
  if (asked._tag === "Success" || asked.failure.type !== undefined) return welcome
  return { _tag: "ClosedAfterGreeting", failure: asked.failure }
})

export const knock = (settings: Settings, first: number): Effect.Effect<Finding> => Effect.scoped(ask(settings, first))

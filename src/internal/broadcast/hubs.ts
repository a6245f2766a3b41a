/**
 * The hubs of a broker, by topic: made by the first subscriber, and kept for a
 * while after the last has left.
 *
 * Connections come and go. A page that is loaded again should not pay for a
 * start (metadata, offsets, a fetch), and a topic that nobody follows any more
 * should not be read for ever.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as RcMap from "effect/RcMap"
import * as Scope from "effect/Scope"
import type { Broker } from "../../Broker.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Hub from "./hub.ts"

const idleTimeToLive = "1 minute"

type Hubs = RcMap.RcMap<string, Hub.Hub>

const known = new WeakMap<Broker["Service"], Hubs>()

const make = (broker: Broker["Service"]): Effect.Effect<Hubs> =>
  Scope.provide(
    RcMap.make({
      lookup: (topic: string) =>
        Effect.andThen(
          Effect.addFinalizer(() => EngineEvent.log({ _tag: "BroadcastStopped", topic })),
          Hub.make(broker, topic)
        ),
      idleTimeToLive
    }),
    broker.scope
  )

const hubsOf = (broker: Broker["Service"]): Effect.Effect<Hubs> =>
  Effect.suspend(() => {
    const hubs = known.get(broker)
    if (hubs !== undefined) return Effect.succeed(hubs)
    return Effect.map(make(broker), (made) => {
      // Another fiber may have come first.
      const winner = known.get(broker) ?? made
      known.set(broker, winner)
      return winner
    })
  })

/** The hub of a topic, held until the scope closes. */
export const hub = (broker: Broker["Service"], topic: string): Effect.Effect<Hub.Hub, never, Scope.Scope> =>
  Effect.flatMap(hubsOf(broker), (hubs) => RcMap.get(hubs, topic))

/**
 * The lanes that all publishers and dead letters of one broker share: made
 * with the first message, closed with the broker's Layer. One producer for
 * all keeps the order of the calls per key.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Broker, BrokerError } from "../../Broker.ts"
import * as Lanes from "./lanes.ts"

const known = new WeakMap<Broker["Service"], Effect.Effect<Lanes.Lanes, BrokerError>>()

/** At once if they are made. If not, each run looks anew: what failed before is forgotten. */
export const lanes = (broker: Broker["Service"]): Effect.Effect<Lanes.Lanes, BrokerError> => {
  const found = known.get(broker)
  return found !== undefined && Exit.isExit(found) ?
    found :
    Effect.suspend(() =>
      known.get(broker) ?? Effect.flatMap(Effect.cached(make(broker)), (made) =>
        Effect.suspend(() => {
          // Another fiber may have come first.
          const winner = known.get(broker)
          if (winner !== undefined) return winner
          known.set(broker, made)
          return made
        }))
    )
}

// Uninterruptible, and forgotten when it fails: a cached effect keeps its
// first exit for ever. Once made, the lanes are there at once.
const make = (broker: Broker["Service"]): Effect.Effect<Lanes.Lanes, BrokerError> =>
  broker.producer.pipe(
    Effect.flatMap((producer) => Lanes.make({ producer, address: broker.address })),
    Scope.provide(broker.scope),
    Effect.tap((lanes) => Effect.sync(() => known.set(broker, Effect.succeed(lanes)))),
    Effect.onError(() => Effect.sync(() => known.delete(broker))),
    Effect.uninterruptible
  )

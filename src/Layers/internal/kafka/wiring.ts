/**
 * Owns what a Kafka Layer consists of, over the client that it is given.
 *
 * Invariant: nobody gets a broker that has not let us in.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Broker from "../../../Broker.ts"
import * as Admin from "./admin.ts"
import type { Cluster } from "./cluster.ts"
import * as Describe from "./describe.ts"
import { type Finding, firstConnect } from "./firstConnect.ts"
import { type Options, toSettings } from "./options.ts"
import * as Producer from "./producer.ts"
import * as Read from "./read.ts"
import type { Settings } from "./settings.ts"
import * as Tail from "./tail.ts"

/** What differs from client to client. */
export interface Client<C extends Cluster> {
  readonly knock: (settings: Settings, first: number) => Effect.Effect<Finding>
  /** A connection of its own, closed with the scope. */
  readonly connect: (settings: Settings) => Effect.Effect<C, never, Scope.Scope>
  readonly subscribe: (settings: Settings, cluster: C) => Broker.Broker["Service"]["subscribe"]
}

/** Connects, within `connectTimeout`. */
export const make = Effect.fnUntraced(function*<C extends Cluster>(
  client: Client<C>,
  options: Options
): Effect.fn.Return<Broker.Broker["Service"], Broker.BrokerError, Scope.Scope> {
  const settings = toSettings(options)
  yield* firstConnect(settings, (first) => client.knock(settings, first))
  const cluster = yield* client.connect(settings)
  return Broker.Broker.of({
    source: options.source ?? settings.clientId,
    address: settings.address,
    scope: yield* Effect.scope,
    ensureTopics: Admin.ensureTopics(settings, cluster),
    describe: Describe.describe(settings, cluster),
    mayWrite: Describe.mayWrite(settings, cluster),
    read: Read.read(settings, cluster),
    producer: Producer.make(settings, client.connect(settings)),
    subscribe: client.subscribe(settings, cluster),
    tail: Tail.tail(settings, client.connect(settings))
  })
})

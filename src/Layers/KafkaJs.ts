/**
 * The Layer that moves events over Apache Kafka with the client `kafkajs`.
 *
 * **When to use**
 *
 * Provide `layer` (or `layerConfig`) to the program whose `Publisher`,
 * `Consumer` and `Outbox` are to speak to Kafka.
 *
 * **Details**
 *
 * An acknowledged event is on all in-sync replicas, once, in the order of
 * its key, also when answers are lost and leaders move. A consumer that has
 * to give its partitions back drains and commits before it does. Connections
 * that go silent are replaced, and a broker that is away is waited for.
 *
 * A topic that is deleted and created again is read from its beginning, by a
 * member that runs and by one that starts later: each committed offset has the
 * id of its topic as its metadata (`topic-id:…`). A member looks every 5
 * seconds; what it has read of the new topic until then comes again. An offset
 * without an id, as of other tools and earlier versions, is believed; so is
 * every offset where brokers tell no ids (before Kafka 2.8). On a cluster of
 * several brokers, one that still has the old topic when the coordinator knows
 * the new one is not noticed.
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Broker from "../Broker.ts"
import { config, type Options } from "./internal/kafka/options.ts"
import * as Wiring from "./internal/kafka/wiring.ts"
import * as Cluster from "./internal/kafkajs/cluster.ts"
import * as Connection from "./internal/kafkajs/connection.ts"
import * as Group from "./internal/kafkajs/group.ts"
import { knock } from "./internal/kafkajs/knock.ts"

export {
  /**
   * The options as environment variables; see `layerConfig`.
   *
   * @category config
   * @since 0.1.0
   */
  config
} from "./internal/kafka/options.ts"
export type {
  /**
   * How much one fetch may bring.
   *
   * @category models
   * @since 0.1.0
   */
  Fetch,
  /**
   * Options of the Layer. Only `brokers` is required.
   *
   * @category models
   * @since 0.1.0
   */
  Options
} from "./internal/kafka/options.ts"
export type {
  /**
   * How to log in to the brokers.
   *
   * @category models
   * @since 0.1.0
   */
  Sasl
} from "./internal/kafka/settings.ts"

/**
 * What this Layer claims in the conformance suite of brokers: Kafka has a clock
 * of its own. Nothing of the suite is left out.
 *
 * @category models
 * @since 0.1.0
 */
export const features = {
  broker: { clock: "live" }
} as const

/**
 * Connects to Kafka.
 *
 * **Details**
 *
 * Fails within `connectTimeout` with reason `Unreachable` if no broker
 * answers, with `AuthenticationFailed` if the login is refused or missing, and
 * with `CertificateRejected` if TLS finds no broker that it trusts.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  options: Options
): Effect.Effect<Broker.Broker["Service"], Broker.BrokerError, Scope.Scope> =>
  Effect.andThen(
    Connection.fixTimers,
    Wiring.make({ knock, connect: Cluster.make, subscribe: Group.subscribe }, options)
  )

/**
 * Provides `Broker` over Kafka.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options): Layer.Layer<Broker.Broker, Broker.BrokerError> =>
  Layer.effect(Broker.Broker, make(options))

/**
 * Provides `Broker` over Kafka, with options from `Config`: the environment
 * variables of `config`, or wrapped options of your own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerConfig = (
  options: Config.Wrap<Options> = config
): Layer.Layer<Broker.Broker, Broker.BrokerError | Config.ConfigError> =>
  Layer.effect(Broker.Broker, Effect.flatMap(Config.unwrap(options), make))

/**
 * Owns what a program can set of a Kafka Layer, and the defaults.
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import type * as tls from "node:tls"
import type { Sasl, Settings } from "./settings.ts"

/**
 * How much one fetch may bring.
 *
 * @category models
 * @since 0.1.0
 */
export interface Fetch {
  /**
   * Bytes per partition and fetch. What the consumer cannot take at once is
   * fetched again, so more is not faster. Default: 256 KiB.
   */
  readonly maxBytesPerPartition?: number | undefined
  /** Bytes per fetch in all. Default: 10 MiB. */
  readonly maxBytes?: number | undefined
  /** How long a broker waits for new records before it answers with none. Default: 100 ms. */
  readonly maxWait?: Duration.Input | undefined
}

/**
 * Options of the Layer. Only `brokers` is required.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /** Addresses as `host:port`, of which one must answer at the start. */
  readonly brokers: ReadonlyArray<string>
  /** Name of this client in the brokers' logs and quotas. Default: `"effect-events"`. */
  readonly clientId?: string | undefined
  /** `ce_source` of events published through this Layer. Default: `clientId`. */
  readonly source?: string | undefined
  /** TLS: `true`, or options of `node:tls`. Default: off. */
  readonly ssl?: boolean | tls.ConnectionOptions | undefined
  /** Login. Default: none. */
  readonly sasl?: Sasl | undefined
  /** Put before the name of every topic in Kafka; programs see names without it. Default: none. */
  readonly topicPrefix?: string | undefined
  /** Put before the name of every group in Kafka, so that several environments can share a cluster. Default: none. */
  readonly groupPrefix?: string | undefined
  /**
   * Limit of the first connect, which the Layer waits for, and later of
   * reaching a broker for a consumer that joins or a question about a topic.
   * With several brokers none has more than a part of it (half, or a third for
   * the first connect), so that one that says nothing leaves time for another.
   * Publishing has its own,
   * `Publisher.DeliveryTimeout`. Default: 10 s.
   */
  readonly connectTimeout?: Duration.Input | undefined
  /** After this time without an answer a connection is replaced. Default: 10 s. */
  readonly requestTimeout?: Duration.Input | undefined
  /**
   * How long leaders and partition counts are believed; counts also longer,
   * while no broker answers. Default: 5 s.
   */
  readonly metadataMaxAge?: Duration.Input | undefined
  /** A consumer that is not heard of for so long loses its partitions. Default: 30 s. */
  readonly sessionTimeout?: Duration.Input | undefined
  /**
   * Time that the members of a group have for a rebalance; three fifths of it
   * are for finishing what runs. Default: 60 s.
   */
  readonly rebalanceTimeout?: Duration.Input | undefined
  /** How often a consumer says that it lives. Default: 3 s. */
  readonly heartbeatInterval?: Duration.Input | undefined
  readonly fetch?: Fetch | undefined
}

const millis = (input: Duration.Input | undefined, fallback: number): number =>
  input === undefined ? fallback : Duration.toMillis(Duration.fromInputUnsafe(input))

export const toSettings = (options: Options): Settings => {
  const rebalanceTimeout = millis(options.rebalanceTimeout, 60_000)
  return {
    brokers: options.brokers,
    address: options.brokers.join(","),
    clientId: options.clientId ?? "effect-events",
    ssl: options.ssl ?? false,
    sasl: options.sasl,
    topicPrefix: options.topicPrefix ?? "",
    groupPrefix: options.groupPrefix ?? "",
    connectTimeout: millis(options.connectTimeout, 10_000),
    requestTimeout: millis(options.requestTimeout, 10_000),
    metadataMaxAge: millis(options.metadataMaxAge, 5_000),
    sessionTimeout: millis(options.sessionTimeout, 30_000),
    rebalanceTimeout,
    heartbeatInterval: millis(options.heartbeatInterval, 3_000),
    drain: Math.floor(rebalanceTimeout * 3 / 5),
    maxBytesPerPartition: options.fetch?.maxBytesPerPartition ?? 262_144,
    maxBytes: options.fetch?.maxBytes ?? 10_485_760,
    maxWait: millis(options.fetch?.maxWait, 100)
  }
}

const setting = <A>(config: Config.Config<A>): Config.Config<A | undefined> => Config.withDefault(config, undefined)

/**
 * The options as environment variables: `KAFKA_BROKERS` (comma-separated),
 * `KAFKA_CLIENT_ID`, `KAFKA_SOURCE`, `KAFKA_SSL`, `KAFKA_TOPIC_PREFIX`,
 * `KAFKA_GROUP_PREFIX`,
 * `KAFKA_SASL_MECHANISM`, `KAFKA_SASL_USERNAME`, `KAFKA_SASL_PASSWORD`,
 * `KAFKA_CONNECT_TIMEOUT`, `KAFKA_REQUEST_TIMEOUT`, `KAFKA_SESSION_TIMEOUT`
 * and `KAFKA_REBALANCE_TIMEOUT`.
 *
 * **Details**
 *
 * Only `KAFKA_BROKERS` is required. A login is used if `KAFKA_SASL_USERNAME`
 * is set; its mechanism defaults to `plain`.
 *
 * @category config
 * @since 0.1.0
 */
export const config: Config.Config<Options> = Config.all({
  brokers: Config.Array(Schema.NonEmptyString, "KAFKA_BROKERS"),
  clientId: setting(Config.NonEmptyString("KAFKA_CLIENT_ID")),
  source: setting(Config.NonEmptyString("KAFKA_SOURCE")),
  ssl: setting(Config.Boolean("KAFKA_SSL")),
  topicPrefix: setting(Config.String("KAFKA_TOPIC_PREFIX")),
  groupPrefix: setting(Config.String("KAFKA_GROUP_PREFIX")),
  username: setting(Config.NonEmptyString("KAFKA_SASL_USERNAME")),
  mechanism: Config.withDefault(
    Config.Literals(["plain", "scram-sha-256", "scram-sha-512"], "KAFKA_SASL_MECHANISM"),
    "plain" as const
  ),
  password: setting(Config.Redacted("KAFKA_SASL_PASSWORD")),
  connectTimeout: setting(Config.Duration("KAFKA_CONNECT_TIMEOUT")),
  requestTimeout: setting(Config.Duration("KAFKA_REQUEST_TIMEOUT")),
  sessionTimeout: setting(Config.Duration("KAFKA_SESSION_TIMEOUT")),
  rebalanceTimeout: setting(Config.Duration("KAFKA_REBALANCE_TIMEOUT"))
}).pipe(Config.map(({ mechanism, password, username, ...options }): Options => ({
  ...options,
  sasl: username === undefined || password === undefined ? undefined : { mechanism, username, password }
})))

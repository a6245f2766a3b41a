/**
 * Owns the settings of the Layer in the form its insides read: numbers of
 * milliseconds, physical topic names.
 */
import type * as Redacted from "effect/Redacted"
import type * as tls from "node:tls"

/**
 * How to log in to the brokers.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sasl {
  readonly mechanism: "plain" | "scram-sha-256" | "scram-sha-512"
  readonly username: string
  readonly password: Redacted.Redacted
}

export interface Settings {
  readonly brokers: ReadonlyArray<string>
  /** For messages: the brokers, joined. */
  readonly address: string
  readonly clientId: string
  readonly ssl: boolean | tls.ConnectionOptions
  readonly sasl: Sasl | undefined
  readonly topicPrefix: string
  readonly groupPrefix: string
  readonly connectTimeout: number
  readonly requestTimeout: number
  readonly metadataMaxAge: number
  readonly sessionTimeout: number
  readonly rebalanceTimeout: number
  readonly heartbeatInterval: number
  /** Time for the drain before a rebalance: 3/5 of `rebalanceTimeout`. */
  readonly drain: number
  readonly maxBytesPerPartition: number
  readonly maxBytes: number
  readonly maxWait: number
}

/** The name of a topic in Kafka. */
export const physical = (settings: Settings, topic: string): string => settings.topicPrefix + topic

/** The name of a topic in the program. */
export const logical = (settings: Settings, topic: string): string =>
  topic.startsWith(settings.topicPrefix) ? topic.slice(settings.topicPrefix.length) : topic

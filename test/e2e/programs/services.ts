/**
 * What the programs of the crash cases run on. Their settings come as JSON in
 * `PROGRAM`; what they have to say they print, a word and a number per line.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlStore from "effect-events/Layers/SqlStore"
import * as Topic from "effect-events/Topic"
import type * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import type * as SqlClient from "effect/sql/SqlClient"
import type * as SqlError from "effect/sql/SqlError"
import { KafkaLayer } from "../../support/kafkaClient.ts"

export type Database =
  | { readonly _tag: "Postgres"; readonly url: string; readonly schema: string }
  | { readonly _tag: "MariaDB"; readonly url: string }

export interface Settings {
  readonly brokers: ReadonlyArray<string>
  readonly topicPrefix: string
  readonly database: Database
  /** Of the relay. Default: 3,000. */
  readonly leaseMillis?: number
  /** Size of its pool. Default: the driver's, 10. */
  readonly connections?: number
  readonly group: string
  /** Whether the program announces the point at which it is to be killed, and stays there. */
  readonly hold: boolean
  /** Which version of the program it is, where there are several. */
  readonly version?: 1 | 2
}

export const settings: Settings = JSON.parse(process.env.PROGRAM ?? "{}")

export const say = (word: string, n: number): Effect.Effect<void> => Effect.sync(() => console.log(`${word} ${n}`))

export const Item = Schema.Struct({ key: Schema.String, n: Schema.Number })
export type Item = typeof Item.Type
export const Items = Topic.make("items", { schema: Item, key: (item) => item.key, create: { partitions: 3 } })

/** What a later version reads, too. */
export const Extras = Topic.make("extras", { schema: Item, key: (item) => item.key, create: { partitions: 3 } })

/** A session as short as the broker allows, so that a dead member is missed soon. */
export const kafka = (settings: Settings) =>
  KafkaLayer.layer({
    brokers: settings.brokers,
    topicPrefix: settings.topicPrefix,
    sessionTimeout: "6 seconds",
    heartbeatInterval: "1 second"
  })

const client = (
  { connections: maxConnections = 10, database }: Settings
): Layer.Layer<SqlClient.SqlClient, Config.ConfigError | SqlError.SqlError> =>
  database._tag === "MariaDB"
    ? MysqlClient.layer({ url: Redacted.make(database.url), maxConnections })
    : PgClient.layer({
      url: Redacted.make(database.url),
      maxConnections,
      startupParameters: { search_path: database.schema }
    })

export const store = (settings: Settings) =>
  SqlStore.layerWith(settings.database._tag === "MariaDB" ? {} : { schema: settings.database.schema }).pipe(
    Layer.provideMerge(client(settings))
  )

export const silent = Layer.succeed(References.MinimumLogLevel, "None")

/** Runs a program until it is told to stop; announces `ready` once it is built. */
export const launch = <E>(program: Layer.Layer<never, E>): void =>
  Layer.effectDiscard(say("ready", 0)).pipe(
    Layer.provide(program),
    Layer.provide(silent),
    Layer.launch,
    NodeRuntime.runMain
  )

/** What the processes of the crash matrix share: settings, the topic, Layers, and the tables of the business. */
import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as SqlStore from "effect-events/Layers/SqlStore"
import * as Testing from "effect-events/Testing"
import * as Topic from "effect-events/Topic"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import { KafkaLayer } from "../../support/kafkaClient.ts"

export const stores = ["pg", "mariadb", "sqlite"] as const
export type StoreName = typeof stores[number]

/** Steps of the library, and one within the handler. */
export const steps = [...Testing.steps, "handler"] as const
export type StepName = typeof steps[number]

export interface Settings {
  readonly store: StoreName
  /** Of the server; of SQLite the file. */
  readonly url: string
  /** The schema on Postgres. */
  readonly schema: string | undefined
  readonly brokers: ReadonlyArray<string>
  /** Of the topics and the groups: crashes that go side by side must not meet in a group, either. */
  readonly prefix: string
  /** Where the process is to die, and the how manieth time it comes there. */
  readonly die: { readonly step: StepName; readonly pass: number } | undefined
}

export const group = "crash"
export const partitions = 3
export const keys = 6

export const leaseMillis = 2_000
export const sessionMillis = 6_000

/** The `n`th event of its key. */
export const Item = Schema.Struct({ key: Schema.String, n: Schema.Number })
export type Item = typeof Item.Type
export const Items = Topic.make("items", { schema: Item, key: (item) => item.key, create: { partitions } })

/** The handler gives up on these. */
export const isPoison = ({ n }: Item): boolean => n % 10 === 7

const client = ({ schema, store, url }: Settings): Layer.Layer<SqlClient.SqlClient, unknown> => {
  switch (store) {
    case "pg":
      return PgClient.layer({
        url: Redacted.make(url),
        ...(schema === undefined ? {} : { startupParameters: { search_path: schema } })
      })
    case "mariadb":
      return MysqlClient.layer({ url: Redacted.make(url) })
    case "sqlite":
      return SqliteClient.layer({ filename: url })
  }
}

/** Broker, store and client. */
export const services = (settings: Settings) =>
  SqlStore.layerWith({ schema: settings.schema }).pipe(
    Layer.provideMerge(client(settings)),
    Layer.merge(KafkaLayer.layer({
      brokers: settings.brokers,
      topicPrefix: settings.prefix,
      groupPrefix: settings.prefix,
      sessionTimeout: sessionMillis,
      heartbeatInterval: "1 second"
    }))
  )

const serial = {
  pg: "bigint generated always as identity primary key",
  mariadb: "bigint auto_increment primary key",
  sqlite: "integer primary key autoincrement"
}

/** The tables of the business, and a counter for each key. */
export const tables = Effect.fnUntraced(function*({ store }: Settings) {
  const sql = yield* SqlClient.SqlClient
  yield* sql.unsafe("create table counters (name varchar(40) primary key, n int not null)")
  yield* sql.unsafe("create table placed (name varchar(40) not null, n int not null, primary key (name, n))")
  yield* sql.unsafe(`create table applied (id ${serial[store]}, name varchar(40) not null, n int not null)`)
  for (let key = 0; key < keys; key++) yield* sql`insert into counters ${sql.insert({ name: `key-${key}`, n: -1 })}`
})

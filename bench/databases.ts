/** Broker and store of our side, with tables that each round has to itself. */
import { NodeServices } from "@effect/platform-node"
import { MysqlClient } from "@effect/sql-mysql2"
import { PgClient } from "@effect/sql-pg"
import { SqliteClient } from "@effect/sql-sqlite-node"
import { Effect, FileSystem, Layer, Redacted } from "effect"
import type { Broker, MessageStore } from "effect-events"
import * as SqlStore from "effect-events/Layers/SqlStore"
import { SqlClient } from "effect/sql"
import { layer as broker, unique } from "./orders.ts"

export interface Database {
  /** The table, for statements of the benchmark's own. */
  readonly outbox: string
  readonly inbox: string
  readonly scheduled: string
  readonly layer: Layer.Layer<Broker.Broker | MessageStore.MessageStore | SqlClient.SqlClient, unknown>
}

export const urlIn = (name: string, database?: string): Redacted.Redacted<string> => {
  const url = process.env[name]
  if (url === undefined) throw new Error(`${name} is not set; run this with npm run bench`)
  return Redacted.make(database === undefined ? url : Object.assign(new URL(url), { pathname: `/${database}` }).href)
}

const statement = (text: string) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(text))

/** Tables in a home of their own, which the scope creates and removes. */
const within = <E, E2>(options: {
  readonly home: string
  readonly admin: Layer.Layer<SqlClient.SqlClient, E>
  readonly client: Layer.Layer<SqlClient.SqlClient, E2>
  readonly kind: string
  readonly store: SqlStore.Options
}) => {
  const { admin, client, home, kind, store } = options
  const own = Layer.effectDiscard(Effect.acquireRelease(
    Effect.provide(statement(`create ${kind} ${home}`), admin),
    () => Effect.orDie(Effect.provide(statement(`drop ${kind} ${home}${kind === "schema" ? " cascade" : ""}`), admin))
  ))
  return services(client, store).pipe(Layer.provideMerge(own))
}

const services = <E>(client: Layer.Layer<SqlClient.SqlClient, E>, options: SqlStore.Options) =>
  SqlStore.layerWith(options).pipe(Layer.provideMerge(client), Layer.merge(broker))

/** Of a home that nobody else uses. */
export const name = () => unique("home").replaceAll("-", "_")

const postgresClient = (home: string) =>
  PgClient.layer({ url: urlIn("POSTGRES_URL"), startupParameters: { search_path: home } })

const postgresTables = (home: string) => ({
  outbox: `${home}.effect_events_outbox`,
  inbox: `${home}.effect_events_inbox`,
  scheduled: `${home}.effect_events_scheduled`
})

/** Tables in a schema that is there. */
export const postgresAt = (home: string): Database => ({
  ...postgresTables(home),
  layer: services(postgresClient(home), { schema: home })
})

/** Tables in a schema that lives as long as the Layer. */
export const postgresIn = (home: string): Database => {
  const client = postgresClient(home)
  return {
    ...postgresTables(home),
    layer: within({ home, kind: "schema", admin: client, client, store: { schema: home } })
  }
}

export const postgres = (): Database => postgresIn(name())

const tables = {
  outbox: "effect_events_outbox",
  inbox: "effect_events_inbox",
  scheduled: "effect_events_scheduled"
}

const mariadbClient = (home?: string) => MysqlClient.layer({ url: urlIn("MARIADB_URL", home) })

/** Tables in a database that is there. */
export const mariadbAt = (home: string): Database => ({ ...tables, layer: services(mariadbClient(home), {}) })

export const mariadb = (): Database => {
  const home = name()
  return {
    ...tables,
    layer: within({ home, kind: "database", admin: mariadbClient(), client: mariadbClient(home), store: {} })
  }
}

export const sqlite = (): Database => ({
  ...tables,
  layer: Layer.unwrap(
    Effect.gen(function*() {
      const files = yield* FileSystem.FileSystem
      return services(SqliteClient.layer({ filename: `${yield* files.makeTempDirectoryScoped()}/bench.db` }), {})
    })
  ).pipe(Layer.provide(NodeServices.layer))
})

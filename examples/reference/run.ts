/**
 * Where this run takes place: a database schema and a topic prefix of its own,
 * so that it meets nothing of other runs. A service would have neither.
 */
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted } from "effect"
import { Broker } from "effect-events"
import { SqlClient } from "effect/sql"
import { randomBytes } from "node:crypto"

const run = `reference_${randomBytes(4).toString("hex")}`

export const brokers = (process.env.KAFKA_BROKERS || "localhost:9092").split(",")
export const topicPrefix = `${run}.`

export const url = Redacted.make(process.env.POSTGRES_URL || "postgres://postgres@localhost:5432/test")
export const startupParameters = { search_path: run }

/** Creates the schema, and drops it at the end. */
export const layerSchema = Layer.effectDiscard(Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* Effect.acquireRelease(
    sql`CREATE SCHEMA ${sql(run)}`,
    () => Effect.ignore(sql`DROP SCHEMA ${sql(run)} CASCADE`, { log: "Warn" })
  )
})).pipe(Layer.provide(PgClient.layer({ url })))

/** The shop's own tables. */
export const createTables = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE orders (id TEXT PRIMARY KEY, total INTEGER NOT NULL)`
  yield* sql`CREATE TABLE invoices (order_id TEXT PRIMARY KEY, total INTEGER NOT NULL)`
  yield* sql`CREATE TABLE ledger (customer TEXT PRIMARY KEY, orders INTEGER NOT NULL, total INTEGER NOT NULL)`
})

/** Topics belong to operations; `Topic.make(name, { create })` would leave it to the library. */
export const createTopic = (name: string) =>
  Broker.Broker.use((broker) => broker.ensureTopics([{ name, create: { partitions: 3 } }]))

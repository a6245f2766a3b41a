/** What the shop runs on. The program is the same; only these Layers differ. */
import { PgClient } from "@effect/sql-pg"
import { SqliteClient } from "@effect/sql-sqlite-node"
import type { Redacted } from "effect"
import { Config, Effect, FileSystem, Layer } from "effect"
import * as KafkaJs from "effect-events/Layers/KafkaJs"
import * as Memory from "effect-events/Layers/Memory"
import * as SqlStore from "effect-events/Layers/SqlStore"
import { SqlClient } from "effect/sql"

/** A SQLite file and a broker in this process. */
export const embedded = Layer.unwrap(Effect.gen(function*() {
  const files = yield* FileSystem.FileSystem
  const folder = yield* files.makeTempDirectoryScoped({ prefix: "effect-events-orders-" })
  const sqlite = SqliteClient.layer({ filename: `${folder}/shop.sqlite` })
  return Layer.mergeAll(SqlStore.layer.pipe(Layer.provideMerge(sqlite)), Memory.layerBroker)
}))

const kafkaBrokers = Config.String("KAFKA_BROKERS").pipe(Config.map((brokers) => brokers.split(",")))
const postgresUrl = Config.Redacted("POSTGRES_URL")

const postgres = (url: Redacted.Redacted, schema: string) =>
  PgClient.layer({ url, startupParameters: { search_path: schema } })

/**
 * Kafka and Postgres, in a schema and under prefixes named `run`. Short
 * sessions, so that the partitions of a killed consumer move on soon.
 */
export const kafka = (run: string) =>
  Layer.unwrap(Effect.gen(function*() {
    const brokers = yield* kafkaBrokers
    const url = yield* postgresUrl
    return Layer.mergeAll(
      SqlStore.layer.pipe(Layer.provideMerge(postgres(url, run))),
      KafkaJs.layer({ brokers, topicPrefix: `${run}.`, groupPrefix: `${run}.`, sessionTimeout: "6 seconds" })
    )
  }))

/** Creates the schema of a run, and drops it at the end. */
export const schemaOf = (run: string) =>
  Layer.effectDiscard(Effect.gen(function*() {
    const url = yield* postgresUrl
    const admin = (statement: (sql: SqlClient.SqlClient) => Effect.Effect<unknown, unknown>) =>
      SqlClient.SqlClient.use(statement).pipe(Effect.provide(PgClient.layer({ url })))
    yield* Effect.acquireRelease(
      admin((sql) => sql`CREATE SCHEMA ${sql(run)}`),
      () => Effect.ignore(admin((sql) => sql`DROP SCHEMA ${sql(run)} CASCADE`), { log: "Warn" })
    )
  }))

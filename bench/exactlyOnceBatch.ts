/**
 * `exactly-once-batch`: inbox, the handler's upsert and the commit in one
 * transaction per batch, against a loop on KafkaJS and `pg` or `mysql2` that a
 * good engineer writes by hand with the same upsert. `exactly-once-batch-vs-single`:
 * the same against the loop that most people write, a transaction per message.
 */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { applying, applyingByHand, maxSize } from "./applying.ts"
import { type Benchmark, measure, quiet, type Round, sized } from "./harness.ts"
import * as Mariadb from "./mariadb.ts"
import { type Client, drop, fill, unique } from "./orders.ts"
import * as Postgres from "./postgres.ts"
import { single } from "./single.ts"

const events = sized(100_000, 30_000)
const singleEvents = 8_000

const settings = {
  payloadBytes: 200,
  partitions: 3,
  headers: "CloudEvents",
  maxSize,
  ours: "exactlyOnceBatch, concurrency 3, one upsert of the batch's totals per customer"
}

const byHand = "eachBatch, JSON.parse, partitionsConsumedConcurrently 3, slices of 500, pool of 3"

const exactlyOnceBatchOn = (client: Client, aim: number): Benchmark => ({
  name: `exactly-once-batch ${client}`,
  aim,
  short: 3,
  settings: { events, database: "Postgres", ...settings, twin: `KafkaJS ${byHand}, prepared statements` },
  open: async () => {
    const topic = unique("exactly-once")
    await fill(topic, events)
    return { ours: () => onPostgres(topic, client), twin: () => onPostgresByHand(topic), close: () => drop(topic) }
  }
})

export const exactlyOnceBatches = [exactlyOnceBatchOn("KafkaJs", 1), exactlyOnceBatchOn("Platformatic", 1.2)]

export const exactlyOnceBatchMariadb: Benchmark = {
  name: "exactly-once-batch mariadb",
  aim: 1,
  short: 3,
  settings: { events, database: "MariaDB", ...settings, twin: `${byHand}, mysql2` },
  open: async () => {
    const topic = unique("exactly-once")
    await fill(topic, events)
    return { ours: () => onMariadb(topic), twin: () => onMariadbByHand(topic), close: () => drop(topic) }
  }
}

export const exactlyOnceBatchVsSingle: Benchmark = {
  name: "exactly-once-batch-vs-single KafkaJs",
  aim: 20,
  settings: {
    events: `${events} ours, ${singleEvents} twin`,
    database: "Postgres",
    ...settings,
    twin: "eachMessage, JSON.parse, one transaction each, one at a time (KafkaJS's default), prepared statements"
  },
  open: async () => {
    const many = unique("exactly-once")
    const few = unique("exactly-once")
    await fill(many, events)
    await fill(few, singleEvents)
    return {
      ours: () => onPostgres(many),
      twin: () => single(few, singleEvents, 1),
      close: () => drop(many, few)
    }
  }
}

const onPostgres = (topic: string, client: Client = "KafkaJs"): Promise<Round> =>
  Postgres.inSchema(events, (schema) =>
    measure(events, (started) =>
      SqlClient.SqlClient.use((sql) =>
        applying({
          topic,
          events,
          started,
          upsert: (totals) => sql.unsafe(Postgres.upsert(schema), Postgres.columnsOf(totals))
        })
      ).pipe(Effect.flatten, Effect.scoped, Effect.provide(Postgres.layer(schema, client)), quiet, Effect.runPromise)))

const onPostgresByHand = (topic: string): Promise<Round> =>
  Postgres.inSchema(events, (schema) =>
    measure(events, async (started) => {
      const pool = await Postgres.poolWithInbox(schema, 3)
      await (await applyingByHand({ topic, events, started, apply: Postgres.applyByHand(pool, schema) }))()
      await pool.end()
    }))

const onMariadb = (topic: string): Promise<Round> =>
  Mariadb.inDatabase(events, (database) =>
    measure(events, (started) =>
      SqlClient.SqlClient.use((sql) =>
        applying({
          topic,
          events,
          started,
          upsert: (totals) => sql.unsafe(Mariadb.upsert, [JSON.stringify(totals)])
        })
      ).pipe(Effect.flatten, Effect.scoped, Effect.provide(Mariadb.layer(database)), quiet, Effect.runPromise)))

const onMariadbByHand = (topic: string): Promise<Round> =>
  Mariadb.inDatabase(events, (database) =>
    measure(events, async (started) => {
      const pool = await Mariadb.poolWithInbox(database, 3)
      await (await applyingByHand({ topic, events, started, apply: Mariadb.applyByHand(pool) }))()
      await pool.end()
    }))

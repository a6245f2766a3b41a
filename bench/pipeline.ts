/**
 * `pipeline`: from the transaction that writes an event to the one that applies
 * it: outbox, relay, Kafka, `exactlyOnceBatch`, all in one process, against the
 * same by hand on `pg` and KafkaJS: a table, a loop that polls it with `for
 * update skip locked`, sends what it found and deletes it, and a loop that
 * consumes with an inbox.
 */
import { Effect, Layer } from "effect"
import { Outbox } from "effect-events"
import { SqlClient } from "effect/sql"
import { applying, applyingByHand, maxSize } from "./applying.ts"
import { type Benchmark, measure, quiet, type Round, sized } from "./harness.ts"
import { create, drop, kafka, orderOf, partitions, topicOf, unique } from "./orders.ts"
import { append, createOutbox, relayBatch, relayByHand } from "./outboxByHand.ts"
import * as Postgres from "./postgres.ts"

const events = sized(100_000, 20_000)
const perTransaction = 100
const writers = 4

export const pipeline: Benchmark = {
  name: "pipeline pg",
  aim: 1.2,
  short: 2,
  settings: {
    events,
    perTransaction,
    writers,
    payloadBytes: 200,
    partitions,
    headers: "CloudEvents",
    database: "Postgres, pool of 10",
    ours: `Outbox.transaction with a row and ${perTransaction} events, layerRelay, exactlyOnceBatch with ${maxSize}`,
    twin: `the same rows in one insert, a loop that polls for ${relayBatch} rows, one send, delete, commit; ` +
      `eachBatch with slices of ${maxSize} and an inbox`
  },
  open: () => Promise.resolve({ ours: () => round(ours), twin: () => round(twin), close: () => Promise.resolve() })
}

/** With a topic and a schema of its own. */
const round = async (side: (topic: string, schema: string) => Promise<Round>): Promise<Round> => {
  const topic = unique("pipeline")
  await create(topic)
  try {
    return await Postgres.inSchema(events, (schema) => side(topic, schema))
  } finally {
    await drop(topic)
  }
}

/** The business: a table that gets a row per transaction. */
const createTable = (schema: string) => `CREATE TABLE ${schema}.import (id int PRIMARY KEY)`
const insertRow = (schema: string) => `INSERT INTO ${schema}.import (id) VALUES ($1)`

const transactions = Array.from({ length: events / perTransaction }, (_, n) => n)
const ordersOf = (n: number) => Array.from({ length: perTransaction }, (_, i) => orderOf(n * perTransaction + i))

const ours = (topic: string, schema: string): Promise<Round> =>
  measure(events, (started) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const Orders = topicOf(topic)
      yield* sql.unsafe(createTable(schema))
      const applied = yield* applying({
        topic,
        events,
        started: () => {},
        upsert: (totals) => sql.unsafe(Postgres.upsert(schema), Postgres.columnsOf(totals))
      })
      yield* Layer.build(Outbox.layerRelay())
      started()
      yield* Effect.forEach(transactions, (n) =>
        sql.unsafe(insertRow(schema), [n]).pipe(
          Effect.andThen(Outbox.publishAll(Orders, ordersOf(n))),
          Outbox.transaction
        ), { concurrency: writers, discard: true })
      yield* applied
    }).pipe(Effect.scoped, Effect.provide(Postgres.layer(schema)), quiet, Effect.runPromise))

const twin = (topic: string, schema: string): Promise<Round> =>
  measure(events, async (started) => {
    const pool = await Postgres.poolWithInbox(schema, 10)
    await pool.query(createTable(schema))
    await createOutbox(pool, schema)
    const producer = kafka.producer({ idempotent: true, allowAutoTopicCreation: false })
    await producer.connect()
    const applied = await applyingByHand({
      topic,
      events,
      started: () => {},
      apply: Postgres.applyByHand(pool, schema)
    })
    const stop = new AbortController()
    const relay = relayByHand({ pool, producer, schema, topic, signal: stop.signal })
    started()
    const waiting = transactions.values()
    const writer = async () => {
      for (const n of waiting) {
        await Postgres.inTransaction(pool, async (client) => {
          await client.query({ name: "row", text: insertRow(schema), values: [n] })
          await append(client, schema, ordersOf(n))
        })
      }
    }
    await Promise.all(Array.from({ length: writers }, writer))
    await Promise.race([applied(), relay])
    stop.abort()
    await relay
    await producer.disconnect()
    await pool.end()
  })

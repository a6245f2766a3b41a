/**
 * `exactly-once-batch`: inbox, the handler's upsert and the commit in one
 * transaction per batch, against a loop on KafkaJS and `pg` that a good
 * engineer writes by hand with the same SQL.
 */
import { PgClient } from "@effect/sql-pg"
import { Deferred, Effect, Layer, Redacted } from "effect"
import { Consumer } from "effect-events"
import * as SqlStore from "effect-events/Layers/SqlStore"
import { SqlClient } from "effect/sql"
import { Pool } from "pg"
import { type Benchmark, measure, type Round } from "./harness.ts"
import { drop, fill, kafka, layer, type Order, sumOf, topicOf, unique } from "./orders.ts"

const events = 100_000
const maxSize = 500

const postgresUrl = (): string => {
  const url = process.env.POSTGRES_URL
  if (url === undefined) throw new Error("POSTGRES_URL is not set; run this with npm run bench")
  return url
}

export const exactlyOnceBatch: Benchmark = {
  name: "exactly-once-batch KafkaJs",
  settings: {
    events,
    payloadBytes: 200,
    partitions: 3,
    headers: "CloudEvents",
    database: "Postgres",
    maxSize,
    ours: "exactlyOnceBatch, concurrency 3, one upsert of the batch's totals per customer",
    twin: "eachBatch, JSON.parse, partitionsConsumedConcurrently 3, slices of 500, pool of 3, prepared statements"
  },
  open: async () => {
    const topic = unique("exactly-once")
    await fill(topic, events)
    return { ours: () => ours(topic), twin: () => twin(topic), close: () => drop(topic) }
  }
}

const upsert = (schema: string) =>
  `INSERT INTO ${schema}.totals (customer, total) SELECT * FROM unnest($1::text[], $2::bigint[])
   ON CONFLICT (customer) DO UPDATE SET total = totals.total + excluded.total`

const totalsOf = (orders: ReadonlyArray<Order>): [Array<string>, Array<number>] => {
  const totals = new Map<string, number>()
  for (const { customer, total } of orders) totals.set(customer, (totals.get(customer) ?? 0) + total)
  // Sorted, so that two transactions never wait for each other in a ring.
  const sorted = Array.from(totals).sort(([a], [b]) => a < b ? -1 : 1)
  return [sorted.map(([customer]) => customer), sorted.map(([, total]) => total)]
}

/** Runs one side with a schema of its own, and checks what it wrote. */
const inSchema = async (side: (schema: string) => Promise<Round>): Promise<Round> => {
  const schema = unique("eo").replaceAll("-", "_")
  const admin = new Pool({ connectionString: postgresUrl(), max: 1 })
  await admin.query(`CREATE SCHEMA ${schema}`)
  await admin.query(`CREATE TABLE ${schema}.totals (customer text PRIMARY KEY, total bigint NOT NULL)`)
  try {
    const round = await side(schema)
    const { rows } = await admin.query<{ sum: string }>(`SELECT sum(total) FROM ${schema}.totals`)
    if (Number(rows[0]!.sum) !== sumOf(events)) {
      throw new Error(`The sum is ${rows[0]!.sum} and should be ${sumOf(events)}`)
    }
    return round
  } finally {
    await admin.query(`DROP SCHEMA ${schema} CASCADE`)
    await admin.end()
  }
}

const ours = (topic: string): Promise<Round> =>
  inSchema((schema) =>
    measure(events, (started) =>
      Effect.gen(function*() {
        const done = yield* Deferred.make<void>()
        const statement = upsert(schema)
        const sql = yield* SqlClient.SqlClient
        let running = false
        let count = 0
        const consumer = Consumer.exactlyOnceBatch(topicOf(topic), (batch) => {
          if (!running) started()
          running = true
          return sql.unsafe(statement, totalsOf(batch.map((event) => event.payload))).pipe(
            Effect.andThen(sql.afterCommit(Effect.suspend(() => {
              count += batch.length
              return count === events ? Deferred.succeed(done, undefined) : Effect.void
            })))
          )
        }, { batch: { maxSize } })
        yield* Effect.andThen(Layer.build(Consumer.layer(unique("group"), [consumer])), Deferred.await(done))
      }).pipe(
        Effect.scoped,
        Effect.provide(
          SqlStore.layerWith({ schema }).pipe(
            Layer.provideMerge(PgClient.layer({ url: Redacted.make(postgresUrl()) })),
            Layer.merge(layer)
          )
        ),
        Effect.runPromise
      ))
  )

const claim = (schema: string) =>
  `INSERT INTO ${schema}.inbox (consumer, message_key) SELECT 1, m FROM unnest($1::uuid[]) m
   ON CONFLICT DO NOTHING RETURNING message_key`

const twin = (topic: string): Promise<Round> =>
  inSchema((schema) =>
    measure(events, async (started) => {
      const pool = new Pool({ connectionString: postgresUrl(), max: 3 })
      await pool.query(`CREATE TABLE ${schema}.inbox (
        consumer int NOT NULL, message_key uuid NOT NULL, processed_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (consumer, message_key))`)
      const consumer = kafka.consumer({ groupId: unique("group"), maxBytesPerPartition: 1024 * 1024 })
      await consumer.connect()
      await consumer.subscribe({ topic, fromBeginning: true })
      let running = false
      let count = 0
      await new Promise<void>((resolve, reject) => {
        consumer.run({
          partitionsConsumedConcurrently: 3,
          eachBatchAutoResolve: false,
          autoCommitInterval: 1_000,
          eachBatch: async ({ batch, commitOffsetsIfNecessary, heartbeat, resolveOffset }) => {
            if (!running) started()
            running = true
            for (let i = 0; i < batch.messages.length; i += maxSize) {
              const slice = batch.messages.slice(i, i + maxSize)
              const client = await pool.connect()
              try {
                await client.query("BEGIN")
                const keys = slice.map(({ headers }) => headers!.ce_id!.toString()).sort()
                const fresh = new Set(
                  (await client.query<{ message_key: string }>({ name: "claim", text: claim(schema), values: [keys] }))
                    .rows.map((row) => row.message_key)
                )
                const orders = slice.filter(({ headers }) => fresh.has(headers!.ce_id!.toString()))
                  .map(({ value }) => JSON.parse(value!.toString()) as Order)
                await client.query({ name: "upsert", text: upsert(schema), values: totalsOf(orders) })
                await client.query("COMMIT")
              } catch (error) {
                await client.query("ROLLBACK")
                throw error
              } finally {
                client.release()
              }
              resolveOffset(slice.at(-1)!.offset)
              await heartbeat()
              await commitOffsetsIfNecessary()
              count += slice.length
              if (count === events) resolve()
            }
          }
        }).catch(reject)
      })
      await consumer.disconnect()
      await pool.end()
    })
  )

/**
 * `exactly-once-batch`: inbox, the handler's upsert and the commit in one
 * transaction per batch, against a loop on KafkaJS and `pg` that a good
 * engineer writes by hand with the same SQL. `exactly-once-batch-vs-single`:
 * the same against the loop that most people write, a transaction per message.
 */
import { Deferred, Effect, Layer } from "effect"
import { Consumer } from "effect-events"
import { SqlClient } from "effect/sql"
import { type Benchmark, measure, quiet, type Round } from "./harness.ts"
import { drop, fill, kafka, type Order, topicOf, unique } from "./orders.ts"
import { inSchema, layer, poolWithInbox, upsert } from "./postgres.ts"
import { single } from "./single.ts"

const events = 100_000
const singleEvents = 8_000
const maxSize = 500

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

export const exactlyOnceBatchVsSingle: Benchmark = {
  name: "exactly-once-batch-vs-single KafkaJs",
  settings: {
    events: `${events} ours, ${singleEvents} twin`,
    payloadBytes: 200,
    partitions: 3,
    headers: "CloudEvents",
    database: "Postgres",
    maxSize,
    ours: "exactlyOnceBatch, concurrency 3, one upsert of the batch's totals per customer",
    twin: "eachMessage, JSON.parse, one transaction each, one at a time (KafkaJS's default), prepared statements"
  },
  open: async () => {
    const many = unique("exactly-once")
    const few = unique("exactly-once")
    await fill(many, events)
    await fill(few, singleEvents)
    return {
      ours: () => ours(many),
      twin: () => single(few, singleEvents, 1),
      close: async () => {
        await drop(many)
        await drop(few)
      }
    }
  }
}

const totalsOf = (orders: ReadonlyArray<Order>): [Array<string>, Array<number>] => {
  const totals = new Map<string, number>()
  for (const { customer, total } of orders) totals.set(customer, (totals.get(customer) ?? 0) + total)
  // Sorted, so that two transactions never wait for each other in a ring.
  const sorted = Array.from(totals).sort(([a], [b]) => a < b ? -1 : 1)
  return [sorted.map(([customer]) => customer), sorted.map(([, total]) => total)]
}

const ours = (topic: string): Promise<Round> =>
  inSchema(events, (schema) =>
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
        Effect.provide(layer(schema)),
        quiet,
        Effect.runPromise
      )))

const claim = (schema: string) =>
  `INSERT INTO ${schema}.inbox (consumer, message_key) SELECT 1, m FROM unnest($1::uuid[]) m
   ON CONFLICT DO NOTHING RETURNING message_key`

const twin = (topic: string): Promise<Round> =>
  inSchema(events, (schema) =>
    measure(events, async (started) => {
      const pool = await poolWithInbox(schema, 3)
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
    }))

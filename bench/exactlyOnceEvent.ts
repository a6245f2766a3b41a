/**
 * `exactly-once-event`: a handler of single events, which share transactions
 * while all slots are busy, against a loop with one transaction per message.
 */
import { Deferred, Effect, Layer } from "effect"
import { Consumer } from "effect-events"
import { SqlClient } from "effect/sql"
import { type Benchmark, measure, quiet, type Round, sized } from "./harness.ts"
import { type Client, drop, fill, topicOf, unique } from "./orders.ts"
import { inSchema, layer, upsertOne } from "./postgres.ts"
import { single } from "./single.ts"

const events = sized(40_000, 10_000)
const singleEvents = sized(8_000, 1_000)
const slots = 3

const exactlyOnceEventOn = (client: Client): Benchmark => ({
  name: `exactly-once-event ${client}`,
  aim: 5,
  short: 2,
  settings: {
    events: `${events} ours, ${singleEvents} twin`,
    payloadBytes: 200,
    partitions: 3,
    headers: "CloudEvents",
    database: "Postgres",
    ours: `exactlyOnce, group commit, concurrency ${slots}, one upsert per event`,
    twin:
      `KafkaJS eachMessage, JSON.parse, one transaction each, partitionsConsumedConcurrently ${slots}, prepared statements`
  },
  open: async () => {
    const many = unique("exactly-once")
    const few = unique("exactly-once")
    await fill(many, events)
    await fill(few, singleEvents)
    return {
      ours: () => ours(many, client),
      twin: () => single(few, singleEvents, slots),
      close: async () => {
        await drop(many)
        await drop(few)
      }
    }
  }
})

export const exactlyOnceEvents = [exactlyOnceEventOn("KafkaJs"), exactlyOnceEventOn("Platformatic")]

const ours = (topic: string, client: Client): Promise<Round> =>
  inSchema(events, (schema) =>
    measure(events, (started) =>
      Effect.gen(function*() {
        const done = yield* Deferred.make<void>()
        const statement = upsertOne(schema)
        const sql = yield* SqlClient.SqlClient
        let running = false
        let count = 0
        const consumer = Consumer.exactlyOnce(topicOf(topic), ({ payload: { customer, total } }) => {
          if (!running) started()
          running = true
          const upsert = sql.unsafe(statement, [customer, total])
          // What runs beside the last event is committed when the consumer stops, before the sum is checked.
          return ++count < events
            ? upsert
            : Effect.andThen(upsert, sql.afterCommit(Deferred.succeed(done, undefined)))
        }, { concurrency: slots })
        yield* Effect.andThen(Layer.build(Consumer.layer(unique("group"), [consumer])), Deferred.await(done))
      }).pipe(Effect.scoped, Effect.provide(layer(schema, client)), quiet, Effect.runPromise)))

/**
 * `relay-drain`: the relay empties an outbox that has filled up, against raw
 * KafkaJS that sends the same records out of memory, without a database: an
 * idempotent producer, one partition per request, the same number of records
 * in each.
 */
import { Effect, Layer, Schedule } from "effect"
import { Outbox } from "effect-events"
import { SqlClient } from "effect/sql"
import type { Message } from "kafkajs"
import { type Database, mariadb, postgres, sqlite } from "./databases.ts"
import { type Benchmark, measure, quiet, type Round, sized } from "./harness.ts"
import {
  type Client,
  counted,
  create,
  drop,
  headersOf,
  kafka,
  layerOf,
  orderOf,
  partitions,
  topicOf,
  unique
} from "./orders.ts"
import * as RawPlatformatic from "./rawPlatformatic.ts"

const batchSize = 500
const perTransaction = 5_000

const relayDrain = (
  variant: string,
  aim: number,
  events: number,
  database: () => Database,
  client: Client = "KafkaJs"
): Benchmark => ({
  name: `relay-drain ${variant}`,
  aim,
  short: 3,
  settings: {
    events,
    payloadBytes: 200,
    partitions,
    headers: "CloudEvents",
    batchSize,
    ours: "Outbox.layerRelay with its defaults",
    twin: `${client} from memory: idempotent producer, acks -1, one partition per request, partitions side by side`
  },
  open: async () => {
    const topic = unique("relay")
    await create(topic)
    return {
      ours: () => counted(topic, events, () => ours(topic, events, database, client)),
      twin: () => counted(topic, events, () => (client === "KafkaJs" ? twin : twinOnPlatformatic)(topic, events)),
      close: () => drop(topic)
    }
  }
})

export const relayDrainPg = relayDrain("pg", 0.6, sized(200_000, 30_000), postgres)
export const relayDrainPlatformatic = relayDrain("Platformatic", 0.6, sized(200_000, 30_000), postgres, "Platformatic")
export const relayDrainMariadb = relayDrain("mariadb", 0.5, sized(100_000, 20_000), mariadb)
export const relayDrainSqlite = relayDrain("sqlite", 0.5, sized(100_000, 20_000), sqlite)

const fill = (topic: string, events: number) =>
  Effect.forEach(
    Array.from({ length: events / perTransaction }, (_, i) => i * perTransaction),
    (from) =>
      Outbox.transaction(
        Outbox.publishAll(topicOf(topic), Array.from({ length: perTransaction }, (_, i) => orderOf(from + i)))
      ),
    { discard: true }
  )

/** Succeeds when the outbox is empty. */
const drained = (outbox: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.repeat(
      sql.unsafe(`select 1 from ${outbox} limit 1`),
      { schedule: Schedule.spaced("10 millis"), until: (rows) => rows.length === 0 }
    ))

const ours = (topic: string, events: number, database: () => Database, client: Client): Promise<Round> => {
  const { layer, outbox } = database()
  return measure(events, (started) =>
    Effect.gen(function*() {
      yield* fill(topic, events)
      started()
      yield* Layer.build(Outbox.layerRelay())
      yield* drained(outbox)
    }).pipe(Effect.scoped, Effect.provide(Layer.merge(layer, layerOf(client))), quiet, Effect.runPromise))
}

const messagesOf = (events: number): ReadonlyArray<ReadonlyArray<Message>> => {
  const byPartition = Array.from({ length: partitions }, (): Array<Message> => [])
  for (let i = 0; i < events; i++) {
    const order = orderOf(i)
    const partition = i % partitions
    byPartition[partition]!.push({
      partition,
      key: order.customer,
      value: JSON.stringify(order),
      headers: headersOf(i)
    })
  }
  return byPartition
}

const sendAll = async (messages: ReadonlyArray<Message>, send: (messages: Array<Message>) => Promise<unknown>) => {
  for (let i = 0; i < messages.length; i += batchSize) await send(messages.slice(i, i + batchSize))
}

const twin = (topic: string, events: number): Promise<Round> =>
  measure(events, async (started) => {
    const all = messagesOf(events)
    const producer = kafka.producer({ idempotent: true, allowAutoTopicCreation: false })
    await producer.connect()
    started()
    await Promise.all(all.map((ofOne) => sendAll(ofOne, (messages) => producer.send({ topic, acks: -1, messages }))))
    await producer.disconnect()
  })

const twinOnPlatformatic = (topic: string, events: number): Promise<Round> =>
  measure(events, async (started) => {
    const all = messagesOf(events)
    const producers = all.map((_, partition) => RawPlatformatic.connect(topic, partition))
    started()
    await Promise.all(all.map((ofOne, partition) => sendAll(ofOne, producers[partition]!.send)))
    await Promise.all(producers.map((producer) => producer.close()))
  })

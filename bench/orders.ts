/** The events of the benchmarks: a flat class of five fields, about 200 bytes as JSON. */
import { Effect, Schedule, Schema } from "effect"
import { Broker, Publisher, Topic } from "effect-events"
import * as KafkaJs from "effect-events/Layers/KafkaJs"
import * as Platformatic from "effect-events/Layers/Platformatic"
import { Kafka, logLevel } from "kafkajs"
import type { Admin, KafkaJSError } from "kafkajs"
import { randomBytes, randomUUID } from "node:crypto"
import type { Round } from "./harness.ts"

export class Order extends Schema.Class<Order>("Order")({
  orderId: Schema.String,
  customer: Schema.String,
  total: Schema.Number,
  currency: Schema.String,
  note: Schema.String
}) {}

const configured = process.env.KAFKA_BROKERS?.split(",")
if (configured === undefined) throw new Error("KAFKA_BROKERS is not set; run this with npm run bench")
export const brokers = configured

export const kafka = new Kafka({ brokers, clientId: "bench", logLevel: logLevel.NOTHING })

/** Our Layers over Kafka. */
export type Client = "KafkaJs" | "Platformatic"

export const layerOf = (client: Client) =>
  client === "KafkaJs" ? KafkaJs.layer({ brokers }) : Platformatic.layer({ brokers })

export const layer = layerOf("KafkaJs")

export const unique = (name: string): string => `bench-${name}-${randomBytes(4).toString("hex")}`

export const partitions = 3

export const topicOf = (name: string) =>
  Topic.make(name, { schema: Order, key: (order) => order.customer, create: { partitions } })

const customers = 5_000
const chunk = 1_000

export const orderOf = (i: number): Order =>
  new Order({
    orderId: `order-${String(i).padStart(10, "0")}`,
    customer: `customer-${i % customers}`,
    total: i % 100,
    currency: "EUR",
    note: "x".repeat(95)
  })

/** The sum of `total` over the first `events` orders: what each side must arrive at. */
export const sumOf = (events: number): number => {
  let sum = 0
  for (let i = 0; i < events; i++) sum += i % 100
  return sum
}

const withAdmin = async <A>(use: (admin: Admin) => Promise<A>): Promise<A> => {
  const admin = kafka.admin()
  await admin.connect()
  const result = await use(admin)
  await admin.disconnect()
  return result
}

/** By our Layer, which waits until the broker knows a topic; KafkaJS may fail while it does not. */
const createAll = (names: ReadonlyArray<string>, count: number): Promise<void> =>
  Broker.Broker.use((broker) =>
    broker.ensureTopics(names.map((name) => ({ name, create: { partitions: count, replicationFactor: 1 } })))
  ).pipe(Effect.provide(layer), Effect.runPromise)

export const create = (name: string, count = partitions) => createAll([name], count)

/**
 * How many records are in a topic that holds no transactions. A topic is known
 * a moment before its broker leads it, and KafkaJS leaves that moment to its
 * caller.
 */
export const lengthOf = (name: string): Promise<number> =>
  withAdmin((admin) =>
    Effect.tryPromise({
      try: () => admin.fetchTopicOffsets(name),
      catch: (error) => error as KafkaJSError
    }).pipe(
      Effect.retry({ while: (error) => error.retriable, schedule: Schedule.spaced("100 millis"), times: 50 }),
      Effect.map((offsets) => offsets.reduce((sum, { offset }) => sum + Number(offset), 0)),
      Effect.runPromise
    )
  )

/** Runs one side, and checks that the topic has grown by as many records. */
export const counted = async (topic: string, events: number, side: () => Promise<Round>): Promise<Round> => {
  const before = await lengthOf(topic)
  const round = await side()
  const sent = await lengthOf(topic) - before
  if (sent !== events) throw new Error(`${sent} records were sent, and ${events} should have been`)
  return round
}

/** What our own records carry. */
export const headersOf = (i: number) => ({
  ce_specversion: "1.0",
  ce_id: randomUUID(),
  ce_type: "bench",
  ce_source: "bench",
  ce_time: new Date(1_700_000_000_000 + i).toISOString(),
  "content-type": "application/json"
})

const publishOrders = (name: string, events: number) =>
  Effect.gen(function*() {
    for (let i = 0; i < events; i += chunk) {
      const length = Math.min(chunk, events - i)
      yield* Publisher.publishAll(topicOf(name), Array.from({ length }, (_, j) => orderOf(i + j)))
    }
  })

/** Fills new topics with so many orders each, with our CloudEvents headers. */
export const fillAll = async (names: ReadonlyArray<string>, events: number, count = partitions): Promise<void> => {
  await createAll(names, count)
  await Effect.runPromise(
    Effect.provide(Effect.forEach(names, (name) => publishOrders(name, events), { discard: true }), layer)
  )
}

export const fill = (name: string, events: number, count = partitions): Promise<void> => fillAll([name], events, count)

/** Where a group leaves the dead letters of a topic. */
export const deadLettersOf = (topic: string, group: string): string => `${topic}.${group}.dead-letter`

/** With the topics of their dead letters, of which each round has left one. */
export const drop = (...names: ReadonlyArray<string>): Promise<void> =>
  withAdmin(async (admin) => {
    const topics = (await admin.listTopics()).filter((topic) =>
      names.some((name) => topic === name || topic.startsWith(`${name}.`))
    )
    await admin.deleteTopics({ topics })
  })

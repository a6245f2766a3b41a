/** The events of the benchmarks: a flat class of five fields, about 200 bytes as JSON. */
import { Effect, Schema } from "effect"
import { Publisher, Topic } from "effect-events"
import * as KafkaJs from "effect-events/Layers/KafkaJs"
import { Kafka, logLevel } from "kafkajs"
import type { Admin } from "kafkajs"
import { randomBytes, randomUUID } from "node:crypto"

export class Order extends Schema.Class<Order>("Order")({
  orderId: Schema.String,
  customer: Schema.String,
  total: Schema.Number,
  currency: Schema.String,
  note: Schema.String
}) {}

const brokers = process.env.KAFKA_BROKERS?.split(",")
if (brokers === undefined) throw new Error("KAFKA_BROKERS is not set; run this with npm run bench")

export const kafka = new Kafka({ brokers, clientId: "bench", logLevel: logLevel.NOTHING })
export const layer = KafkaJs.layer({ brokers })

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

export const create = (name: string) =>
  withAdmin((admin) =>
    admin.createTopics({ topics: [{ topic: name, numPartitions: partitions, replicationFactor: 1 }] })
  )

/** How many records are in a topic that holds no transactions. */
export const lengthOf = (name: string): Promise<number> =>
  withAdmin(async (admin) => (await admin.fetchTopicOffsets(name)).reduce((sum, { offset }) => sum + Number(offset), 0))

/** What our own records carry. */
export const headersOf = (i: number) => ({
  ce_specversion: "1.0",
  ce_id: randomUUID(),
  ce_type: "bench",
  ce_source: "bench",
  ce_time: new Date(1_700_000_000_000 + i).toISOString(),
  "content-type": "application/json"
})

/** Fills a new topic, with our CloudEvents headers. */
export const fill = async (name: string, events: number): Promise<void> => {
  await create(name)
  await Effect.runPromise(Effect.provide(
    Effect.gen(function*() {
      for (let i = 0; i < events; i += chunk) {
        yield* Publisher.publishAll(topicOf(name), Array.from({ length: chunk }, (_, j) => orderOf(i + j)))
      }
    }),
    layer
  ))
}

export const drop = (name: string): Promise<void> => withAdmin((admin) => admin.deleteTopics({ topics: [name] }))

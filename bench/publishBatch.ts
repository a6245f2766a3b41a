/**
 * `publish-batch`: `Publisher.publishAll` with 500 events per call, one call
 * after another, against raw KafkaJS under the same safety rule: one partition
 * per request, the three side by side. `publish-batch-plain`: the same against
 * one request over all partitions, as people write it.
 */
import { Effect, ManagedRuntime } from "effect"
import { Publisher } from "effect-events"
import { type Message, Partitioners, type Producer } from "kafkajs"
import { type Benchmark, measure, quiet, type Round, sized } from "./harness.ts"
import {
  counted,
  create,
  drop,
  headersOf,
  kafka,
  layer,
  type Order,
  orderOf,
  partitions,
  topicOf,
  unique
} from "./orders.ts"

const events = sized(100_000, 20_000)
const batchSize = 500

type Send = (producer: Producer, topic: string, messages: ReadonlyArray<Message>) => Promise<unknown>

const publishBatch = (variant: string, aim: number, send: Send, twin: string): Benchmark => ({
  name: `publish-batch${variant} KafkaJs`,
  aim,
  short: 3,
  settings: {
    events,
    payloadBytes: 200,
    partitions,
    headers: "CloudEvents",
    batchSize,
    ours: "Publisher.publishAll, defaults, one call after another",
    twin: `idempotent producer, acks -1, JSON.stringify, ${twin}`
  },
  open: async () => {
    const topic = unique("publish")
    await create(topic)
    const Orders = topicOf(topic)
    // What is published is there before the clock starts; encoding and headers are part of the work.
    const batches = Array.from(
      { length: events / batchSize },
      (_, batch) => Array.from({ length: batchSize }, (_, i) => orderOf(batch * batchSize + i))
    )
    const runtime = ManagedRuntime.make(layer)
    await runtime.context()
    const producer = kafka.producer({ idempotent: true, allowAutoTopicCreation: false })
    await producer.connect()
    const ours = Effect.forEach(batches, (batch) => Publisher.publishAll(Orders, batch), { discard: true })
    const byHand = async () => {
      for (const batch of batches) await send(producer, topic, batch.map(messageOf))
    }
    const round = (work: () => Promise<void>): Promise<Round> => counted(topic, events, () => measure(events, work))
    return {
      ours: () => round(() => runtime.runPromise(quiet(ours))),
      twin: () => round(byHand),
      close: async () => {
        await runtime.dispose()
        await producer.disconnect()
        await drop(topic)
      }
    }
  }
})

const messageOf = (order: Order, i: number): Message => ({
  key: order.customer,
  value: JSON.stringify(order),
  headers: headersOf(i)
})

/** As the client itself would find the partition of a message. */
const partitionOf = Partitioners.DefaultPartitioner()
const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => ({
  partitionErrorCode: 0,
  partitionId,
  leader: 0,
  replicas: [],
  isr: []
}))

const onePartitionPerRequest: Send = (producer, topic, messages) => {
  const groups = Array.from({ length: partitions }, (): Array<Message> => [])
  for (const message of messages) {
    const partition = partitionOf({ topic, partitionMetadata, message })
    groups[partition]!.push({ ...message, partition })
  }
  return Promise.all(
    groups.filter((group) => group.length > 0).map((messages) => producer.send({ topic, acks: -1, messages }))
  )
}

const oneRequest: Send = (producer, topic, messages) => producer.send({ topic, acks: -1, messages: [...messages] })

export const publishBatches = [
  publishBatch("", 0.9, onePartitionPerRequest, "one partition per send, partitions side by side"),
  publishBatch("-plain", 0.65, oneRequest, "one send over all partitions")
]

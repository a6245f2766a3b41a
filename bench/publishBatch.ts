/**
 * `publish-batch`: `Publisher.publishAll` with 500 events per call, one call
 * after another, against the raw client under the same safety rule: one partition
 * per request, the three side by side. `publish-batch-plain`: the same against
 * one request over all partitions, as people write it.
 */
import { Effect, ManagedRuntime } from "effect"
import { Publisher } from "effect-events"
import { type Message, Partitioners, type Producer } from "kafkajs"
import { type Benchmark, measure, quiet, type Round, sized } from "./harness.ts"
import {
  type Client,
  counted,
  create,
  drop,
  headersOf,
  kafka,
  layerOf,
  type Order,
  orderOf,
  partitions,
  topicOf,
  unique
} from "./orders.ts"
import * as RawPlatformatic from "./rawPlatformatic.ts"

const events = sized(100_000, 20_000)
const batchSize = 500

/** A raw client that is connected. */
interface Raw {
  readonly send: (topic: string, messages: ReadonlyArray<Message>) => Promise<unknown>
  readonly close: () => Promise<unknown>
}

const publishBatch = (
  variant: string,
  client: Client,
  aim: number,
  connect: (topic: string) => Promise<Raw>,
  twin: string
): Benchmark => ({
  name: `publish-batch${variant} ${client}`,
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
    const runtime = ManagedRuntime.make(layerOf(client))
    await runtime.context()
    const raw = await connect(topic)
    const ours = Effect.forEach(batches, (batch) => Publisher.publishAll(Orders, batch), { discard: true })
    const byHand = async () => {
      for (const batch of batches) await raw.send(topic, batch.map(messageOf))
    }
    const round = (work: () => Promise<void>): Promise<Round> => counted(topic, events, () => measure(events, work))
    return {
      ours: () => round(() => runtime.runPromise(quiet(ours))),
      twin: () => round(byHand),
      close: async () => {
        await runtime.dispose()
        await raw.close()
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

const byPartition = (topic: string, messages: ReadonlyArray<Message>): ReadonlyArray<ReadonlyArray<Message>> => {
  const groups = Array.from({ length: partitions }, (): Array<Message> => [])
  for (const message of messages) groups[partitionOf({ topic, partitionMetadata, message })]!.push(message)
  return groups
}

const kafkaJs = async (
  send: (producer: Producer, topic: string, messages: ReadonlyArray<Message>) => Promise<unknown>
): Promise<Raw> => {
  const producer = kafka.producer({ idempotent: true, allowAutoTopicCreation: false })
  await producer.connect()
  return { send: (topic, messages) => send(producer, topic, messages), close: () => producer.disconnect() }
}

const onePartitionPerRequest = () =>
  kafkaJs((producer, topic, messages) =>
    Promise.all(
      byPartition(topic, messages).map((group, partition) =>
        producer.send({ topic, acks: -1, messages: group.map((message) => ({ ...message, partition })) })
      )
    )
  )

const oneRequest = () =>
  kafkaJs((producer, topic, messages) => producer.send({ topic, acks: -1, messages: [...messages] }))

const platformatic = (topic: string): Promise<Raw> => {
  const producers = Array.from({ length: partitions }, (_, partition) => RawPlatformatic.connect(topic, partition))
  return Promise.resolve({
    send: (topic, messages) =>
      Promise.all(byPartition(topic, messages).map((group, partition) => producers[partition]!.send(group))),
    close: () => Promise.all(producers.map((producer) => producer.close()))
  })
}

const sideBySide = "one partition per send, partitions side by side"

export const publishBatches = [
  publishBatch("", "KafkaJs", 0.9, onePartitionPerRequest, sideBySide),
  publishBatch("-plain", "KafkaJs", 0.65, oneRequest, "one send over all partitions"),
  publishBatch("", "Platformatic", 0.9, platformatic, `${sideBySide}, a producer each`)
]

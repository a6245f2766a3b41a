/**
 * `consume-idempotent` and `consume-idempotent-batch`: an idempotent consumer
 * whose handler adds up a field, of each event or of each batch, against
 * KafkaJS `eachBatch` with `JSON.parse` over the same records;
 * `Platformatic-stream`: against that client's own stream.
 */
import { Consumer as ClientConsumer } from "@platformatic/kafka"
import { Effect } from "effect"
import { Consumer } from "effect-events"
import { checkSum, consuming } from "./consuming.ts"
import { type Benchmark, measure, type Round, sized } from "./harness.ts"
import { brokers, type Client, drop, fill, kafka, type Order, topicOf, unique } from "./orders.ts"

const events = sized(300_000, 60_000)

const settings = { events, payloadBytes: 200, partitions: 3, headers: "CloudEvents" }

interface Twin {
  readonly says: string
  readonly run: (topic: string) => Promise<Round>
}

const eachBatch: Twin = {
  says:
    "KafkaJS: eachBatch, JSON.parse, partitionsConsumedConcurrently 3, maxBytesPerPartition 1 MiB, commit each second",
  run: (topic) => twin(topic)
}

const stream: Twin = {
  says: "@platformatic/kafka: its stream, JSON.parse, autocommit each second",
  run: (topic) => streamTwin(topic)
}

const open = (ours: (topic: string) => Promise<Round>, { run }: Twin): Benchmark["open"] => async () => {
  const topic = unique("consume")
  await fill(topic, events)
  return { ours: () => ours(topic), twin: () => run(topic), close: () => drop(topic) }
}

const consumeIdempotentOn = (name: string, client: Client, aim: number, twin: Twin): Benchmark => ({
  name: `consume-idempotent ${name}`,
  aim,
  short: 3,
  settings: { ...settings, ours: "defaults: key order, concurrency 16, schema decode", twin: twin.says },
  open: open((topic) =>
    consuming(events, (add) => [
      Consumer.idempotent(topicOf(topic), (event) => Effect.sync(() => add(event.payload.total)))
    ], client), twin)
})

const consumeIdempotentBatchOn = (client: Client, aim: number): Benchmark => ({
  name: `consume-idempotent-batch ${client}`,
  aim,
  short: 3,
  settings: {
    ...settings,
    ours: "defaults: key order, concurrency 3, batches of at most 100, schema decode",
    twin: eachBatch.says
  },
  open: open((topic) =>
    consuming(events, (add) => [
      Consumer.idempotentBatch(topicOf(topic), (batch) =>
        Effect.sync(() => {
          for (const event of batch) add(event.payload.total)
        }))
    ], client), eachBatch)
})

export const consumeIdempotents = [
  consumeIdempotentOn("KafkaJs", "KafkaJs", 0.8, eachBatch),
  consumeIdempotentBatchOn("KafkaJs", 0.9),
  consumeIdempotentOn("Platformatic", "Platformatic", 1, eachBatch),
  consumeIdempotentOn("Platformatic-stream", "Platformatic", 1.8, stream),
  consumeIdempotentBatchOn("Platformatic", 1.25)
]

const twin = (topic: string): Promise<Round> =>
  measure(events, async (started) => {
    const consumer = kafka.consumer({ groupId: unique("group"), maxBytesPerPartition: 1024 * 1024 })
    await consumer.connect()
    await consumer.subscribe({ topic, fromBeginning: true })
    let count = 0
    let sum = 0
    await new Promise<void>((resolve, reject) => {
      consumer.run({
        partitionsConsumedConcurrently: 3,
        autoCommitInterval: 1_000,
        eachBatch: async ({ batch }) => {
          if (count === 0) started()
          for (const { value } of batch.messages) sum += (JSON.parse(value!.toString()) as Order).total
          count += batch.messages.length
          if (count === events) resolve()
        }
      }).catch(reject)
    })
    await consumer.disconnect()
    checkSum(events, sum)
  })

const streamTwin = (topic: string): Promise<Round> =>
  measure(events, async (started) => {
    const consumer = new ClientConsumer({ clientId: "bench", groupId: unique("group"), bootstrapBrokers: brokers })
    const messages = await consumer.consume({ topics: [topic], mode: "earliest", autocommit: 1_000 })
    let count = 0
    let sum = 0
    await new Promise<void>((resolve, reject) => {
      messages.on("error", reject)
      messages.on("data", ({ value }) => {
        if (count === 0) started()
        sum += (JSON.parse(value.toString()) as Order).total
        if (++count === events) resolve()
      })
    })
    await consumer.close(true)
    checkSum(events, sum)
  })

/**
 * `consume-idempotent` and `consume-idempotent-batch`: an idempotent consumer
 * whose handler adds up a field, of each event or of each batch, against
 * KafkaJS `eachBatch` with `JSON.parse` over the same records.
 */
import { Effect } from "effect"
import { Consumer } from "effect-events"
import { checkSum, consuming } from "./consuming.ts"
import { type Benchmark, measure, type Round, sized } from "./harness.ts"
import { drop, fill, kafka, type Order, topicOf, unique } from "./orders.ts"

const events = sized(300_000, 60_000)

const settings = {
  events,
  payloadBytes: 200,
  partitions: 3,
  headers: "CloudEvents",
  twin: "eachBatch, JSON.parse, partitionsConsumedConcurrently 3, maxBytesPerPartition 1 MiB, commit each second"
}

const open = (ours: (topic: string) => Promise<Round>): Benchmark["open"] => async () => {
  const topic = unique("consume")
  await fill(topic, events)
  return { ours: () => ours(topic), twin: () => twin(topic), close: () => drop(topic) }
}

export const consumeIdempotent: Benchmark = {
  name: "consume-idempotent KafkaJs",
  aim: 0.75,
  short: 3,
  settings: { ...settings, ours: "defaults: key order, concurrency 16, schema decode" },
  open: open((topic) =>
    consuming(events, (add) => [
      Consumer.idempotent(topicOf(topic), (event) => Effect.sync(() => add(event.payload.total)))
    ])
  )
}

export const consumeIdempotentBatch: Benchmark = {
  name: "consume-idempotent-batch KafkaJs",
  aim: 0.85,
  short: 3,
  settings: { ...settings, ours: "defaults: key order, concurrency 3, batches of at most 100, schema decode" },
  open: open((topic) =>
    consuming(events, (add) => [
      Consumer.idempotentBatch(topicOf(topic), (batch) =>
        Effect.sync(() => {
          for (const event of batch) add(event.payload.total)
        }))
    ])
  )
}

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

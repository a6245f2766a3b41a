/**
 * `consume-idempotent`: an idempotent consumer whose handler adds up a field,
 * against KafkaJS `eachBatch` with `JSON.parse` over the same records.
 */
import { Deferred, Effect, Layer } from "effect"
import { Consumer } from "effect-events"
import { type Benchmark, measure, type Round } from "./harness.ts"
import { drop, fill, kafka, layer, type Order, sumOf, topicOf, unique } from "./orders.ts"

const events = 300_000

export const consumeIdempotent: Benchmark = {
  name: "consume-idempotent KafkaJs",
  settings: {
    events,
    payloadBytes: 200,
    partitions: 3,
    headers: "CloudEvents",
    ours: "defaults: key order, concurrency 16, schema decode",
    twin: "eachBatch, JSON.parse, partitionsConsumedConcurrently 3, maxBytesPerPartition 1 MiB, commit each second"
  },
  open: async () => {
    const topic = unique("consume")
    await fill(topic, events)
    return { ours: () => ours(topic), twin: () => twin(topic), close: () => drop(topic) }
  }
}

const check = (sum: number): void => {
  if (sum !== sumOf(events)) throw new Error(`The sum is ${sum} and should be ${sumOf(events)}`)
}

const ours = (topic: string): Promise<Round> =>
  measure(events, (started) =>
    Effect.gen(function*() {
      const done = yield* Deferred.make<void>()
      let count = 0
      let sum = 0
      const consumer = Consumer.idempotent(topicOf(topic), (event) =>
        Effect.sync(() => {
          if (count === 0) started()
          sum += event.payload.total
          if (++count === events) Deferred.doneUnsafe(done, Effect.void)
        }))
      yield* Effect.andThen(Layer.build(Consumer.layer(unique("group"), [consumer])), Deferred.await(done))
      check(sum)
    }).pipe(Effect.scoped, Effect.provide(layer), Effect.runPromise))

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
    check(sum)
  })

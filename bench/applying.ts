/**
 * How the benchmarks of exactly-once batches apply orders, ours and by hand:
 * the total of each customer is added up in the database. What a transaction
 * does there comes from outside.
 */
import { Deferred, Effect, Layer, type Scope } from "effect"
import { Consumer } from "effect-events"
import type { Broker, MessageStore } from "effect-events"
import type { SqlError } from "effect/sql"
import { SqlClient } from "effect/sql"
import type { KafkaMessage } from "kafkajs"
import { kafka, type Order, topicOf, unique } from "./orders.ts"

export const maxSize = 500

interface Options {
  readonly topic: string
  /** So many are in the topic, or will be. */
  readonly events: number
  /** Called when the first event is there. */
  readonly started: () => void
}

/** What a customer's orders of one batch come to. Sorted, so that two transactions never wait for each other in a ring. */
export const totalsOf = (orders: ReadonlyArray<Order>): Array<[customer: string, total: number]> => {
  const totals = new Map<string, number>()
  for (const { customer, total } of orders) totals.set(customer, (totals.get(customer) ?? 0) + total)
  return Array.from(totals).sort(([a], [b]) => a < b ? -1 : 1)
}

type Services = Scope.Scope | SqlClient.SqlClient | Broker.Broker | MessageStore.MessageStore

/** Ours: `exactlyOnceBatch`. Once it consumes, succeeds with what waits for the last commit. */
export const applying = (
  { events, started, topic, upsert }: Options & {
    readonly upsert: (totals: ReturnType<typeof totalsOf>) => Effect.Effect<unknown, SqlError.SqlError>
  }
): Effect.Effect<Effect.Effect<void>, unknown, Services> =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const done = yield* Deferred.make<void>()
    let running = false
    let count = 0
    const consumer = Consumer.exactlyOnceBatch(topicOf(topic), (batch) => {
      if (!running) started()
      running = true
      return upsert(totalsOf(batch.map((event) => event.payload))).pipe(
        Effect.andThen(sql.afterCommit(Effect.suspend(() => {
          count += batch.length
          return count === events ? Deferred.succeed(done, undefined) : Effect.void
        })))
      )
    }, { batch: { maxSize } })
    yield* Layer.build(Consumer.layer(unique("group"), [consumer]))
    return Deferred.await(done)
  })

/** What a transaction by hand applies: the ids of its messages, and the orders of those that are new. */
export interface Slice {
  /** Sorted, as the totals are. */
  readonly ids: ReadonlyArray<string>
  readonly ordersOf: (isNew: (id: string) => boolean) => ReadonlyArray<Order>
}

const idOf = ({ headers }: KafkaMessage): string => headers!.ce_id!.toString()

const sliceOf = (messages: ReadonlyArray<KafkaMessage>): Slice => ({
  ids: messages.map(idOf).sort(),
  ordersOf: (isNew) =>
    messages.filter((message) => isNew(idOf(message))).map(({ value }) => JSON.parse(value!.toString()) as Order)
})

/**
 * By hand: KafkaJS `eachBatch`, three partitions at a time, a transaction per
 * slice. Once it consumes, resolves with what waits for the last commit.
 */
export const applyingByHand = async (
  { apply, events, started, topic }: Options & { readonly apply: (slice: Slice) => Promise<void> }
): Promise<() => Promise<void>> => {
  const consumer = kafka.consumer({ groupId: unique("group"), maxBytesPerPartition: 1024 * 1024 })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  const joined = new Promise((resolve) => consumer.on(consumer.events.GROUP_JOIN, resolve))
  let running = false
  let count = 0
  const done = new Promise<void>((resolve, reject) => {
    consumer.run({
      partitionsConsumedConcurrently: 3,
      eachBatchAutoResolve: false,
      autoCommitInterval: 1_000,
      eachBatch: async ({ batch, commitOffsetsIfNecessary, heartbeat, resolveOffset }) => {
        if (!running) started()
        running = true
        for (let i = 0; i < batch.messages.length; i += maxSize) {
          const messages = batch.messages.slice(i, i + maxSize)
          await apply(sliceOf(messages))
          resolveOffset(messages.at(-1)!.offset)
          await heartbeat()
          await commitOffsetsIfNecessary()
          count += messages.length
          if (count === events) resolve()
        }
      }
    }).catch(reject)
  })
  await joined
  return async () => {
    await done
    await consumer.disconnect()
  }
}

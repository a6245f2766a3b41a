/**
 * `node --expose-gc heapProgram.ts million | stuck`: what a consumer keeps on
 * the heap, as JSON on the standard output. A process of its own, so that
 * nothing else grows or shrinks beside it.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import type { Broker, ConsumerRecord } from "../../src/Broker.ts"
import * as Consumer from "../../src/Consumer.ts"
import type { ConsumerGroup } from "../../src/ConsumerGroup.ts"
import * as Topic from "../../src/Topic.ts"
import * as FedBroker from "./fedBroker.ts"

const Orders = Topic.make("orders", { schema: Schema.Struct({ n: Schema.Number, note: Schema.String }) })
const note = "x".repeat(100)
const chunk = 500

/** A key of its own for each record: what is kept per key would show. */
const recordOf = (partition: number, offset: number): ConsumerRecord => ({
  key: Buffer.from(`key-${partition}-${offset}`),
  value: Buffer.from(JSON.stringify({ n: offset, note })),
  headers: { ce_id: Buffer.from(`id-${partition}-${offset}`) },
  offset: BigInt(offset),
  timestamp: 0
})

const chunkOf = (partition: number, from: number, end: number): Array<ConsumerRecord> =>
  Array.from({ length: Math.min(chunk, end - from) }, (_, i) => recordOf(partition, from + i))

/** Bytes on the heap and in buffers, after a collection. */
const heap = (): number => {
  globalThis.gc!()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const run = (
  consumer: Consumer.Consumer<Broker | ConsumerGroup>,
  until: Effect.Effect<void>,
  broker: FedBroker.Options
): Promise<void> =>
  Effect.andThen(Layer.build(Consumer.layer("group", [consumer])), until).pipe(
    Effect.scoped,
    Effect.provide(FedBroker.layer(broker)),
    Effect.provideService(References.MinimumLogLevel, "Warn"),
    Effect.runPromise
  )

/** A million records through 100 slots: the heap at every hundredth of the way. */
const million = async () => {
  const records = 1_000_000
  const partitions = 4
  const samples: Array<number> = []
  const done = Deferred.makeUnsafe<void>()
  let count = 0
  const finish = Effect.sync(() => {
    if (++count % (records / 100) === 0) samples.push(heap())
    if (count === records) Deferred.doneUnsafe(done, Effect.void)
  })
  const consumer = Consumer.idempotent(
    Orders,
    // Some take longer than others, so that records finish out of order.
    (event) => event.payload.n % 50 === 0 ? Effect.andThen(Effect.yieldNow, finish) : finish,
    { concurrency: 100 }
  )
  await run(consumer, Deferred.await(done), {
    partitions,
    next: (partition, from) => chunkOf(partition, from, records / partitions)
  })
  return { samples }
}

/** A record that does not end with 200,000 behind it, until it does. */
const stuck = async () => {
  const records = 200_001
  const stalled = Deferred.makeUnsafe<void>()
  const released = Deferred.makeUnsafe<void>()
  const done = Deferred.makeUnsafe<void>()
  let handed = 0
  let handled = 0
  let atFirst = 0
  let paused = false
  // Everything that came is handled but for one, and no more comes: either the partition is paused, or all came.
  const look = () => {
    if (handled === handed - 1 && (handed === records || (paused && handed >= 10_000))) {
      Deferred.doneUnsafe(stalled, Effect.void)
    }
  }
  const consumer = Consumer.idempotent(Orders, (event) => {
    const finish = Effect.sync(() => {
      if (++handled === records) Deferred.doneUnsafe(done, Effect.void)
      look()
    })
    return event.offset === 0n ? Effect.andThen(Deferred.await(released), finish) : finish
  }, { concurrency: 100 })
  let atStall = { handed: 0, bytes: 0 }
  const until = Effect.gen(function*() {
    yield* Deferred.await(stalled)
    atStall = { handed, bytes: heap() }
    yield* Deferred.succeed(released, undefined)
    yield* Deferred.await(done)
  })
  await run(consumer, until, {
    partitions: 1,
    onPause: () => {
      paused = true
      look()
    },
    next: (partition, from) => {
      if (from === 0) atFirst = heap()
      paused = false
      const next = chunkOf(partition, from, records)
      handed += next.length
      return next
    }
  })
  return { atFirst, handed: atStall.handed, atStall: atStall.bytes }
}

console.log(JSON.stringify(await (process.argv[2] === "million" ? million() : stuck())))

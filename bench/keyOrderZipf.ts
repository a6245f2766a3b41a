/**
 * `key-order-zipf`: what order per key costs when a few keys have most of the
 * events: a handler of 10 ms, keys by Zipf's law, the whole backlog timed.
 *
 * With 8 slots the twin is our own `unordered`: what the slots allow. With 64
 * slots it is the bound that order itself sets: the events of the hottest key,
 * one after another.
 */
import { Deferred, Effect, Layer, Schema } from "effect"
import { Consumer, Publisher, Topic } from "effect-events"
import * as Memory from "effect-events/Layers/Memory"
import { type Benchmark, measure, quiet, type Round, sized } from "./harness.ts"

const events = sized(4_000, 1_000)
const keys = 1_000
const handlerMillis = 10

const topic = Topic.make("zipf", { schema: Schema.Number, key: String, create: { partitions: 3 } })

/** The keys of all events: the k-th most frequent one has a share of 1/k. The same in each run. */
const backlog = ((): ReadonlyArray<number> => {
  const sums: Array<number> = []
  let sum = 0
  for (let k = 1; k <= keys; k++) sums.push(sum += 1 / k)
  let state = 1
  const random = () => {
    state = Math.imul(state, 48_271) % 0x7fff_ffff
    return Math.abs(state) / 0x7fff_ffff
  }
  return Array.from({ length: events }, () => {
    const at = random() * sum
    return sums.findIndex((upTo) => at < upTo)
  })
})()

const hottest = backlog.filter((key) => key === 0).length

const settings = (slots: number, twin: string) => ({
  events,
  keys,
  handlerMillis,
  partitions: 3,
  hottestShare: Number((hottest / events).toFixed(3)),
  ours: `idempotent, key order, concurrency ${slots}`,
  twin
})

export const keyOrderZipf8: Benchmark = {
  name: "key-order-zipf-8 Memory",
  aim: 0.8,
  short: 2,
  settings: settings(8, "idempotent, unordered, concurrency 8"),
  open: () =>
    Promise.resolve({
      ours: () => consume("key", 8),
      twin: () => consume("unordered", 8),
      close: () => Promise.resolve()
    })
}

export const keyOrderZipf64: Benchmark = {
  name: "key-order-zipf-64 Memory",
  aim: 0.9,
  short: 2,
  settings: settings(64, "the hottest key's events alone, one after another"),
  open: () =>
    Promise.resolve({
      ours: () => consume("key", 64),
      twin: bound,
      close: () => Promise.resolve()
    })
}

const consume = (ordering: "key" | "unordered", concurrency: number): Promise<Round> =>
  measure(events, (started) =>
    Effect.gen(function*() {
      yield* Publisher.publishAll(topic, backlog)
      const done = yield* Deferred.make<void>()
      let running = false
      let count = 0
      const handle = Effect.suspend(() => {
        if (!running) started()
        running = true
        return Effect.andThen(
          Effect.sleep(handlerMillis),
          Effect.suspend(() => ++count === events ? Deferred.succeed(done, undefined) : Effect.void)
        )
      })
      const consumer = Consumer.idempotent(topic, () => handle, { ordering, concurrency })
      yield* Effect.andThen(Layer.build(Consumer.layer("bench", [consumer])), Deferred.await(done))
    }).pipe(Effect.scoped, Effect.provide(Memory.layerBroker), quiet, Effect.runPromise))

const bound = (): Promise<Round> =>
  measure(events, () =>
    Effect.gen(function*() {
      for (let i = 0; i < hottest; i++) yield* Effect.sleep(handlerMillis)
    }).pipe(quiet, Effect.runPromise))

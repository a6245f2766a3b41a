/** What the engine counts: each event once, under labels that do not grow with keys. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Consumer from "../../src/Consumer.ts"
import * as FailurePolicy from "../../src/FailurePolicy.ts"
import * as Memory from "../../src/Layers/Memory.ts"
import * as Publisher from "../../src/Publisher.ts"
import * as Topic from "../../src/Topic.ts"
import * as Feed from "../support/scriptedFeed.ts"

const { batches, each, engine, pass, record, records, retries, saving, settle } = Feed

const counted = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map())

const ours = Effect.map(Metric.snapshot, (all) => all.filter(({ id }) => id.startsWith("effect_events_")))

/** The counters that are not 0, by name and labels. */
const counters = Effect.map(
  ours,
  (all) =>
    Object.fromEntries(
      all.flatMap((one) =>
        one.type === "Counter" ? [[`${one.id} ${Object.values(one.attributes ?? {}).join(" ")}`, one.state.count]] : []
      )
    )
)

const gauges = Effect.map(
  ours,
  (all) =>
    Object.fromEntries(
      all.flatMap((one) =>
        one.type === "Gauge" ? [[`${one.id} ${Object.values(one.attributes ?? {}).join(" ")}`, one.state.value]] : []
      )
    )
)

describe("counters", () => {
  it.effect("tell what became of each event, once a second", () =>
    counted(Effect.gen(function*() {
      const { feed } = yield* engine([
        each((event) => {
          switch (event.payload.n) {
            case 1:
              return Effect.fail("poison")
            case 2:
              return event.attempt < 3 ? Effect.fail("busy") : Effect.void
            case 3:
              return Effect.fail("ignored")
            default:
              return Effect.void
          }
        }, {
          name: "bill",
          policy: {
            ...saving,
            retry: retries(2, "10 millis"),
            permanent: (error) => error === "poison",
            ignore: (error) => error === "ignored"
          }
        })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "c", "d", "e"))
      yield* pass("900 millis")
      assert.deepStrictEqual(yield* counters, {})
      yield* pass("100 millis")
      const first = {
        "effect_events_handled_total group orders bill": 3,
        "effect_events_failed_total group orders bill": 4,
        "effect_events_retried_total group orders bill": 2,
        "effect_events_dead_lettered_total group orders bill": 1,
        "effect_events_ignored_total group orders bill": 1
      }
      assert.deepStrictEqual(yield* counters, first)
      yield* feed.deliver(0, [record(5, "a"), record(6, null)])
      yield* pass("1 second")
      assert.deepStrictEqual(yield* counters, { ...first, "effect_events_handled_total group orders bill": 5 })
    })))

  it.effect("hold what was counted last when the group stops, and what was discarded", () =>
    counted(Effect.gen(function*() {
      const { feed, stop } = yield* engine([
        each((event) => event.payload.n === 0 ? Effect.fail("no") : Effect.void, {
          name: "bill",
          policy: { ...FailurePolicy.discard(), retry: retries(0) }
        })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b"))
      yield* settle
      yield* stop
      assert.deepStrictEqual(yield* counters, {
        "effect_events_handled_total group orders bill": 1,
        "effect_events_failed_total group orders bill": 1,
        "effect_events_discarded_total group orders bill": 1
      })
    })))

  it.effect("count duplicates that exactly-once skipped", () => {
    const Orders = Topic.make("orders", { schema: Schema.Struct({ n: Schema.Number }), create: { partitions: 1 } })
    return counted(Effect.gen(function*() {
      yield* Layer.build(
        Consumer.layer("billing", [Consumer.exactlyOnce(Orders, () => Effect.void, { name: "bill" })])
      )
      yield* Publisher.publish(Orders, { n: 1 }, { id: "same" })
      yield* Publisher.publish(Orders, { n: 1 }, { id: "same" })
      yield* pass("2 seconds")
      const all = yield* counters
      assert.strictEqual(all["effect_events_handled_total billing orders bill"], 2)
      assert.strictEqual(all["effect_events_duplicates_total billing orders bill"], 1)
    })).pipe(
      Effect.scoped,
      Effect.provideService(References.MinimumLogLevel, "None"),
      Effect.provide(Memory.layer)
    )
  })
})

describe("batches", () => {
  it.effect("have their sizes and durations counted, each batch once", () =>
    counted(Effect.gen(function*() {
      const { feed } = yield* engine([
        batches(() => Effect.sleep("2 seconds"), { name: "bill", concurrency: 1, maxSize: 10 })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, Array.from({ length: 25 }, (_, n) => record(n, `key-${n}`)))
      yield* pass("10 seconds")
      const histograms = Object.fromEntries(
        (yield* ours).flatMap((one) => one.type === "Histogram" ? [[one.id, one.state]] : [])
      )
      const sizes = histograms["effect_events_batch_size"]!
      assert.deepStrictEqual([sizes.count, sizes.sum, sizes.max], [3, 25, 10])
      const durations = histograms["effect_events_batch_seconds"]!
      assert.deepStrictEqual([durations.count, durations.sum], [3, 6])
    })))
})

describe("gauges", () => {
  it.effect("are those of the partitions that are assigned, and go with them", () =>
    counted(Effect.gen(function*() {
      const { feed } = yield* engine([
        each((event) => event.partition === 1 && event.payload.n === 1 ? Effect.never : Effect.void, {
          policy: { ...saving, timeout: "1 hour" }
        })
      ])
      yield* feed.assign(0, 1)
      yield* feed.deliver(0, records("a", "b"))
      yield* feed.deliver(1, records("a", "b", "c"))
      yield* pass("1 second")
      const moving = {
        "effect_events_partition_span group orders 0": 0,
        "effect_events_partition_buffered group orders 0": 0,
        "effect_events_partition_stuck group orders 0": 0,
        "effect_events_partition_span group orders 1": 2,
        "effect_events_partition_buffered group orders 1": 1,
        "effect_events_partition_stuck group orders 1": 0
      }
      assert.deepStrictEqual(yield* gauges, moving)
      yield* pass("361 seconds")
      assert.deepStrictEqual(yield* gauges, { ...moving, "effect_events_partition_stuck group orders 1": 1 })
      yield* feed.lose(1)
      yield* pass("1 second")
      assert.sameMembers(Object.keys(yield* gauges), Object.keys(moving).filter((name) => name.endsWith("0")))
    })))
})

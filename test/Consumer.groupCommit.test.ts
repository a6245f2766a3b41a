/** Group commit in time: what waits while an event of a group backs off. The suite has the rest. */
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Consumer from "../src/Consumer.ts"
import * as FailurePolicy from "../src/FailurePolicy.ts"
import * as Memory from "../src/Layers/Memory.ts"
import * as Publisher from "../src/Publisher.ts"
import * as Topic from "../src/Topic.ts"
import { pass, settle } from "./support/scriptedFeed.ts"

const Orders = Topic.make("orders", {
  schema: Schema.Struct({ key: Schema.String, n: Schema.Number }),
  key: (order) => order.key,
  create: { partitions: 1 }
})

const onMemory = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  effect.pipe(
    Effect.scoped,
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provide(Memory.layer)
  )

const applied = Memory.table<number, number>("applied")
const numbers = Effect.map(applied.entries, (entries) => entries.map(([n]) => n))

it.effect("an event that backs off lets those before it go, and holds those behind it until its time has come", () =>
  onMemory(Effect.gen(function*() {
    yield* Publisher.publishAll(Orders, [0, 1, 2, 3, 4, 5].map((n) => ({ key: "a", n })))
    yield* Publisher.publishAll(Orders, [10, 11].map((n) => ({ key: "b", n })))
    const Apply = Consumer.exactlyOnce(Orders, ({ attempt, payload }) =>
      Effect.gen(function*() {
        yield* applied.set(payload.n, attempt)
        if (payload.n === 3 && attempt === 1) return yield* Effect.fail("not yet")
      }), {
      concurrency: 1,
      onFailure: { ...FailurePolicy.save(), retry: Schedule.spaced("1 minute") }
    })
    yield* Layer.build(Consumer.layer("group", [Apply]))
    yield* settle
    assert.deepStrictEqual(yield* numbers, [0, 10, 11, 1, 2])
    yield* pass(59_000)
    assert.deepStrictEqual(yield* numbers, [0, 10, 11, 1, 2])
    yield* pass(1_000)
    assert.deepStrictEqual(yield* numbers, [0, 10, 11, 1, 2, 3, 4, 5])
    assert.deepStrictEqual((yield* applied.entries).find(([n]) => n === 3), [3, 2])
  })))

it.effect("an event whose handler takes too long is interrupted and tried again, and costs the others nothing", () =>
  onMemory(Effect.gen(function*() {
    yield* Publisher.publishAll(Orders, [0, 1, 2, 3, 4].map((n) => ({ key: `key-${n}`, n })))
    const interrupted: Array<number> = []
    const Apply = Consumer.exactlyOnce(Orders, ({ attempt, payload }) =>
      Effect.gen(function*() {
        yield* applied.set(payload.n, attempt)
        if (payload.n === 2 && attempt === 1) return yield* Effect.never
      }).pipe(Effect.onInterrupt(() => Effect.sync(() => void interrupted.push(payload.n)))), {
      concurrency: 1,
      onFailure: { ...FailurePolicy.save(), timeout: "10 seconds", retry: Schedule.spaced("1 minute") }
    })
    yield* Layer.build(Consumer.layer("group", [Apply]))
    yield* settle
    yield* pass(10_000)
    assert.deepStrictEqual(interrupted, [2])
    assert.sameMembers(yield* numbers, [0, 1, 3, 4])
    yield* pass(60_000)
    assert.deepStrictEqual((yield* applied.entries).toSorted(([a], [b]) => a - b), [[0, 1], [1, 1], [2, 2], [3, 1], [
      4,
      1
    ]])
  })))

it.effect("an event whose handler interrupts its own fiber has failed alone", () =>
  onMemory(Effect.gen(function*() {
    yield* Publisher.publishAll(Orders, [0, 1, 2, 3, 4].map((n) => ({ key: `key-${n}`, n })))
    const Apply = Consumer.exactlyOnce(Orders, ({ attempt, payload }) =>
      Effect.gen(function*() {
        yield* applied.set(payload.n, attempt)
        if (payload.n !== 2) return
        return yield* Effect.withFiber((fiber) => {
          fiber.interruptUnsafe()
          return Effect.never
        })
      }), { concurrency: 1, onFailure: { ...FailurePolicy.save(), retry: Schedule.recurs(2) } })
    yield* Layer.build(Consumer.layer("group", [Apply]))
    for (let i = 0; i < 10; i++) yield* pass(1_000)
    assert.deepStrictEqual((yield* applied.entries).toSorted(([a], [b]) => a - b), [[0, 1], [1, 1], [3, 1], [4, 1]])
    const letters = yield* (yield* Memory.MemoryBroker).records("orders.group.dead-letter")
    assert.strictEqual(letters.length, 1)
  })))

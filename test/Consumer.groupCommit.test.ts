/** Group commit in time: what waits while an event of a group backs off. The suite has the rest. */
import { assert, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Consumer from "../src/Consumer.ts"
import * as FailurePolicy from "../src/FailurePolicy.ts"
import * as Memory from "../src/Layers/Memory.ts"
import { Conflict, MessageStoreError } from "../src/MessageStore.ts"
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

it.effect("a group that lost a race is halved at once, and that is no attempt", () =>
  onMemory(Effect.gen(function*() {
    const runs: Array<number> = []
    const store = yield* Memory.MemoryStore
    const race = new Conflict({ operation: "commit", detail: "a deadlock", cause: undefined })
    yield* Publisher.publishAll(Orders, [0, 1, 2, 3, 4, 5, 6, 7, 8].map((n) => ({ key: `key-${n}`, n })))
    const Apply = Consumer.exactlyOnce(Orders, ({ attempt, payload }) =>
      Effect.gen(function*() {
        runs.push(payload.n)
        yield* applied.set(payload.n, attempt)
        // The first event goes alone. The group of the others loses twice: as a whole, and its first half.
        if (runs.length === 2) yield* Effect.andThen(store.failNextCommit(race), store.failNextCommit(race))
      }), { concurrency: 1 })
    yield* Layer.build(Consumer.layer("group", [Apply]))
    yield* settle
    const group = runs.slice(1, 9)
    assert.strictEqual(new Set(group).size, 8)
    assert.deepStrictEqual(runs.slice(9), [
      ...group.slice(0, 4),
      ...group.slice(0, 2),
      ...group.slice(2, 4),
      ...group.slice(4, 8)
    ])
    assert.deepStrictEqual(
      (yield* applied.entries).toSorted(([a], [b]) => a - b),
      [0, 1, 2, 3, 4, 5, 6, 7, 8].map((n) => [n, 1])
    )
  })))

it.effect("of a group that was halved, what follows of a failed event's key waits also in the other half", () =>
  onMemory(Effect.gen(function*() {
    const runs: Array<number> = []
    const store = yield* Memory.MemoryStore
    const race = new Conflict({ operation: "commit", detail: "a deadlock", cause: undefined })
    yield* Publisher.publishAll(Orders, [10, 11].map((n) => ({ key: `key-${n}`, n })))
    yield* Publisher.publishAll(Orders, [0, 1, 2, 3, 4, 5].map((n) => ({ key: "a", n })))
    const Apply = Consumer.exactlyOnce(Orders, ({ attempt, payload }) =>
      Effect.gen(function*() {
        runs.push(payload.n)
        yield* applied.set(payload.n, attempt)
        if (runs.length === 2) yield* store.failNextCommit(race)
        if (payload.n === 1 && attempt === 1 && runs.filter((n) => n === 1).length > 1) return yield* Effect.fail("no")
      }), { concurrency: 1, onFailure: { ...FailurePolicy.save(), retry: Schedule.spaced("1 minute") } })
    yield* Layer.build(Consumer.layer("group", [Apply]))
    yield* settle
    const fresh = (yield* applied.entries).map(([n]) => n).filter((n) => n < 10)
    assert.deepStrictEqual(fresh, [0])
    yield* pass("1 minute")
    assert.deepStrictEqual((yield* applied.entries).map(([n]) => n).filter((n) => n < 10), [0, 1, 2, 3, 4, 5])
  })))

it.effect("an event that loses races for ever has failed after ten", () =>
  onMemory(Effect.gen(function*() {
    let runs = 0
    yield* Publisher.publishAll(Orders, [{ key: "a", n: 0 }])
    const race = new MessageStoreError({
      reason: new Conflict({ operation: "write", detail: "a deadlock", cause: undefined })
    })
    const Apply = Consumer.exactlyOnce(Orders, () =>
      Effect.suspend(() => {
        runs++
        return Effect.fail(race)
      }), { onFailure: { ...FailurePolicy.save(), retry: Schedule.recurs(0) } })
    yield* Layer.build(Consumer.layer("group", [Apply]))
    for (let i = 0; i < 20; i++) yield* pass(1_000)
    assert.strictEqual(runs, 11)
    const letters = yield* (yield* Memory.MemoryBroker).records("orders.group.dead-letter")
    assert.deepStrictEqual(letters.map(({ headers }) => Buffer.from(headers.dl_attempts as Uint8Array).toString()), [
      "1"
    ])
  })))

// The back-off of an event was forgotten as soon as another one of its key stood in front of it.
it.effect("an event that backs off behind another of its key waits for its own time, too", () =>
  onMemory(Effect.gen(function*() {
    const runs: Array<string> = []
    // What else waits keeps the slot busy, so that those of "a" share a transaction.
    yield* Publisher.publishAll(Orders, [10, 11, 12].map((n) => ({ key: `key-${n}`, n })))
    yield* Publisher.publishAll(Orders, [0, 1, 2, 3].map((n) => ({ key: "a", n })))
    const failed = new Set<number>()
    const Apply = Consumer.exactlyOnce(Orders, ({ attempt, payload }) =>
      Effect.gen(function*() {
        const now = yield* Clock.currentTimeMillis
        runs.push(`${now / 1_000}: ${payload.n} #${attempt}`)
        // First 3 fails, for a minute; then 2, which runs again without it, for ten seconds.
        const fails = payload.n === 3 || payload.n === 2 && failed.has(3)
        if (!fails || failed.has(payload.n)) return
        failed.add(payload.n)
        return yield* Effect.fail(payload.n)
      }), {
      concurrency: 1,
      onFailure: {
        ...FailurePolicy.save(),
        retry: Schedule.addDelay(
          Schedule.forever,
          ({ input }) => Effect.succeed(input === 3 ? "60 seconds" : "10 seconds")
        )
      }
    })
    yield* Layer.build(Consumer.layer("group", [Apply]))
    yield* settle
    yield* pass(10_000)
    assert.include(runs, "10: 2 #2")
    yield* pass(49_000)
    assert.notInclude(runs.join(), "3 #2")
    yield* pass(1_000)
    assert.include(runs, "60: 3 #2")
  })))

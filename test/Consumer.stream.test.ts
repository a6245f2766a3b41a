/** The open form of a consumer: a stream of committable events, and its sink. */
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Broker } from "../src/Broker.ts"
import * as Consumer from "../src/Consumer.ts"
import * as Memory from "../src/Layers/Memory.ts"
import * as Publisher from "../src/Publisher.ts"
import * as Topic from "../src/Topic.ts"

const Orders = Topic.make("orders", { schema: Schema.Struct({ n: Schema.Number }), create: { partitions: 1 } })
const Raw = Topic.make("orders", { schema: Schema.Unknown })

const onMemory = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  effect.pipe(
    Consumer.inGroup("audit"),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provide(Memory.layer)
  )

const publish = (...numbers: ReadonlyArray<number>) =>
  Effect.gen(function*() {
    yield* (yield* Broker).ensureTopics([{ name: "orders", create: { partitions: 1 } }])
    yield* Publisher.publishAll(Orders, numbers.map((n) => ({ n })))
  })

const take = (count: number) => Stream.runCollect(Stream.take(Consumer.stream(Orders), count))

const numbers = (committables: ReadonlyArray<Consumer.Committable<{ readonly n: number }>>) =>
  committables.map(({ event }) => event.payload.n)

const committed = Effect.gen(function*() {
  return yield* (yield* Memory.MemoryBroker).committed("audit", { topic: "orders", partition: 0 })
})

it.effect("a stream gives the events of a partition in order, and what was not committed comes again", () =>
  onMemory(Effect.gen(function*() {
    yield* publish(1, 2, 3)
    assert.deepStrictEqual(numbers(yield* take(2)), [1, 2])
    assert.deepStrictEqual(numbers(yield* take(3)), [1, 2, 3])
  })))

it.effect("what flows into the sink is committed when the stream ends", () =>
  onMemory(Effect.gen(function*() {
    yield* publish(1, 2, 3)
    yield* Consumer.stream(Orders).pipe(Stream.take(2), Stream.run(Consumer.commit))
    assert.strictEqual(yield* committed, 2n)
    assert.deepStrictEqual(numbers(yield* take(1)), [3])
  })))

it.effect("committing out of order never passes an event that is not committed", () =>
  onMemory(Effect.gen(function*() {
    yield* publish(1, 2, 3)
    yield* Consumer.stream(Orders).pipe(
      Stream.tap((committable) => Effect.sync(() => committable.event.payload.n === 2 || committable.finish())),
      Stream.take(3),
      Stream.runDrain
    )
    assert.strictEqual(yield* committed, 1n)
    assert.deepStrictEqual(numbers(yield* take(2)), [2, 3])
  })))

it.effect("a record that does not decode goes to the dead-letter topic and not into the stream", () =>
  onMemory(Effect.gen(function*() {
    yield* publish(1)
    yield* Publisher.publish(Raw, "no order")
    yield* Publisher.publish(Orders, { n: 2 })
    const got = yield* Consumer.stream(Orders).pipe(
      Stream.tap((committable) => Effect.sync(committable.finish)),
      Stream.take(2),
      Stream.runCollect
    )
    assert.deepStrictEqual(numbers(got), [1, 2])
    assert.strictEqual(yield* committed, 3n)
    const letters = yield* (yield* Memory.MemoryBroker).records("orders.audit.dead-letter")
    assert.strictEqual(letters.length, 1)
  })))

it.effect("a topic that is consumed in the group already is refused", () =>
  onMemory(Effect.gen(function*() {
    yield* publish(1)
    const error = yield* Effect.flip(
      Stream.runDrain(Stream.flatMap(Stream.take(Consumer.stream(Orders), 1), () => Consumer.stream(Orders)))
    )
    assert.strictEqual(error.reason._tag, "DuplicateHandler")
  })))

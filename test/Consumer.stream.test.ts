/** The open form of a consumer: a stream of committable events, and its sink. */
import { assert, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import { Broker, BrokerError, NotAllowed } from "../src/Broker.ts"
import * as Consumer from "../src/Consumer.ts"
import * as ConsumerGroup from "../src/ConsumerGroup.ts"
import * as Memory from "../src/Layers/Memory.ts"
import * as Publisher from "../src/Publisher.ts"
import * as Topic from "../src/Topic.ts"
import { pass, settle } from "./support/scriptedFeed.ts"

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

it.effect("while the letter of a record that does not decode cannot be written, the stream goes on, and nothing is committed beyond it", () =>
  onMemory(Effect.gen(function*() {
    yield* publish(1)
    yield* Publisher.publish(Raw, "no order")
    yield* Publisher.publish(Orders, { n: 2 })
    const broker = yield* Broker
    let denied = true
    const withoutLetters = Broker.of({
      ...broker,
      producer: Effect.map(broker.producer, (producer) => ({
        ...producer,
        send: (options) =>
          denied && options.topic.endsWith("dead-letter")
            ? Effect.fail(
              new BrokerError({ reason: new NotAllowed({ right: "Write", topic: options.topic, cause: undefined }) })
            )
            : producer.send(options)
      }))
    })
    const letters = Effect.flatMap(Memory.MemoryBroker, (memory) => memory.records("orders.audit.dead-letter"))
    const seen: Array<number> = []
    const fiber = yield* Consumer.stream(Orders).pipe(
      Stream.tap(({ event, finish }) =>
        Effect.sync(() => {
          seen.push(event.payload.n)
          finish()
        })
      ),
      Stream.runDrain,
      Effect.provideService(Broker, withoutLetters),
      Effect.forkChild
    )
    yield* pass("1 minute")
    assert.deepStrictEqual(seen, [1, 2])
    assert.strictEqual(yield* committed, 1n)
    assert.strictEqual((yield* letters).length, 0)
    denied = false
    yield* pass("1 minute")
    assert.strictEqual((yield* letters).length, 1)
    assert.strictEqual(yield* committed, 3n)
    yield* Fiber.interrupt(fiber)
  })))

it.effect("a topic that is consumed in the group already is refused", () =>
  onMemory(Effect.gen(function*() {
    yield* publish(1)
    const error = yield* Effect.flip(
      Stream.runDrain(Stream.flatMap(Stream.take(Consumer.stream(Orders), 1), () => Consumer.stream(Orders)))
    )
    assert.strictEqual(error.reason._tag, "DuplicateHandler")
  })))

// --- by itself ---

const auto = Consumer.stream(Orders, { ack: "auto" })

it.effect("`auto` gives plain events, which are done once the next are asked for", () =>
  onMemory(Effect.gen(function*() {
    yield* publish(1, 2)
    const seen: Array<number> = []
    const hung = Deferred.makeUnsafe<void>()
    const fiber = yield* Effect.forkChild(
      Stream.runForEach(auto, ({ payload }) =>
        Effect.suspend(() => {
          seen.push(payload.n)
          return payload.n === 3 ? Deferred.await(hung) : Effect.void
        }))
    )
    yield* settle
    yield* publish(3, 4)
    yield* pass("2 seconds")
    assert.deepStrictEqual(seen, [1, 2, 3])
    // The first two are done, for more was asked for; 3 is in work and 4 came with it.
    assert.strictEqual(yield* committed, 2n)
    yield* Fiber.interrupt(fiber)
    assert.strictEqual(yield* committed, 2n)
    assert.deepStrictEqual(numbers(yield* take(2)), [3, 4])
  })))

it.effect("`auto` commits what was done when the work of an event fails, and that event comes again", () =>
  onMemory(Effect.gen(function*() {
    yield* publish(1)
    const work = (n: number): Effect.Effect<void, unknown, Broker> => n === 1 ? publish(2) : Effect.fail("no")
    const error = yield* Effect.flip(Stream.runForEach(auto, ({ payload }) => work(payload.n)))
    assert.strictEqual(error, "no")
    assert.strictEqual(yield* committed, 1n)
    assert.deepStrictEqual(numbers(yield* take(1)), [2])
  })))

// --- concurrency ---

const upTo = (count: number) => Array.from({ length: count }, (_, n) => n)

it.effect("interrupting a pipeline commits what was finished by then, and nothing else", () =>
  onMemory(Effect.gen(function*() {
    yield* publish(...upTo(10))
    const fiber = yield* Effect.forkChild(
      Consumer.stream(Orders).pipe(
        Stream.mapEffect((one) => Effect.as(one.event.payload.n === 6 ? Effect.never : Effect.void, one), {
          concurrency: 16,
          unordered: true
        }),
        Stream.run(Consumer.commit)
      )
    )
    yield* settle
    yield* Fiber.interrupt(fiber)
    assert.strictEqual(yield* committed, 6n)
    assert.deepStrictEqual(numbers(yield* take(4)), [6, 7, 8, 9])
  })))

it.effect(
  "events that are committed in random order never take the position past one that is not",
  () =>
    Effect.promise(() =>
      fc.assert(
        fc.asyncProperty(
          fc.integer({ min: 1, max: 24 }).chain((count) => fc.shuffledSubarray(upTo(count), { minLength: count })),
          fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1, maxLength: 4 }),
          (order, steps) =>
            Effect.runPromise(
              onMemory(Effect.gen(function*() {
                yield* publish(...upTo(order.length))
                const all: Array<Consumer.Committable<{ readonly n: number }>> = []
                yield* Effect.forkScoped(
                  Stream.runForEach(Consumer.stream(Orders), (one) => Effect.sync(() => void all.push(one)))
                )
                yield* settle
                assert.strictEqual(all.length, order.length)
                const done = new Set<number>()
                for (let at = 0, step = 0; at < order.length; step++) {
                  for (const n of order.slice(at, at += steps[step % steps.length]!)) {
                    // The second sink call, and the second finish, are harmless.
                    yield* Stream.run(Stream.make(all[n]!, all[n]!), Consumer.commit)
                    done.add(n)
                  }
                  yield* pass("2 seconds")
                  const first = upTo(order.length).find((n) => !done.has(n)) ?? order.length
                  assert.strictEqual((yield* committed) ?? 0n, BigInt(first))
                }
              })).pipe(Effect.scoped, Effect.provide(TestClock.layer()))
            )
        ),
        { numRuns: 50 }
      )
    ),
  30_000
)

it.effect("a pipeline that stands still holds no more than the documented prefetch, and goes on when it moves", () =>
  onMemory(Effect.gen(function*() {
    const count = 9_000
    yield* publish(...upTo(count))
    const gate = Deferred.makeUnsafe<void>()
    let seen = 0
    const fiber = yield* Effect.forkChild(
      Consumer.stream(Orders).pipe(
        Stream.groupedWithin(50, "1 second"),
        Stream.mapEffect((batch) => Effect.as(Deferred.await(gate), batch), { concurrency: 4 }),
        Stream.flattenIterable,
        Stream.tap(() => Effect.sync(() => void seen++)),
        Stream.take(count),
        Stream.run(Consumer.commit)
      )
    )
    yield* pass("1 minute")
    const partition = (yield* ConsumerGroup.status("audit"))[0]!.partitions[0]!
    assert.strictEqual(partition.paused, "prefetch")
    // A chunk of the in-memory broker has up to 500 records.
    assert.isAtLeast(partition.buffered, 2_048)
    assert.isBelow(partition.buffered, 2_048 + 500)
    assert.strictEqual(seen, 0)
    yield* Deferred.succeed(gate, undefined)
    yield* Effect.forkChild(Effect.forever(pass("1 second")))
    yield* Fiber.join(fiber)
    assert.strictEqual(seen, count)
    assert.strictEqual(yield* committed, BigInt(count))
  })))

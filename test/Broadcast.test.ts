/** Broadcast subscriptions on a broker that a test plays: what is read, decoded, said, and let go of. */
import { assert, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Broadcast from "../src/Broadcast.ts"
import { Broker, BrokerError, type ConsumerRecord, type Signal, UnknownTopic } from "../src/Broker.ts"
import * as Health from "../src/Health.ts"
import * as Hubs from "../src/internal/broadcast/hubs.ts"
import * as Topic from "../src/Topic.ts"
import { pass, record, records, settle } from "./support/scriptedFeed.ts"

const gone = new BrokerError({ reason: new UnknownTopic({ topic: "orders" }) })

/** A broker whose tails a test feeds and breaks; nothing else of it is used. */
const play = Effect.gen(function*() {
  const tails = new Set<{
    readonly onSignal: (signal: Signal) => Effect.Effect<void>
    readonly failed: Deferred.Deferred<never, BrokerError>
  }>()
  const script: { start: Effect.Effect<void, BrokerError>; starts: number } = { start: Effect.void, starts: 0 }
  const broker = Broker.of({
    source: "test",
    address: "test",
    scope: yield* Effect.scope,
    ensureTopics: () => Effect.void,
    describe: () => Effect.die("unused"),
    mayWrite: () => Effect.die("unused"),
    read: () => Stream.die("unused"),
    producer: Effect.die("unused"),
    subscribe: () => Effect.die("unused"),
    tail: ({ onSignal }) =>
      Effect.gen(function*() {
        script.starts++
        const tail = { onSignal, failed: Deferred.makeUnsafe<never, BrokerError>() }
        yield* Effect.acquireRelease(Effect.sync(() => tails.add(tail)), () => Effect.sync(() => tails.delete(tail)))
        yield* script.start
        return { pause: () => Effect.void, resume: () => Effect.void, failed: Deferred.await(tail.failed) }
      })
  })
  return {
    broker,
    script,
    open: () => tails.size,
    deliver: (all: ReadonlyArray<ConsumerRecord>) =>
      Effect.forEach(tails, ({ onSignal }) =>
        onSignal({
          _tag: "Records",
          assignment: { topic: "orders", partition: 0, epoch: 1 },
          records: all,
          nextOffset: (all.at(-1)?.offset ?? -1n) + 1n
        }), { discard: true }),
    fail: Effect.suspend(() => Effect.forEach(tails, ({ failed }) => Deferred.fail(failed, gone), { discard: true }))
  }
})

type Play = Effect.Success<typeof play>

const Orders = Topic.make("orders", { schema: Schema.Struct({ n: Schema.Number }) })

/** Log lines at Warn and above. */
const lines: Array<string> = []
const logger = Logger.make(({ logLevel, message }) => {
  if (logLevel === "Warn" || logLevel === "Error") lines.push(`${logLevel} ${String(message)}`)
})

const onPlay = <A, E>(body: (play: Play) => Effect.Effect<A, E, Broker | Scope.Scope>) =>
  Effect.gen(function*() {
    lines.length = 0
    const played = yield* play
    return yield* Effect.provideService(body(played), Broker, played.broker)
  }).pipe(
    Effect.scoped,
    Effect.provideService(Health.Parts, new Map()),
    Effect.provide(Logger.layer([logger]))
  )

const numbers = <E>(subscription: Broadcast.Subscription<{ readonly n: number }, E>, count: number) =>
  Effect.map(Stream.runCollect(Stream.take(subscription, count)), (all) => all.map(({ payload }) => payload.n))

/** A subscription of which only the presence matters. */
const join = (options?: Broadcast.Options<{ readonly n: number }>) =>
  Effect.asVoid(Broadcast.subscribe(Orders, options))

const listeners = (broker: Broker["Service"]) =>
  Effect.scoped(Effect.map(Hubs.hub(broker, "orders"), (hub) => hub.size()))

it.effect("subscriptions share one reader, which ends a minute after the last has left", () =>
  onPlay(({ broker, open, script }) =>
    Effect.gen(function*() {
      const one = yield* Scope.make()
      const two = yield* Scope.make()
      yield* Scope.provide(join(), one)
      yield* Scope.provide(join({ key: "a" }), two)
      assert.strictEqual(yield* listeners(broker), 2)
      yield* Scope.close(one, Exit.void)
      yield* pass("2 minutes")
      assert.strictEqual(yield* listeners(broker), 1)
      yield* Scope.close(two, Exit.void)
      assert.strictEqual(yield* listeners(broker), 0)
      yield* pass("59 seconds")
      yield* Effect.scoped(join())
      yield* pass("59 seconds")
      assert.deepStrictEqual([script.starts, open()], [1, 1])
      yield* pass("1 second")
      assert.deepStrictEqual([script.starts, open()], [1, 0])
      yield* join()
      assert.deepStrictEqual([script.starts, open()], [2, 1])
    })
  ))

it.effect("the reader ends with the broker's Layer, and with it the streams", () =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const { broker, open } = yield* Scope.provide(play, scope)
    const subscription = yield* Effect.provideService(Broadcast.subscribe(Orders), Broker, broker)
    const running = yield* Effect.forkChild(Stream.runCollect(subscription))
    yield* settle
    yield* Scope.close(scope, Exit.void)
    assert.deepStrictEqual(yield* Fiber.join(running), [])
    assert.strictEqual(open(), 0)
  }).pipe(Effect.scoped, Effect.provide(Logger.layer([logger]))))

it.effect("a subscriber that is interrupted leaves nothing: before the start, and while its stream runs", () =>
  onPlay(({ broker, deliver, open, script }) =>
    Effect.gen(function*() {
      script.start = Effect.never
      const starting = yield* Effect.forkChild(Effect.scoped(Broadcast.subscribe(Orders)))
      yield* settle
      yield* Fiber.interrupt(starting)
      assert.strictEqual(yield* listeners(broker), 0)
      yield* pass("1 minute")
      assert.strictEqual(open(), 0)
      script.start = Effect.void
      const running = yield* Effect.forkChild(
        Stream.runDrain(Stream.unwrap(Broadcast.subscribe(Orders, { key: "a" })))
      )
      yield* settle
      yield* deliver(records("a", "b"))
      assert.strictEqual(yield* listeners(broker), 1)
      yield* Fiber.interrupt(running)
      assert.strictEqual(yield* listeners(broker), 0)
      yield* pass("1 minute")
      assert.strictEqual(open(), 0)
    })
  ))

it.effect("a record is decoded once, for all who want it, and not at all if nobody does", () =>
  onPlay(({ deliver }) =>
    Effect.gen(function*() {
      let decoded = 0
      const counting = Schema.Number.pipe(Schema.decodeTo(Schema.Number, {
        decode: SchemaGetter.transform((n: number) => {
          decoded++
          return n
        }),
        encode: SchemaGetter.passthrough()
      }))
      const schema = Schema.Struct({ n: counting })
      const one = yield* Broadcast.subscribe(Topic.make("orders", { schema }), { key: "a" })
      const two = yield* Broadcast.subscribe(Topic.make("orders", { schema }), { key: "a" })
      yield* deliver(records("a", "b", null, "c"))
      assert.strictEqual(decoded, 1)
      const [first] = yield* Stream.runCollect(Stream.take(one, 1))
      const [second] = yield* Stream.runCollect(Stream.take(two, 1))
      assert.strictEqual(first, second)
    })
  ))

it.effect("10,000 subscriptions with keys: an event is shown to those of its key only", () =>
  onPlay(({ deliver }) =>
    Effect.gen(function*() {
      let calls = 0
      const filter = () => {
        calls++
        return true
      }
      const all = yield* Effect.forEach(
        Array.from({ length: 10_000 }, (_, i) => `key-${i % 5_000}`),
        (key) => Broadcast.subscribe(Orders, { key, filter, buffer: 4 })
      )
      yield* deliver(records("key-7", "key-7", "key-8", "nobody", null))
      assert.strictEqual(calls, 6)
      const waiting = yield* Effect.forEach(all, ({ status }) => status)
      assert.deepStrictEqual(waiting.flatMap((status, i) => status.waiting > 0 ? [[i, status.waiting]] : []), [
        [7, 2],
        [8, 1],
        [5_007, 2],
        [5_008, 1]
      ])
    })
  ))

it.effect("a reader that fails starts again after 1 s, doubling to 30, and Health says so; subscriptions go on", () =>
  onPlay(({ deliver, fail, script }) =>
    Effect.gen(function*() {
      const subscription = yield* Broadcast.subscribe(Orders)
      const summary = Effect.map(Health.check, (parts) => parts.map(({ kind, name, state }) => [kind, name, state]))
      assert.deepStrictEqual(yield* summary, [["broadcast", "orders", "Running"]])
      yield* deliver(records("a"))
      script.start = Effect.fail(gone)
      yield* fail
      yield* settle
      assert.deepStrictEqual(yield* summary, [["broadcast", "orders", "Failing"]])
      const startsAt: Array<number> = []
      for (let second = 1; second <= 95; second++) {
        const before = script.starts
        yield* pass("1 second")
        if (script.starts > before) startsAt.push(second)
      }
      assert.deepStrictEqual(startsAt, [1, 3, 7, 15, 31, 61, 91])
      script.start = Effect.void
      yield* pass("30 seconds")
      assert.deepStrictEqual(yield* summary, [["broadcast", "orders", "Running"]])
      yield* deliver([record(5, "a")])
      assert.deepStrictEqual(yield* numbers(subscription, 2), [0, 5])
      assert.strictEqual((yield* subscription.status).restarts, 8)
      assert.isTrue(lines.every((line) => line.startsWith("Error Reading for broadcast subscriptions failed")))
    })
  ))

it.effect("who subscribes while the reader waits does not wait for it: it is tried at once, and the answer is theirs", () =>
  onPlay(({ deliver, fail, script }) =>
    Effect.gen(function*() {
      const early = yield* Broadcast.subscribe(Orders)
      script.start = Effect.fail(gone)
      yield* fail
      yield* settle
      const error = yield* Effect.flip(Broadcast.subscribe(Orders))
      assert.strictEqual(error.reason._tag, "BrokerError")
      script.start = Effect.void
      const late = yield* Broadcast.subscribe(Orders)
      yield* deliver(records("a"))
      assert.deepStrictEqual(yield* numbers(early, 1), [0])
      assert.deepStrictEqual(yield* numbers(late, 1), [0])
    })
  ))

it.effect("a start that fails is told to who waits for it, and is not tried again until somebody asks", () =>
  onPlay(({ script }) =>
    Effect.gen(function*() {
      script.start = Effect.fail(gone)
      const error = yield* Effect.flip(Broadcast.subscribe(Orders))
      assert.strictEqual(error.message, gone.message)
      yield* pass("50 seconds")
      assert.strictEqual(script.starts, 1)
      assert.deepStrictEqual(yield* Health.check, [])
      script.start = Effect.void
      yield* join()
      assert.strictEqual(script.starts, 2)
    })
  ))

it.effect("a defect of the broker is a failure like another, not the silent end of all subscriptions", () =>
  onPlay(({ script }) =>
    Effect.gen(function*() {
      script.start = Effect.die(new Error("what?"))
      const error = yield* Effect.flip(Broadcast.subscribe(Orders))
      assert.include(error.message, "what?")
    })
  ))

it.effect("slow subscriptions are told of when the first begins to lose and when the last keeps up, not per event", () =>
  onPlay(({ deliver }) =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const slow = yield* Broadcast.subscribe(Orders, { buffer: 4 })
      yield* Scope.provide(join({ buffer: 4 }), scope)
      yield* deliver(records(...Array.from({ length: 200 }, () => "a")))
      assert.deepStrictEqual(lines, ["Warn A broadcast subscriber is too slow and loses events"])
      yield* numbers(slow, 4)
      yield* deliver([record(300, "a")])
      yield* Scope.close(scope, Exit.void)
      yield* deliver(records(...Array.from({ length: 200 }, () => "a")))
      assert.strictEqual(lines.length, 2)
    })
  ))

it.effect("records that do not decode are told of at once, and then once a minute with their number", () =>
  onPlay(({ deliver }) =>
    Effect.gen(function*() {
      const bad = record(1, "a", { value: Buffer.from("{") })
      const subscription = yield* Broadcast.subscribe(Orders)
      yield* deliver([bad, bad, bad])
      yield* deliver([bad])
      assert.strictEqual(lines.length, 1)
      yield* pass("1 minute")
      yield* deliver([bad])
      assert.strictEqual(lines.length, 2)
      assert.include(lines[0], "A record does not decode")
      assert.strictEqual((yield* subscription.status).undecodable, 5)
    })
  ))

it.effect("decoding uses the services of a subscription that is still there", () =>
  onPlay(({ deliver }) =>
    Effect.gen(function*() {
      class Factor extends Context.Service<Factor, { readonly factor: Effect.Effect<number> }>()("test/Factor") {}
      const times = Schema.Number.pipe(Schema.decodeTo(Schema.Number, {
        decode: SchemaGetter.transformEffect((n: number) =>
          Factor.use(({ factor }) => Effect.map(factor, (factor) => n * factor))
        ),
        encode: SchemaGetter.passthrough()
      }))
      const topic = Topic.make("orders", { schema: Schema.Struct({ n: times }) })
      const first = yield* Scope.make()
      let closed = false
      const of = (factor: Effect.Effect<number>) =>
        Effect.provideService(Broadcast.subscribe(topic), Factor, { factor })
      yield* Scope.provide(
        Effect.asVoid(of(Effect.suspend(() => closed ? Effect.die("closed") : Effect.succeed(10)))),
        first
      )
      const second = yield* of(Effect.succeed(100))
      yield* deliver([record(1, "a")])
      yield* Scope.close(first, Exit.void)
      closed = true
      yield* deliver([record(2, "a")])
      assert.deepStrictEqual(yield* numbers(second, 2), [10, 200])
    })
  ))

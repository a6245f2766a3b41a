/** The front of consumers: what is refused and how it says so, defaults, groups, and when a Layer is built. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import { Broker } from "../src/Broker.ts"
import * as Consumer from "../src/Consumer.ts"
import * as FailurePolicy from "../src/FailurePolicy.ts"
import { header } from "../src/internal/wire/envelope.ts"
import * as Memory from "../src/Layers/Memory.ts"
import * as Publisher from "../src/Publisher.ts"
import * as Topic from "../src/Topic.ts"
import { pass, settle } from "./support/scriptedFeed.ts"

const Item = Schema.Struct({ key: Schema.String, n: Schema.Number })

const topicNamed = (name: string) => Topic.make(name, { schema: Item, key: (item) => item.key })

const Orders = topicNamed("orders")

const nothing = () => Effect.void

const quiet = Effect.provideService(References.MinimumLogLevel, "None")

/** Why consumers do not start in a group. */
const refusal = (consumers: ReadonlyArray<Consumer.Consumer<Broker | Consumer.ConsumerGroup>>, group = "group") =>
  Consumer.all(consumers).pipe(
    Consumer.inGroup(group),
    Effect.flip,
    Effect.map(({ message, reason }) => ({
      tag: reason._tag,
      message
    }))
  )

const publish = (topic: Topic.Topic<typeof Item>, ...numbers: ReadonlyArray<number>) =>
  Publisher.publishAll(topic, numbers.map((n) => ({ key: `k${n}`, n })))

/** A handler that keeps the numbers that it has seen. */
const makeSeeing = () => {
  const seen: Array<number> = []
  return {
    seen,
    see: (event: { readonly payload: typeof Item.Type }) => Effect.sync(() => void seen.push(event.payload.n))
  }
}

const running = <E, R>(consumer: Effect.Effect<never, E, R>) => Effect.tap(Effect.forkChild(quiet(consumer)), settle)

describe("what is refused when consumers start", () => {
  const refused = (
    name: string,
    consumers: () => ReadonlyArray<Consumer.Consumer<Broker | Consumer.ConsumerGroup>>,
    tag: string,
    message: string,
    group?: string
  ) =>
    it.effect(name, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* refusal(consumers(), group), { tag, message })
      }).pipe(Effect.provide(Memory.layer)))

  const one = (options: Consumer.Options<never>) => () => [Consumer.idempotent(Orders, nothing, options)]
  const batch = (batch: { readonly maxSize?: number; readonly maxBytes?: number }) => () => [
    Consumer.idempotentBatch(Orders, nothing, { batch })
  ]

  refused(
    "two handlers of one topic without names",
    () => [Consumer.idempotent(Orders, nothing), Consumer.idempotent(Orders, nothing)],
    "DuplicateHandler",
    `Two handlers of group "group" read "orders" without a name. Pass { name } to each.`
  )
  refused(
    "two handlers of one topic with one name",
    () => [
      Consumer.idempotent(Orders, nothing, { name: "a" }),
      Consumer.idempotentBatch(Orders, nothing, { name: "a" })
    ],
    "DuplicateHandler",
    `Two handlers of group "group" read "orders" under the name "a". Pass a { name } of its own to one.`
  )
  refused(
    "a name that is the other's default",
    () => [Consumer.idempotent(Orders, nothing), Consumer.idempotent(Orders, nothing, { name: "orders" })],
    "DuplicateHandler",
    `Two handlers of group "group" read "orders" under the name "orders". Pass a { name } of its own to one.`
  )
  refused(
    "an empty name of a handler",
    one({ name: "" }),
    "InvalidName",
    `A consumer of "orders" has an empty name. Pass { name } or leave it out.`
  )
  refused(
    "a topic whose name is illegal",
    () => [Consumer.idempotent(topicNamed("my orders"), nothing)],
    "InvalidName",
    `"my orders" cannot name a topic: only letters, digits, '.', '_' and '-' are allowed. Change the name in Topic.make.`
  )
  refused(
    "a broadcast topic whose name is illegal",
    () => [Consumer.broadcast(topicNamed(""), nothing)],
    "InvalidName",
    `"" cannot name a topic: it is empty. Change the name in Topic.make.`
  )
  refused(
    "a group whose name is illegal",
    one({}),
    "InvalidName",
    `"my group" cannot name a consumer group: only letters, digits, '.', '_' and '-' are allowed. ` +
      `It becomes part of dead-letter topic names.`,
    "my group"
  )
  refused(
    "an empty group",
    one({}),
    "InvalidName",
    `"" cannot name a consumer group: it is empty. It becomes part of dead-letter topic names.`,
    ""
  )
  refused(
    "names that are too long together for a dead-letter topic",
    () => [Consumer.idempotent(topicNamed("t".repeat(200)), nothing)],
    "InvalidName",
    `The dead-letter topic "${"t".repeat(200)}.${"g".repeat(100)}.dead-letter" cannot exist: ` +
      `it has 313 characters, 249 are allowed. Shorten the topic's or the group's name.`,
    "g".repeat(100)
  )
  for (const concurrency of [0, -1, 1.5, NaN, Infinity, 10_001]) {
    refused(
      `a concurrency of ${concurrency}`,
      one({ concurrency }),
      "InvalidOption",
      `Consumer "orders": concurrency is ${concurrency}; use a whole number from 1 to 10000, or a Semaphore.`
    )
  }
  refused(
    "a batch of no events",
    batch({ maxSize: 0 }),
    "InvalidOption",
    `Consumer "orders": batch.maxSize is 0; use a whole number from 1 to 10,000.`
  )
  refused(
    "a batch of no bytes",
    batch({ maxBytes: 0 }),
    "InvalidOption",
    `Consumer "orders": batch.maxBytes is 0; use a whole number of bytes.`
  )
  refused(
    "a broadcast consumer that saves dead letters",
    () => [Consumer.broadcast(Orders, nothing, { onFailure: FailurePolicy.save() })],
    "InvalidOption",
    `Consumer "orders": a broadcast consumer belongs to no group and has no dead-letter topic; ` +
      `use FailurePolicy.discard() or block().`
  )

  it.effect("a topic that two consumers of one process read in one group, until the first has stopped", () =>
    Effect.gen(function*() {
      const consumer = Consumer.idempotent(Orders, nothing, { name: "first" })
      const first = yield* running(consumer.pipe(Consumer.inGroup("group")))
      const second = Consumer.idempotent(Orders, nothing, { name: "second" })
      assert.deepStrictEqual(yield* refusal([second]), {
        tag: "DuplicateHandler",
        message: `"orders" is consumed in group "group" by this process already, so each would see a part of it. ` +
          `Give both consumers to one Consumer.layer or Consumer.all.`
      })
      const elsewhere = yield* running(second.pipe(Consumer.inGroup("another")))
      assert.isUndefined(elsewhere.pollUnsafe(), "another group is no conflict")
      yield* Fiber.interrupt(first)
      const again = yield* running(second.pipe(Consumer.inGroup("group")))
      assert.isUndefined(again.pollUnsafe())
      yield* Fiber.interruptAll([elsewhere, again])
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("a topic that does not exist, by its name", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* refusal([Consumer.idempotent(Orders, nothing)]), {
        tag: "BrokerError",
        message: `Topic "orders" does not exist. Create it, or pass { create: {} } to Topic.make.`
      })
    }).pipe(Effect.provide(Memory.layerBrokerWith({ autoCreate: false }))))

  it.effect("by a Layer fails its build with the same error", () =>
    Effect.gen(function*() {
      const layer = Consumer.layer("group", [
        Consumer.idempotent(Orders, nothing),
        Consumer.idempotent(Orders, nothing)
      ])
      const error = yield* Effect.flip(Layer.build(layer))
      assert.strictEqual(error.reason._tag, "DuplicateHandler")
    }).pipe(Effect.provide(Memory.layer)))
})

describe("constructors", () => {
  it("never throw, whatever they are given", () => {
    const wrong = {
      name: "",
      concurrency: -1,
      batch: { maxSize: NaN, maxBytes: -1 },
      onFailure: FailurePolicy.save()
    }
    for (const name of ["", "a b", "x".repeat(1_000)]) {
      const topic = topicNamed(name)
      for (const options of [undefined, {}, wrong]) {
        for (
          const consumer of [
            Consumer.idempotent(topic, nothing, options),
            Consumer.idempotentBatch(topic, nothing, options),
            Consumer.exactlyOnce(topic, nothing, options),
            Consumer.exactlyOnceBatch(topic, nothing, options),
            Consumer.broadcast(topic, nothing, options),
            Consumer.broadcastBatch(topic, nothing, options)
          ]
        ) {
          assert.strictEqual(consumer.topic, name)
          assert.isTrue(Effect.isEffect(Consumer.all([consumer])))
          assert.isTrue(Layer.isLayer(Consumer.layer(name, [consumer])))
        }
      }
      assert.isTrue(Stream.isStream(Consumer.stream(topic, { name: "" })))
    }
    assert.isTrue(Effect.isEffect(Consumer.all([])))
  })

  it("name a consumer after its topic unless it has a name", () => {
    assert.strictEqual(Consumer.idempotent(Orders, nothing).name, "orders")
    assert.strictEqual(Consumer.idempotent(Orders, nothing).topic, "orders")
    assert.strictEqual(Consumer.exactlyOnce(Orders, nothing, { name: "bill" }).name, "bill")
  })
})

describe("with two arguments", () => {
  /** How many handlers run at once when enough is there to run. */
  const most = (define: (handler: () => Effect.Effect<void>) => Consumer.Consumer<Broker | Consumer.ConsumerGroup>) =>
    Effect.gen(function*() {
      let now = 0
      let most = 0
      const consumer = define(() =>
        Effect.ensuring(
          Effect.andThen(Effect.sync(() => most = Math.max(most, ++now)), Effect.sleep(10)),
          Effect.sync(() => now--)
        )
      )
      yield* publish(Orders, ...Array.from({ length: 300 }, (_, n) => n))
      const fiber = yield* running(consumer.pipe(Consumer.inGroup("group")))
      yield* pass(10_000)
      yield* Fiber.interrupt(fiber)
      return most
    }).pipe(Effect.provide(Layer.fresh(Memory.layer)))

  it.effect("sixteen handlers of single events run at once, and three of batches", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* most((handler) => Consumer.idempotent(Orders, handler)), 16)
      assert.strictEqual(yield* most((handler) => Consumer.idempotentBatch(Orders, handler)), 3)
    }))

  it.effect("events of one key run one after another", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const consumer = Consumer.idempotent(Orders, ({ payload }) =>
        Effect.sync(() =>
          log.push(`start ${payload.n}`)
        ).pipe(
          Effect.andThen(Effect.sleep(10)),
          Effect.andThen(Effect.sync(() => log.push(`done ${payload.n}`)))
        ))
      yield* Publisher.publishAll(Orders, [{ key: "a", n: 0 }, { key: "a", n: 1 }])
      yield* running(consumer.pipe(Consumer.inGroup("group")))
      yield* pass(100)
      assert.deepStrictEqual(log, ["start 0", "done 0", "start 1", "done 1"])
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("what exhausts its ten attempts goes to the dead-letter topic under the topic's name", () =>
    Effect.gen(function*() {
      let attempts = 0
      const consumer = Consumer.idempotent(Orders, () => Effect.fail(`attempt ${++attempts}`))
      yield* publish(Orders, 1)
      yield* running(consumer.pipe(Consumer.inGroup("group")))
      yield* pass("10 minutes")
      assert.strictEqual(attempts, 10)
      const letters = yield* Memory.MemoryBroker.use((broker) => broker.records("orders.group.dead-letter"))
      const said = (name: string) => letters.map(({ headers }) => header(headers, name))
      assert.deepStrictEqual([said("dl_handler"), said("dl_attempts")], [["orders"], ["10"]])
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("a broadcast consumer discards what fails for good", () =>
    Effect.gen(function*() {
      const { see, seen } = makeSeeing()
      const consumer = Consumer.broadcast(Orders, (event) => event.payload.n === 1 ? Effect.fail("no") : see(event))
      yield* running(consumer)
      yield* publish(Orders, 1, 2)
      yield* pass("10 minutes")
      assert.deepStrictEqual(seen, [2])
      const letters = yield* Memory.MemoryBroker.use((broker) => broker.records("orders..dead-letter"))
      assert.deepStrictEqual(letters, [])
    }).pipe(Effect.provide(Memory.layer)))
})

describe("a consumer", () => {
  it.effect("is an Effect that consumes in the group that inGroup names, until it is interrupted", () =>
    Effect.gen(function*() {
      const { see, seen } = makeSeeing()
      const fiber = yield* running(
        Effect.gen(function*() {
          return yield* Consumer.idempotent(Orders, see)
        }).pipe(Consumer.inGroup("audit"))
      )
      yield* publish(Orders, 1)
      yield* settle
      assert.deepStrictEqual(seen, [1])
      const { partition } = yield* Publisher.publish(Orders, { key: "k2", n: 2 })
      yield* settle
      yield* Fiber.interrupt(fiber)
      yield* publish(Orders, 3)
      yield* pass(1_000)
      assert.deepStrictEqual(seen, [1, 2])
      const committed = yield* Memory.MemoryBroker.use((broker) =>
        broker.committed("audit", { topic: "orders", partition })
      )
      assert.isAtLeast(Number(committed), 1)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("that was interrupted goes on where it stopped, each event once", () =>
    Effect.gen(function*() {
      const { see, seen } = makeSeeing()
      const consumer = Consumer.idempotent(Orders, see).pipe(Consumer.inGroup("audit"))
      for (const n of [1, 2, 3]) {
        yield* publish(Orders, n)
        const fiber = yield* running(consumer)
        yield* Fiber.interrupt(fiber)
      }
      assert.deepStrictEqual(seen, [1, 2, 3])
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("joined with others by Consumer.all sees each event, as do the others", () =>
    Effect.gen(function*() {
      const [bill, ship] = [makeSeeing(), makeSeeing()]
      yield* running(
        Consumer.all([
          Consumer.idempotent(Orders, bill.see, { name: "bill" }),
          Consumer.idempotent(Orders, ship.see, { name: "ship" })
        ]).pipe(Consumer.inGroup("back-office"))
      )
      yield* publish(Orders, ...Array.from({ length: 50 }, (_, n) => n))
      yield* settle
      const all = Array.from({ length: 50 }, (_, n) => n)
      assert.sameMembers(bill.seen, all)
      assert.sameMembers(ship.seen, all)
      assert.strictEqual(bill.seen.length + ship.seen.length, 100)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("that broadcasts needs no group, and sees what is published after it started, beside others", () =>
    Effect.gen(function*() {
      const [one, two] = [makeSeeing(), makeSeeing()]
      yield* publish(Orders, 1)
      yield* running(Consumer.broadcast(Orders, one.see))
      yield* running(Consumer.broadcast(Orders, two.see))
      yield* publish(Orders, 2)
      yield* settle
      assert.deepStrictEqual([one.seen, two.seen], [[2], [2]])
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("may share a Semaphore with others, which may be resized", () =>
    Effect.gen(function*() {
      const slots = Semaphore.makeUnsafe(1)
      let now = 0
      let most = 0
      const handler = () =>
        Effect.ensuring(
          Effect.andThen(Effect.sync(() => most = Math.max(most, ++now)), Effect.sleep(10)),
          Effect.sync(() => now--)
        )
      yield* publish(Orders, ...Array.from({ length: 40 }, (_, n) => n))
      yield* running(
        Consumer.all([
          Consumer.idempotent(Orders, handler, { name: "a", concurrency: slots }),
          Consumer.idempotent(Orders, handler, { name: "b", concurrency: slots })
        ]).pipe(Consumer.inGroup("group"))
      )
      yield* pass(50)
      assert.strictEqual(most, 1)
      yield* slots.resize(4)
      yield* pass(50)
      assert.strictEqual(most, 4)
      yield* pass(1_000)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("fails when its topic is deleted, and says which", () =>
    Effect.gen(function*() {
      const fiber = yield* running(Consumer.idempotent(Orders, nothing).pipe(Consumer.inGroup("group")))
      yield* Memory.MemoryBroker.use((broker) => broker.deleteTopic("orders"))
      const error = yield* Effect.flip(Fiber.join(fiber))
      assert.include(error.message, "orders")
    }).pipe(Effect.provide(Memory.layer)))
})

describe("Consumer.layer", () => {
  it.effect("is built only when the group is joined", () =>
    Effect.gen(function*() {
      const broker = yield* Broker
      const gate = Deferred.makeUnsafe<void>()
      const slow = Broker.of({
        ...broker,
        subscribe: (options) => Effect.andThen(Deferred.await(gate), broker.subscribe(options))
      })
      const building = yield* Effect.forkChild(
        Layer.build(Consumer.layer("group", [Consumer.idempotent(Orders, nothing)])).pipe(
          Effect.provideService(Broker, slow),
          quiet
        )
      )
      yield* pass(60_000)
      assert.isUndefined(building.pollUnsafe())
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(building)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("of broadcast consumers is built only when the start positions are known: nothing published then is missed", () =>
    Effect.gen(function*() {
      const { see, seen } = makeSeeing()
      yield* Layer.build(Consumer.layer("group", [Consumer.broadcast(Orders, see)])).pipe(quiet)
      yield* publish(Orders, 1)
      yield* settle
      assert.deepStrictEqual(seen, [1])
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("stops gracefully when it is closed", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const consumer = Consumer.idempotent(Orders, () =>
        Effect.sync(() => log.push("start")).pipe(
          Effect.andThen(Effect.sleep(500)),
          Effect.andThen(Effect.sync(() => log.push("done")))
        ))
      yield* publish(Orders, 1)
      const using = yield* Effect.forkChild(
        Effect.andThen(settle, settle).pipe(Effect.provide(Consumer.layer("group", [consumer])), quiet)
      )
      yield* pass(499)
      assert.deepStrictEqual(log, ["start"])
      assert.isUndefined(using.pollUnsafe())
      yield* pass(1)
      yield* Fiber.join(using)
      assert.deepStrictEqual(log, ["start", "done"])
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("starts again by itself, later and later, when a consumer cannot go on", () =>
    Effect.gen(function*() {
      const { see, seen } = makeSeeing()
      const memory = yield* Memory.MemoryBroker
      const broker = yield* Broker
      yield* broker.ensureTopics([{ name: "orders", create: {} }])
      yield* Layer.build(Consumer.layer("group", [Consumer.idempotent(Orders, see)])).pipe(quiet)
      yield* memory.deleteTopic("orders")
      yield* pass(1_000)
      yield* pass(2_000)
      yield* broker.ensureTopics([{ name: "orders", create: {} }])
      yield* publish(Orders, 7)
      yield* pass(3_999)
      assert.deepStrictEqual(seen, [])
      yield* pass(1)
      assert.deepStrictEqual(seen, [7])
    }).pipe(Effect.provide(Memory.layerBrokerWith({ autoCreate: false }))))
})

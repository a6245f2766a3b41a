/** The front of consumers: what is refused and how it says so, defaults, groups, and when a Layer is built. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type * as Batching from "../src/Batching.ts"
import { Broker } from "../src/Broker.ts"
import * as Consumer from "../src/Consumer.ts"
import type { ConsumerGroup } from "../src/ConsumerGroup.ts"
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
const refusal = (consumers: ReadonlyArray<Consumer.Consumer<Broker | ConsumerGroup>>, group = "group") =>
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
    consumers: () => ReadonlyArray<Consumer.Consumer<Broker | ConsumerGroup>>,
    tag: string,
    message: string,
    group?: string
  ) =>
    it.effect(name, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* refusal(consumers(), group), { tag, message })
      }).pipe(Effect.provide(Memory.layer)))

  const one = (options: Consumer.Options<never>) => () => [Consumer.idempotent(Orders, nothing, options)]
  const batch = (batch: Batching.Options) => () => [
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
    "a batch that waits for more events than it holds",
    batch({ maxSize: 10, minSize: 11 }),
    "InvalidOption",
    `Consumer "orders": batch.minSize is 11; use a whole number from 1 to maxSize, which is 10.`
  )
  refused(
    "a batch that waits for a time below 0",
    batch({ minSize: 2, maxWait: "-1 seconds" }),
    "InvalidOption",
    `Consumer "orders": batch.maxWait is -1 seconds; use a duration above 0, as in "5 seconds".`
  )
  for (const timeout of [0, -1, NaN, "soon"]) {
    refused(
      `a timeout of ${timeout}`,
      one({ onFailure: { ...FailurePolicy.save(), timeout: timeout as number } }),
      "InvalidOption",
      `Consumer "orders": timeout of the failure policy is ${timeout}; use a duration above 0, as in "5 seconds".`
    )
  }
  const ofGroup: ReadonlyArray<readonly [Consumer.GroupOptions, string]> = [
    [{ concurrency: 0 }, "concurrency is 0; use a whole number from 1 to 10000, or a Semaphore"],
    [{ shutdownTimeout: -1 }, "shutdownTimeout is -1; use a duration of 0 or more, as in \"5 seconds\""],
    [{ inboxRetention: 0 }, "inboxRetention is 0; use a duration above 0, as in \"5 seconds\""],
    [{ inboxRetention: "long" as "1 day" }, "inboxRetention is long; use a duration above 0, as in \"5 seconds\""]
  ]
  it.effect.each(ofGroup)("a group's %o, as an Effect and as a Layer", ([options, detail]) =>
    Effect.gen(function*() {
      const consumers = [Consumer.idempotent(Orders, nothing)]
      const message = `Consumer "group": the group's ${detail}.`
      const ofEffect = yield* Effect.flip(Consumer.inGroup("group")(Consumer.all(consumers, options)))
      const ofLayer = yield* Effect.flip(Effect.scoped(Layer.build(Consumer.layer("group", consumers, options))))
      for (const error of [ofEffect, ofLayer]) {
        assert.deepStrictEqual([error.reason._tag, error.message], ["InvalidOption", message])
      }
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("an inbox that forgets a message before retryLater may bring it back, for exactlyOnce only", () =>
    Effect.gen(function*() {
      const onFailure = FailurePolicy.retryLater({ delays: ["12 hours", "12 hours"] })
      const once = Consumer.exactlyOnce(Orders, nothing, { onFailure })
      const keeping = (inboxRetention: Duration.Input) => Consumer.layer("group", [once], { inboxRetention })
      const error = yield* Effect.flip(Effect.scoped(Layer.build(keeping("1 day"))))
      assert.strictEqual(error.reason._tag, "InvalidOption")
      assert.strictEqual(
        error.message,
        `Consumer "orders": the group's inboxRetention is 1d, but retryLater may bring an event back for 1d: ` +
          `make it longer, or the delays shorter.`
      )
      yield* Effect.scoped(Layer.build(keeping("25 hours")))
      const idempotent = Consumer.idempotent(Orders, nothing, { onFailure })
      yield* Effect.scoped(Layer.build(Consumer.layer("group", [idempotent], { inboxRetention: "1 hour" })))
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("a limit of the process that is none, when its Layer is built", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Effect.scoped(Layer.build(Consumer.layerProcessLimit(0))))
      assert.strictEqual(error.reason._tag, "InvalidOption")
      assert.include(error.message, "the process's concurrency is 0; use a whole number from 1")
    }))

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
  const most = (define: (handler: () => Effect.Effect<void>) => Consumer.Consumer<Broker | ConsumerGroup>) =>
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

describe("limits", () => {
  /** Two consumers with handlers that take a second; how many of each and of both run at once. */
  const makeCounting = () => {
    const counts = { running: 0, most: 0, done: { one: 0, two: 0 } }
    const handle = (name: "one" | "two") => () =>
      Effect.sync(() => void (counts.most = Math.max(counts.most, ++counts.running))).pipe(
        Effect.andThen(Effect.sleep("1 second")),
        Effect.andThen(Effect.sync(() => void counts.done[name]++)),
        Effect.ensuring(Effect.sync(() => void counts.running--))
      )
    return {
      counts,
      one: Consumer.idempotent(Orders, handle("one"), { name: "one" }),
      two: Consumer.idempotent(Orders, handle("two"), { name: "two" })
    }
  }

  const seconds = (n: number) => Effect.forEach(Array.from({ length: n }), () => pass("1 second"), { discard: true })

  it.effect("of a group bound all its handlers together, and nobody starves", () =>
    Effect.gen(function*() {
      const { counts, one, two } = makeCounting()
      yield* publish(Orders, ...Array.from({ length: 30 }, (_, n) => n))
      yield* Layer.build(Consumer.layer("group", [one, two], { concurrency: 3 }))
      yield* seconds(10)
      assert.strictEqual(counts.most, 3)
      assert.isAbove(counts.done.one, 5)
      assert.isAbove(counts.done.two, 5)
      yield* seconds(15)
      assert.deepStrictEqual([counts.most, counts.done], [3, { one: 30, two: 30 }])
    }).pipe(quiet, Effect.provide(Memory.layer)))

  it.effect("of a group can be resized while handlers run, and are free while none does", () =>
    Effect.gen(function*() {
      const { counts, one, two } = makeCounting()
      const concurrency = Semaphore.makeUnsafe(1)
      yield* publish(Orders, ...Array.from({ length: 20 }, (_, n) => n))
      yield* Layer.build(Consumer.layer("group", [one, two], { concurrency }))
      yield* seconds(5)
      assert.strictEqual(counts.most, 1)
      yield* concurrency.resize(4)
      yield* settle
      assert.strictEqual(counts.running, 4)
      yield* concurrency.resize(2)
      yield* seconds(2)
      assert.isAtMost(counts.running, 2)
      yield* seconds(20)
      assert.deepStrictEqual([counts.most, counts.done], [4, { one: 20, two: 20 }])
      assert.strictEqual((yield* Effect.timeoutOption(concurrency.withPermits(2)(Effect.void), 1))._tag, "Some")
    }).pipe(quiet, Effect.provide(Memory.layer)))

  it.effect("of the process bound the handlers of every group, and can be resized", () =>
    Effect.gen(function*() {
      const { counts, one, two } = makeCounting()
      const concurrency = Semaphore.makeUnsafe(2)
      yield* publish(Orders, ...Array.from({ length: 30 }, (_, n) => n))
      yield* Layer.build(
        Layer.mergeAll(Consumer.layer("first", [one], { concurrency: 8 }), Consumer.layer("second", [two])).pipe(
          Layer.provide(Consumer.layerProcessLimit(concurrency))
        )
      )
      yield* seconds(10)
      assert.strictEqual(counts.most, 2)
      assert.isAbove(counts.done.one, 3)
      assert.isAbove(counts.done.two, 3)
      yield* concurrency.resize(5)
      yield* seconds(20)
      assert.deepStrictEqual([counts.most, counts.done], [5, { one: 30, two: 30 }])
    }).pipe(quiet, Effect.provide(Memory.layer)))

  it.effect("that are one Semaphore count once", () =>
    Effect.gen(function*() {
      const limit = Semaphore.makeUnsafe(1)
      const { see, seen } = makeSeeing()
      yield* publish(Orders, 1, 2)
      yield* Layer.build(
        Consumer.layer("group", [Consumer.idempotent(Orders, see, { concurrency: limit })], { concurrency: limit })
          .pipe(
            Layer.provide(Consumer.layerProcessLimit(limit))
          )
      )
      yield* settle
      assert.sameMembers(seen, [1, 2])
    }).pipe(quiet, Effect.provide(Memory.layer)))
})

/** The in-memory Layer against the conformance suites, and what is its own. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import { Broker, Refused, ResultUnknown } from "../../src/Broker.ts"
import * as Memory from "../../src/Layers/Memory.ts"
import { Conflict, MessageStore } from "../../src/MessageStore.ts"
import { brokerSuite } from "../suites/broker/index.ts"
import * as Journal from "../suites/broker/journal.ts"
import { reasonOf, send as sendTexts } from "../suites/broker/support.ts"
import { storeSuite } from "../suites/store/index.ts"

brokerSuite("Memory", Memory.layerBrokerWith({ autoCreate: false }), {
  ...Memory.features.broker,
  deleteTopic: (topic) => Memory.MemoryBroker.use((broker) => broker.deleteTopic(topic)),
  addPartitions: (topic, count) => Memory.MemoryBroker.use((broker) => broker.addPartitions(topic, count)),
  skipOffsets: (at) => Memory.MemoryBroker.use((broker) => broker.skipOffsets(at, 1)),
  expire: (group) => Memory.MemoryBroker.use((broker) => broker.expire(group))
})

const business = Memory.table<string, string>("business")

storeSuite("Memory", Memory.layerStore, {
  ...Memory.features.store,
  business: { write: business.set, read: business.get }
})

describe("Memory, what is its own", () => {
  const group = "group"
  const topics = ["topic"]
  const send = (text: string) => sendTexts("topic", 0, [text])

  it.effect("a topic that nobody created has three partitions", () =>
    Effect.gen(function*() {
      const producer = yield* Broker.use((broker) => broker.producer)
      assert.strictEqual(yield* producer.partitions("topic"), 3)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("a member that does not give its partitions back in 60 s loses them, and joins again", () =>
    Effect.gen(function*() {
      const journal = yield* Journal.make
      const revoking = yield* Deferred.make<void>()
      yield* journal.member("hangs", {
        group,
        topics,
        hook: (signal) =>
          signal._tag === "Revoked" ? Effect.andThen(Deferred.succeed(revoking, undefined), Effect.never) : Effect.void
      })
      yield* Effect.forkScoped(journal.member("waits", { group, topics }))
      yield* Deferred.await(revoking)
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(journal.signals("waits", "Assigned").length, 0)
      yield* TestClock.adjust("1 second")
      yield* journal.until(
        "the hanging member has lost its partitions",
        () => journal.signals("hangs", "Lost").flatMap(({ assignments }) => assignments).length === 3
      )
      yield* journal.until(
        "both have joined",
        () => journal.signals("hangs", "Assigned").length > 1 && journal.signals("waits", "Assigned").length > 0
      )
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("a crashed member hears Lost, never comes back, and its records go to another", () =>
    Effect.gen(function*() {
      const broker = yield* Memory.MemoryBroker
      const journal = yield* Journal.make
      yield* journal.member("crashes", { group, topics })
      yield* send("x")
      yield* journal.until("read", () => journal.deliveries("crashes").length === 1)
      yield* broker.crash(group)
      yield* journal.until("lost", () => journal.signals("crashes", "Lost").length === 1)
      yield* journal.member("takes over", { group, topics })
      yield* journal.until("read again", () => journal.deliveries("takes over").length === 1)
      assert.strictEqual(journal.held("takes over").length, 3)
      assert.strictEqual(journal.signals("crashes", "Assigned").length, 1)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("Lost interrupts a call that still runs", () =>
    Effect.gen(function*() {
      const broker = yield* Memory.MemoryBroker
      const journal = yield* Journal.make
      yield* journal.member("hangs", {
        group,
        topics,
        hook: (signal) => signal._tag === "Records" ? Effect.never : Effect.void
      })
      yield* send("x")
      yield* journal.until("it hangs", () => journal.deliveries().length === 1)
      yield* broker.crash(group)
      yield* journal.until("lost", () => journal.signals("hangs", "Lost").length === 1)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("a failure asked for comes as often as asked, with or without effect", () =>
    Effect.gen(function*() {
      const broker = yield* Memory.MemoryBroker
      const unknown = new ResultUnknown({ topic: "topic", partition: 0, detail: "test" })
      yield* broker.failNext("send", unknown, { times: 2 })
      yield* broker.failNext("send", unknown, { applied: true })
      for (const text of ["not stored", "not stored", "stored"]) {
        assert.strictEqual((yield* reasonOf(send(text)))._tag, "ResultUnknown")
      }
      yield* send("next")
      assert.deepStrictEqual((yield* broker.records("topic")).map(({ offset }) => offset), [0n, 1n])
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("committed positions can be looked at, and a commit can be made to fail", () =>
    Effect.gen(function*() {
      const broker = yield* Memory.MemoryBroker
      const journal = yield* Journal.make
      const member = yield* journal.member("a", { group, topics })
      yield* send("x")
      yield* journal.until("read", () => journal.deliveries().length === 1)
      yield* broker.failNext("commit", new Refused({ operation: "commit", detail: "test", cause: new Error("test") }))
      assert.strictEqual((yield* reasonOf(member.commit(journal.positions("a"))))._tag, "Refused")
      assert.strictEqual(yield* broker.committed(group, { topic: "topic", partition: 0 }), undefined)
      yield* member.commit(journal.positions("a"))
      assert.strictEqual(yield* broker.committed(group, { topic: "topic", partition: 0 }), 1n)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("a rebalance on request gives every partition back and out again", () =>
    Effect.gen(function*() {
      const journal = yield* Journal.make
      yield* journal.member("a", { group, topics })
      yield* Memory.MemoryBroker.use((broker) => broker.rebalance(group))
      yield* journal.until("assigned twice", () => journal.signals("a", "Assigned").length === 2)
      assert.strictEqual(journal.signals("a", "Revoked").length, 1)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("a commit that is made to fail rolls back", () =>
    Effect.gen(function*() {
      const store = yield* Memory.MemoryStore
      const { isConflict, transaction } = yield* MessageStore
      yield* store.failNextCommit(new Conflict({ operation: "commit", detail: "test", cause: new Error("test") }))
      const error = yield* Effect.flip(transaction(business.set("key", "value")))
      assert.isTrue(isConflict(error))
      assert.strictEqual(yield* business.get("key"), undefined)
      yield* transaction(business.set("key", "value"))
      assert.deepStrictEqual(yield* business.entries, [["key", "value"]])
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("a transaction sees its own writes, and those outside see the committed ones", () =>
    Effect.gen(function*() {
      const { transaction } = yield* MessageStore
      const counts = Memory.table<string, number>("counts")
      const add = counts.update("n", (n = 0) => n + 1)
      yield* add
      const written = yield* Deferred.make<void>()
      const commit = yield* Deferred.make<void>()
      const writer = yield* Effect.forkChild(transaction(Effect.gen(function*() {
        yield* add
        const seen = yield* transaction(add)
        yield* Deferred.succeed(written, undefined)
        yield* Deferred.await(commit)
        return seen
      })))
      yield* Deferred.await(written)
      assert.strictEqual(yield* counts.get("n"), 1)
      yield* Deferred.succeed(commit, undefined)
      assert.strictEqual(yield* Fiber.join(writer), 3)
      assert.strictEqual(yield* counts.get("n"), 3)
    }).pipe(Effect.provide(Memory.layer)))
})

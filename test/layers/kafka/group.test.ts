/** What KafkaJS's consumer does in accidents, and what becomes of it. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import { Broker } from "../../../src/Broker.ts"
import * as Journal from "../../suites/broker/journal.ts"
import { reasonOf, sorted } from "../../suites/broker/support.ts"
import { startProxy } from "../../support/proxy.ts"
import { kafkaBrokers, requireOrSkip } from "../../support/services.ts"
import { outside } from "./outside.ts"
import { connect, freshName, newTopic, sendText, upTo } from "./support.ts"

const on = (broker: Broker["Service"]) => Effect.provideContext(Context.make(Broker, broker))

describe.skipIf(requireOrSkip("kafka"))("a consumer", () => {
  const brokers = kafkaBrokers ?? []
  const target = brokers[0] ?? ""
  const kafka = outside(brokers)

  it.live("goes on with its other topics when one is deleted", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers })
      const [kept, deleted] = [yield* newTopic(broker, 2), yield* newTopic(broker, 2)]
      const group = yield* freshName("group")
      const journal = yield* Journal.make
      const member = yield* on(broker)(journal.member("a", { group, topics: [kept, deleted] }))
      yield* journal.until("all held", () => journal.held("a").length === 4)
      yield* kafka.deleteTopic(deleted)
      yield* sendText(yield* broker.producer, kept, 0, "goes on")
      yield* journal.until("the other topic's record", () => journal.texts("a").includes("goes on"))
      yield* journal.until("only the other topic", () => journal.held("a").every(({ topic }) => topic === kept))
      yield* member.commit(journal.positions("a"))
    }), 180_000)

  it.live("is not told that a position is kept when its topic is gone; those of the other topics are", () =>
    Effect.gen(function*() {
      // The commit is the first to find out: nothing is fetched, nor looked up again.
      const broker = yield* connect({ brokers, metadataMaxAge: "5 minutes" })
      const [kept, deleted] = [yield* newTopic(broker, 1), yield* newTopic(broker, 1)]
      const group = yield* freshName("group")
      const journal = yield* Journal.make
      const member = yield* on(broker)(journal.member("a", { group, topics: [kept, deleted] }))
      yield* journal.until("both held", () => journal.held("a").length === 2)
      yield* member.pause(journal.held("a"))
      yield* kafka.deleteTopic(deleted)
      yield* Effect.repeat(kafka.exists(deleted), { until: (exists) => !exists })
      const failure = yield* Effect.flip(
        member.commit(journal.held("a").map((assignment) => ({ ...assignment, offset: 7n })))
      )
      assert.deepInclude(failure.reason, { _tag: "UnknownTopic", topic: deleted })
      assert.deepStrictEqual(yield* kafka.committed(group, kept), new Map([[0, 7n]]))
    }))

  it.live(
    "that was built anew meanwhile commits at its end like any other: it leaves after that, and not before",
    () =>
      Effect.gen(function*() {
        const broker = yield* connect({ brokers })
        const [kept, replaced] = [yield* newTopic(broker, 1), yield* newTopic(broker, 1)]
        const group = yield* freshName("group")
        const journal = yield* Journal.make
        const scope = yield* Scope.make()
        const member = yield* Scope.provide(on(broker)(journal.member("a", { group, topics: [kept, replaced] })), scope)
        yield* journal.until("both held", () => journal.held("a").length === 2)
        const last = yield* Deferred.make<void, unknown>()
        const commit = Effect.suspend(() =>
          member.commit(
            journal.held("a").flatMap((assignment) => assignment.topic === kept ? [{ ...assignment, offset: 1n }] : [])
          )
        )
        yield* Scope.addFinalizer(
          scope,
          Effect.flatMap(Effect.exit(commit), (exit) => Deferred.done(last, exit))
        )
        // A topic that was gone for a while is read by another consumer of KafkaJS.
        yield* kafka.deleteTopic(replaced)
        yield* journal.until("one is gone", () => journal.held("a").every(({ topic }) => topic === kept))
        yield* kafka.createTopic(replaced, 1)
        yield* journal.until("it is back", () => journal.held("a").length === 2)
        // A position behind the end of a log would be reset by the next fetch.
        yield* sendText(yield* broker.producer, kept, 0, "the last")
        yield* journal.until("the last", () => journal.texts("a").includes("the last"))
        yield* Scope.close(scope, Exit.void)
        yield* Deferred.await(last)
        assert.deepStrictEqual(yield* kafka.committed(group, kept), new Map([[0, 1n]]))
      }),
    240_000
  )

  it.live("knows its topics without the prefix that they have in Kafka, and so do tails and producers", () =>
    Effect.gen(function*() {
      const prefixed = yield* connect({ brokers, topicPrefix: "staging." })
      const topic = yield* newTopic(prefixed, 1)
      const journal = yield* Journal.make
      const member = yield* on(prefixed)(journal.member("a", { group: yield* freshName("group"), topics: [topic] }))
      yield* on(prefixed)(journal.tail("tail", { topics: [topic] }))
      const plain = yield* connect({ brokers })
      yield* sendText(yield* plain.producer, `staging.${topic}`, 0, "x")
      yield* sendText(yield* prefixed.producer, topic, 0, "y")
      yield* journal.until("both, by both", () => journal.deliveries().length === 4)
      assert.deepStrictEqual([...new Set(journal.deliveries().map((delivery) => delivery.topic))], [topic])
      yield* member.pause([{ topic, partition: 0 }])
      yield* member.commit(journal.positions("a"))
      const reason = yield* reasonOf(prefixed.ensureTopics([{ name: `${topic}-missing`, create: undefined }]))
      assert.strictEqual(reason._tag === "UnknownTopic" ? reason.topic : undefined, `${topic}-missing`)
    }))

  /** What groups read that begin at each of these offsets, until they find `end`. */
  const readFrom = Effect.fnUntraced(function*(topic: string, offsets: ReadonlyArray<number>) {
    const broker = yield* connect({ brokers })
    yield* sendText(yield* broker.producer, topic, 0, "end")
    return yield* Effect.forEach(offsets, (offset) =>
      Effect.gen(function*() {
        const group = yield* freshName("group")
        yield* kafka.commit(group, { topic, partition: 0 }, BigInt(offset), "")
        const journal = yield* Journal.make
        yield* on(broker)(journal.member("a", { group, topics: [topic] }))
        yield* journal.until("the end", () => journal.texts().includes("end"))
        return journal.texts()
      }).pipe(Effect.scoped), { concurrency: 4 })
  })

  it.live("shows nothing of aborted transactions that overlap, wherever it begins to read", () =>
    Effect.gen(function*() {
      const topic = yield* newTopic(yield* connect({ brokers }), 1)
      const steps = [["x", "send"], ["y", "send"], ["x", "send"], ["y", "send"], ["y", "abort"], [
        "x",
        "abort"
      ]] as const
      yield* kafka.transactions({ topic, partition: 0 }, steps)
      assert.deepStrictEqual(yield* readFrom(topic, upTo(7)), upTo(7).map(() => ["end"]))
    }))

  it.live("shows nothing of three transactions that one producer has aborted, and all of those between them", () =>
    Effect.gen(function*() {
      const topic = yield* newTopic(yield* connect({ brokers }), 1)
      const aborted = [["x", "send"], ["x", "send"], ["x", "abort"]] as const
      const committed = [["y", "send"], ["y", "commit"]] as const
      yield* kafka.transactions({ topic, partition: 0 }, [
        ...aborted,
        ...committed,
        ...aborted,
        ...committed,
        ...aborted
      ])
      const from = [0, 1, 2, 4, 6, 9, 10]
      const read = yield* readFrom(topic, from)
      assert.deepStrictEqual(read, from.map((offset) => [...[3, 8].filter((y) => y >= offset).map(() => "y"), "end"]))
    }))

  it.live("replaces connections that go silent, and misses nothing", () =>
    Effect.gen(function*() {
      const proxy = yield* startProxy(target)
      const direct = yield* connect({ brokers })
      const broker = yield* connect({ brokers: [proxy.address], sessionTimeout: "30 seconds" })
      const topic = yield* newTopic(direct, 1)
      const producer = yield* direct.producer
      const journal = yield* Journal.make
      yield* on(broker)(journal.member("a", { group: yield* freshName("group"), topics: [topic] }))
      yield* on(broker)(journal.tail("tail", { topics: [topic] }))
      yield* sendText(producer, topic, 0, "before")
      yield* journal.until("the first", () => journal.deliveries().length === 2)
      yield* proxy.freeze
      yield* sendText(producer, topic, 0, "after")
      yield* journal.until("the second", () => journal.deliveries().length === 4)
      assert.deepStrictEqual(journal.texts("a"), ["before", "after"])
      assert.deepStrictEqual(journal.texts("tail"), ["before", "after"])
      assert.strictEqual(journal.signals("a", "Lost").length, 0)
    }), 180_000)

  it.live(
    "that cannot reach its coordinator hears Lost when its session is over, and joins again afterwards",
    () =>
      Effect.gen(function*() {
        const proxy = yield* startProxy(target)
        const direct = yield* connect({ brokers })
        const broker = yield* connect({ brokers: [proxy.address] })
        const topic = yield* newTopic(direct, 1)
        const group = yield* freshName("group")
        const producer = yield* direct.producer
        const journal = yield* Journal.make
        const cutOff = yield* on(broker)(journal.member("cut off", { group, topics: [topic] }))
        yield* sendText(producer, topic, 0, "x")
        yield* journal.until("read", () => journal.deliveries("cut off").length === 1)
        const late = journal.positions("cut off")
        yield* proxy.blackHole
        yield* journal.until("lost while cut off", () => journal.signals("cut off", "Lost").length === 1)
        assert.strictEqual((yield* reasonOf(cutOff.commit(late)))._tag, "Fenced")
        yield* Effect.scoped(Effect.gen(function*() {
          yield* on(direct)(journal.member("takes over", { group, topics: [topic] }))
          yield* journal.until("read again", () => journal.deliveries("takes over").length === 1)
        }))
        yield* proxy.thaw
        yield* journal.until(
          "joined again, and read what nobody committed",
          () => journal.deliveries("cut off").length === 2
        )
      }),
    240_000
  )

  it.live(
    "that drains longer than its session keeps its membership, and its commit counts",
    () =>
      Effect.gen(function*() {
        const broker = yield* connect({ brokers, rebalanceTimeout: "20 seconds", sessionTimeout: "6 seconds" })
        const topic = yield* newTopic(broker, 2)
        const group = yield* freshName("group")
        const producer = yield* broker.producer
        const journal = yield* Journal.make
        const commit = yield* Deferred.make<Effect.Effect<void>>()
        const slow = yield* on(broker)(journal.member("slow", {
          group,
          topics: [topic],
          hook: (signal) =>
            signal._tag === "Revoked"
              ? Effect.andThen(Effect.sleep("8 seconds"), Effect.flatten(Deferred.await(commit)))
              : Effect.void
        }))
        yield* Deferred.succeed(commit, Effect.suspend(() => Effect.orDie(slow.commit(journal.positions("slow")))))
        yield* Effect.forEach([0, 1], (partition) => sendText(producer, topic, partition, `v-${partition}`))
        yield* journal.until("both read", () => journal.deliveries("slow").length === 2)
        yield* on(broker)(journal.member("next", { group, topics: [topic] }))
        yield* journal.until("one each", () => journal.held("slow").length === 1 && journal.held("next").length === 1)
        yield* Effect.forEach([0, 1], (partition) => sendText(producer, topic, partition, `w-${partition}`))
        yield* journal.until("four records", () => journal.deliveries().length >= 4)
        assert.deepStrictEqual(sorted(journal.texts()), ["v-0", "v-1", "w-0", "w-1"])
        assert.strictEqual(journal.signals("slow", "Lost").length, 0)
      }),
    180_000
  )

  it.live("whose drain outlives the rebalance timeout is cut short and hears Lost", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers, rebalanceTimeout: "4 seconds" })
      const topic = yield* newTopic(broker, 2)
      const group = yield* freshName("group")
      const journal = yield* Journal.make
      const hanging = yield* Deferred.make<void>()
      yield* on(broker)(journal.member("hangs", {
        group,
        topics: [topic],
        hook: (signal) =>
          signal._tag === "Revoked" ? Effect.andThen(Deferred.succeed(hanging, undefined), Effect.never) : Effect.void
      }))
      const next = yield* Effect.forkScoped(on(broker)(journal.member("next", { group, topics: [topic] })))
      yield* Deferred.await(hanging)
      yield* journal.until("lost", () => journal.signals("hangs", "Lost").length === 1)
      yield* Fiber.join(next)
      yield* journal.until("joined again", () => journal.signals("hangs", "Assigned").length > 1)
    }), 180_000)

  it.live(
    "that is evicted while it takes a chunk ends that call, and goes on when it is granted something",
    () =>
      Effect.gen(function*() {
        const broker = yield* connect({ brokers })
        const topic = yield* newTopic(broker, 1)
        const group = yield* freshName("group")
        const producer = yield* broker.producer
        const journal = yield* Journal.make
        const taking = yield* Deferred.make<void>()
        let first = true
        const member = yield* on(broker)(journal.member("a", {
          group,
          topics: [topic],
          hook: (signal) =>
            Effect.suspend(() => {
              if (signal._tag !== "Records" || !first) return Effect.void
              first = false
              return Effect.andThen(Deferred.succeed(taking, undefined), Effect.never)
            })
        }))
        yield* sendText(producer, topic, 0, "x")
        yield* Deferred.await(taking)
        yield* kafka.expire(group)
        yield* journal.until("the record again", () => journal.deliveries("a").length === 2)
        assert.strictEqual(journal.signals("a", "Lost").length, 1)
        yield* member.commit(journal.positions("a"))
        yield* sendText(producer, topic, 0, "y")
        yield* journal.until("the next", () => journal.texts("a").includes("y"))
        assert.deepStrictEqual(journal.texts("a"), ["x", "x", "y"])
      }),
    180_000
  )

  it.live("whose engine has a defect fails, instead of repeating the chunk for ever", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers })
      const topic = yield* newTopic(broker, 1)
      const subscription = yield* broker.subscribe({
        group: yield* freshName("group"),
        topics: [topic],
        onSignal: (signal) => signal._tag === "Records" ? Effect.die(new Error("defect")) : Effect.void
      })
      yield* sendText(yield* broker.producer, topic, 0, "x")
      const exit = yield* Effect.exit(Effect.timeout(subscription.failed, Duration.seconds(20)))
      assert.include(JSON.stringify(exit), "Die")
    }), 180_000)

  it.live("finds its position deleted by retention: goes on with the earliest record", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers })
      const topic = yield* newTopic(broker, 1)
      const group = yield* freshName("group")
      const producer = yield* broker.producer
      const journal = yield* Journal.make
      yield* Effect.forEach(upTo(5), (n) => sendText(producer, topic, 0, `v-${n}`))
      yield* Effect.scoped(Effect.gen(function*() {
        const member = yield* on(broker)(journal.member("a", { group, topics: [topic] }))
        yield* journal.until("five", () => journal.deliveries("a").length === 5)
        yield* member.commit(journal.held("a").map((grant) => ({ ...grant, offset: 1n })))
      }))
      yield* kafka.deleteRecords(topic, 0, 3n)
      yield* on(broker)(journal.member("b", { group, topics: [topic] }))
      yield* journal.until("the rest", () => journal.deliveries("b").length === 2)
      assert.deepStrictEqual(journal.texts("b"), ["v-3", "v-4"])
    }), 180_000)
})

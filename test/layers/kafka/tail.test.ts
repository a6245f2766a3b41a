/** Reading without a group, in accidents. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Broker } from "../../../src/Broker.ts"
import * as Journal from "../../suites/broker/journal.ts"
import { sorted } from "../../suites/broker/support.ts"
import { kafkaBrokers, requireOrSkip } from "../../support/services.ts"
import { kill, ownKafka, start } from "./cluster.ts"
import { outside } from "./outside.ts"
import { connect, newTopic, sendText, upTo } from "./support.ts"

const on = (broker: Broker["Service"]) => Effect.provideContext(Context.make(Broker, broker))

describe.skipIf(requireOrSkip("kafka"))("a tail", () => {
  const brokers = kafkaBrokers ?? []
  const kafka = outside(brokers)

  it.live("leaves no group behind", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers })
      const topic = yield* newTopic(broker, 1)
      const journal = yield* Journal.make
      yield* on(broker)(journal.tail("a", { topics: [topic] }))
      yield* sendText(yield* broker.producer, topic, 0, "x")
      yield* journal.until("read", () => journal.deliveries().length === 1)
      assert.notInclude(yield* kafka.groups, "none")
    }))

  it.live("shows nothing of aborted transactions, and passes their offsets", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers })
      const topic = yield* newTopic(broker, 1)
      const producer = yield* broker.producer
      const journal = yield* Journal.make
      yield* on(broker)(journal.tail("a", { topics: [topic] }))
      yield* sendText(producer, topic, 0, "before")
      yield* kafka.skipOffsets({ topic, partition: 0 })
      const after = yield* sendText(producer, topic, 0, "after")
      yield* journal.until("both", () => journal.deliveries().length === 2)
      assert.deepStrictEqual(journal.texts(), ["before", "after"])
      assert.isAbove(Number(after), 1)
    }))

  it.live("whose records were deleted before they were read goes on where the log begins", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers })
      const topic = yield* newTopic(broker, 1)
      const producer = yield* broker.producer
      const journal = yield* Journal.make
      const flow = yield* on(broker)(journal.tail("a", { topics: [topic] }))
      yield* flow.pause([{ topic, partition: 0 }])
      yield* Effect.forEach(upTo(5), (n) => sendText(producer, topic, 0, `v-${n}`))
      yield* kafka.deleteRecords(topic, 0, 3n)
      yield* flow.resume([{ topic, partition: 0 }])
      yield* journal.until("the rest", () => journal.texts().includes("v-4"))
      assert.deepStrictEqual(journal.texts().slice(-2), ["v-3", "v-4"])
    }))

  it.live("whose topic is deleted and created again at once reads the new one from its beginning", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers })
      const topic = yield* newTopic(broker, 1)
      const journal = yield* Journal.make
      const flow = yield* on(broker)(journal.tail("a", { topics: [topic] }))
      const old = yield* broker.producer
      yield* Effect.forEach(upTo(5), (n) => sendText(old, topic, 0, `old-${n}`))
      yield* journal.until("the old", () => journal.deliveries().length === 5)
      // Paused, so that it cannot look before something has been written to the new topic.
      yield* flow.pause([{ topic, partition: 0 }])
      yield* kafka.deleteTopic(topic)
      yield* kafka.createTopic(topic, 1)
      const another = yield* connect({ brokers })
      yield* sendText(yield* another.producer, topic, 0, "new-0")
      yield* sendText(yield* another.producer, topic, 0, "new-1")
      yield* flow.resume([{ topic, partition: 0 }])
      yield* journal.until("the new", () => journal.deliveries().length === 7)
      assert.deepStrictEqual(journal.texts().slice(5), ["new-0", "new-1"])
    }))

  it.live(
    "and a consumer and a producer go on after their only broker was killed: no gap, and no repeat while they hold on",
    () =>
      Effect.gen(function*() {
        const cluster = yield* ownKafka({})
        const broker = yield* connect({ brokers: cluster.brokers, sessionTimeout: "45 seconds" })
        const topic = yield* newTopic(broker, 2)
        const producer = yield* broker.producer
        const journal = yield* Journal.make
        yield* on(broker)(journal.tail("tail", { topics: [topic] }))
        yield* on(broker)(journal.member("member", { group: "group", topics: [topic] }))
        const texts = (prefix: string) => upTo(20).map((n) => `${prefix}-${n}`)
        const sendAll = (prefix: string) =>
          Effect.forEach(texts(prefix), (text, n) => sendText(producer, topic, n % 2, text))
        yield* sendAll("before")
        yield* journal.until("all before", () => journal.deliveries().length === 40)
        const [node] = cluster.nodes
        yield* kill(node!)
        const during = yield* Effect.forkChild(sendAll("during"))
        yield* start(node!)
        yield* Effect.andThen(Fiber.join(during), sendAll("after"))
        const expected = sorted(["before", "during", "after"].flatMap(texts))
        const read = (name: string) => new Set(journal.texts(name))
        yield* journal.until("all", () => read("tail").size >= 60 && read("member").size >= 60)
        assert.deepStrictEqual(sorted(journal.texts("tail")), expected)
        assert.deepStrictEqual(sorted(Array.from(read("member"))), expected)
        // A membership that stalls is built anew, and this one has committed nothing.
        if (journal.signals("member", "Lost").length === 0) {
          assert.deepStrictEqual(sorted(journal.texts("member")), expected)
        }
      }),
    240_000
  )
})

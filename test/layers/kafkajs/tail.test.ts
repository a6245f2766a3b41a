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

  it.live(
    "and a consumer and a producer go on after their only broker was killed: no gap, no repeat",
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
        yield* journal.until("all", () => journal.deliveries().length >= 120)
        const expected = sorted(["before", "during", "after"].flatMap(texts))
        assert.deepStrictEqual(sorted(journal.texts("tail")), expected)
        assert.deepStrictEqual(sorted(journal.texts("member")), expected)
        assert.strictEqual(journal.signals("member", "Lost").length, 0)
      }),
    90_000
  )
})

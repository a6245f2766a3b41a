/** Tails: all partitions from their ends, for each reader, without a group. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Broker } from "../../../src/Broker.ts"
import { cases } from "../features.ts"
import type { BrokerFeatures, It } from "../features.ts"
import * as Journal from "./journal.ts"
import { freshGroup, freshTopic, meanwhile, send, sendToEach, sorted, upTo } from "./support.ts"

export const tail = <R>(it: It<Broker | R>, features: BrokerFeatures<R>): void => {
  const { check, checkWith } = cases(it, features)

  check(
    "a tail gives everything that is sent after it has started, once, and nothing from before",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(3)
        const journal = yield* Journal.make
        yield* sendToEach(topic, 3, 10, "before")
        yield* journal.tail("a", { topics: [topic] })
        const texts = yield* sendToEach(topic, 3, 20, "after")
        yield* journal.until("60 records", () => journal.deliveries().length >= 60)
        assert.deepStrictEqual(sorted(journal.texts()), sorted(texts))
      })
  )

  check("each tail receives everything, beside a group that does too", () =>
    Effect.gen(function*() {
      const one = yield* freshTopic(2)
      const two = yield* freshTopic(1)
      const topics = [one, two]
      const journal = yield* Journal.make
      yield* journal.tail("a", { topics })
      yield* journal.tail("b", { topics })
      yield* journal.member("member", { group: yield* freshGroup, topics })
      const texts = [...yield* sendToEach(one, 2, 10, "one"), ...yield* sendToEach(two, 1, 10, "two")]
      for (const reader of ["a", "b", "member"]) {
        yield* journal.until(`30 records for ${reader}`, () => journal.deliveries(reader).length >= 30)
        assert.deepStrictEqual(sorted(journal.texts(reader)), sorted(texts))
      }
    }))

  check("a tail is granted every partition, and keeps the order of each", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(3)
      const journal = yield* Journal.make
      yield* journal.tail("a", { topics: [topic] })
      yield* journal.until("three grants", () => journal.held("a").length === 3)
      yield* sendToEach(topic, 3, 200)
      yield* journal.until("600 records", () => journal.deliveries().length >= 600)
      for (const partition of upTo(3)) {
        const own = journal.deliveries().filter((delivery) => delivery.partition === partition)
        assert.deepStrictEqual(own.map(({ text }) => text), upTo(200).map((n) => `v-${partition}-${n}`))
      }
    }))

  check("a paused tail goes on without a gap", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const journal = yield* Journal.make
      const flow = yield* journal.tail("a", { topics: [topic] })
      yield* send(topic, 0, ["v-0"])
      yield* journal.until("the first", () => journal.deliveries().length >= 1)
      yield* flow.pause([{ topic, partition: 0 }])
      yield* send(topic, 0, ["v-1"])
      yield* meanwhile
      yield* send(topic, 0, ["v-2"])
      yield* meanwhile
      assert.isAtMost(journal.signals("a", "Records").filter(({ records }) => records.length > 0).length, 2)
      yield* flow.resume([{ topic, partition: 0 }])
      yield* journal.until("three records", () => journal.deliveries().length >= 3)
      assert.deepStrictEqual(journal.texts(), ["v-0", "v-1", "v-2"])
    }))

  check("a tail that is closed hears nothing more", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const journal = yield* Journal.make
      yield* Effect.scoped(journal.tail("closed", { topics: [topic] }))
      yield* journal.tail("open", { topics: [topic] })
      yield* send(topic, 0, ["x"])
      yield* meanwhile
      yield* journal.until("the open one has it", () => journal.deliveries("open").length >= 1)
      assert.strictEqual(journal.deliveries("closed").length, 0)
    }))

  checkWith(
    features.addPartitions,
    "partitions that are added later are read from their beginning",
    (addPartitions) =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const journal = yield* Journal.make
        yield* journal.tail("tail", { topics: [topic] })
        yield* journal.member("member", { group: yield* freshGroup, topics: [topic] })
        yield* addPartitions(topic, 3)
        const texts = yield* sendToEach(topic, 3, 5)
        for (const reader of ["tail", "member"]) {
          // The member may read what it has not committed again after it has joined anew.
          yield* journal.until(`all 15 records for ${reader}`, () => new Set(journal.texts(reader)).size === 15)
        }
        assert.deepStrictEqual(sorted(journal.texts("tail")), sorted(texts))
        assert.includeMembers([...journal.texts("member")], [...texts])
      })
  )
}

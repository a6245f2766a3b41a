/** Groups: who receives what, and where reading goes on. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Broker } from "../../../src/Broker.ts"
import { cases } from "../features.ts"
import type { BrokerFeatures, It } from "../features.ts"
import * as Journal from "./journal.ts"
import { freshGroup, freshTopic, send, sendToEach, sorted, upTo } from "./support.ts"

export const groups = <R>(it: It<Broker | R>, features: BrokerFeatures<R>): void => {
  const { check } = cases(it, features)

  check("a group without a position starts at the earliest record", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const journal = yield* Journal.make
      const texts = yield* sendToEach(topic, 2, 3)
      yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
      yield* journal.until("six records", () => journal.deliveries().length >= 6)
      assert.deepStrictEqual(sorted(journal.texts()), sorted(texts))
    }))

  check("two groups each receive everything, once", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(3)
      const journal = yield* Journal.make
      yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
      yield* journal.member("b", { group: yield* freshGroup, topics: [topic] })
      const texts = yield* sendToEach(topic, 3, 20)
      yield* journal.until("60 records each", () =>
        journal.deliveries("a").length >= 60 && journal.deliveries("b").length >= 60)
      assert.deepStrictEqual(sorted(journal.texts("a")), sorted(texts))
      assert.deepStrictEqual(sorted(journal.texts("b")), sorted(texts))
    }))

  check(
    "two members of one group share the partitions and receive everything once together",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(6)
        const group = yield* freshGroup
        const journal = yield* Journal.make
        yield* journal.member("a", { group, topics: [topic] })
        yield* journal.member("b", { group, topics: [topic] })
        yield* journal.until(
          "three partitions each",
          () => journal.held("a").length === 3 && journal.held("b").length === 3
        )
        const texts = yield* sendToEach(topic, 6, 50)
        yield* journal.until("300 records", () => journal.deliveries().length >= 300)
        assert.deepStrictEqual(sorted(journal.texts()), sorted(texts))
        assert.strictEqual(journal.deliveries("a").length, 150)
      })
  )

  check(
    "more members than partitions: the one too many is told so with an empty assignment",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const journal = yield* Journal.make
        yield* journal.member("a", { group, topics: [topic] })
        yield* journal.member("b", { group, topics: [topic] })
        yield* journal.until("one holds the partition, the other was assigned nothing", () =>
          ["a", "b"].some((idle) =>
            journal.held("a").length + journal.held("b").length === 1 &&
            journal.held(idle).length === 0 &&
            journal.signals(idle, "Assigned").at(-1)?.assignments.length === 0
          ))
      })
  )

  check(
    "one group on several topics resumes each at its own position, though their partition numbers are equal",
    () =>
      Effect.gen(function*() {
        const one = yield* freshTopic(2)
        const two = yield* freshTopic(2)
        const group = yield* freshGroup
        const journal = yield* Journal.make
        yield* sendToEach(one, 2, 10, "one")
        yield* sendToEach(two, 2, 10, "two")
        yield* Effect.scoped(Effect.gen(function*() {
          const member = yield* journal.member("before", { group, topics: [one, two] })
          yield* journal.until("all 40", () => journal.deliveries("before").length >= 40)
          yield* member.commit(
            journal.held("before").map((grant) => ({
              ...grant,
              offset: grant.topic === one ? BigInt(2 + grant.partition) : BigInt(7 + grant.partition)
            }))
          )
        }))
        yield* journal.member("after", { group, topics: [one, two] })
        yield* journal.until("the rest", () => journal.deliveries("after").length >= 8 + 7 + 3 + 2)
        const expected = [
          ...upTo(10).slice(2).map((n) => `one-0-${n}`),
          ...upTo(10).slice(3).map((n) => `one-1-${n}`),
          ...upTo(10).slice(7).map((n) => `two-0-${n}`),
          ...upTo(10).slice(8).map((n) => `two-1-${n}`)
        ]
        assert.deepStrictEqual(sorted(journal.texts("after")), sorted(expected))
      })
  )

  check(
    "members with different topics get only what they subscribe to, and every partition is read",
    () =>
      Effect.gen(function*() {
        const shared = yield* freshTopic(2)
        const own = yield* freshTopic(2)
        const group = yield* freshGroup
        const journal = yield* Journal.make
        yield* journal.member("both", { group, topics: [shared, own] })
        yield* journal.member("shared only", { group, topics: [shared] })
        yield* journal.until("four partitions held, by both members", () =>
          journal.held("both").length + journal.held("shared only").length === 4 &&
          journal.signals("shared only", "Assigned").length > 0)
        const texts = [...yield* sendToEach(shared, 2, 10, "shared"), ...yield* sendToEach(own, 2, 10, "own")]
        yield* journal.until("40 records", () =>
          journal.deliveries().length >= 40)
        assert.deepStrictEqual(sorted(journal.texts()), sorted(texts))
        assert.isTrue(
          journal.deliveries("shared only").every(({ topic }) =>
            topic === shared
          )
        )
      })
  )

  check(
    "a rolling deploy that adds a topic: every partition is read by a member that wants it, once",
    () =>
      Effect.gen(function*() {
        const old = yield* freshTopic(2)
        const added = yield* freshTopic(2)
        const group = yield* freshGroup
        const journal = yield* Journal.make
        const both = [old, added]
        yield* Effect.scoped(Effect.gen(function*() {
          yield* journal.member("old", { group, topics: [old] })
          yield* journal.member("new 1", { group, topics: both })
          yield* journal.until(
            "four partitions held, one member without the new topic",
            () => journal.held("old").length + journal.held("new 1").length === 4
          )
          assert.isTrue(journal.held("old").every(({ topic }) => topic === old))
          yield* Effect.forkScoped(journal.member("new 2", { group, topics: both }))
          yield* journal.until("the third has joined", () => journal.signals("new 2", "Assigned").length > 0)
        }))
        yield* journal.member("new 3", { group, topics: both })
        yield* journal.member("new 4", { group, topics: both })
        yield* journal.until(
          "four partitions held by the new ones",
          () => journal.held("new 3").length + journal.held("new 4").length === 4
        )
        const texts = [...yield* sendToEach(old, 2, 10, "old"), ...yield* sendToEach(added, 2, 10, "added")]
        yield* journal.until("40 records", () => journal.deliveries().length >= 40)
        assert.deepStrictEqual(sorted(journal.texts()), sorted(texts))
      })
  )

  check("20 topics at once: each arrives whole, and nothing crosses over", () =>
    Effect.gen(function*() {
      const journal = yield* Journal.make
      const names = yield* Effect.forEach(upTo(20), () => freshTopic(1), { concurrency: 5 })
      const group = yield* freshGroup
      yield* journal.member("a", { group, topics: names })
      yield* Effect.forEach(names, (name) => send(name, 0, upTo(10).map((n) => `${name}-${n}`)), { concurrency: 10 })
      yield* journal.until("200 records", () => journal.deliveries().length >= 200)
      for (const name of names) {
        const own = journal.deliveries().filter(({ topic }) => topic === name)
        assert.deepStrictEqual(own.map(({ text }) => text), upTo(10).map((n) => `${name}-${n}`))
      }
      assert.strictEqual(journal.deliveries().length, 200)
    }))
}

/** Progress: what counts as done, and where the next owner goes on. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Consumer from "../../../src/Consumer.ts"
import { partitionOf } from "../../../src/internal/wire/partitioner.ts"
import * as Publisher from "../../../src/Publisher.ts"
import { cases, type It } from "../features.ts"
import {
  ascending,
  blocking,
  type Call,
  callOf,
  freshGroup,
  freshTopic,
  type FrontFeatures,
  Item,
  items,
  keyFor,
  makeLog,
  member,
  numbers,
  publishAll,
  type Services,
  upTo
} from "./support.ts"

export const progress = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  check("a group that reads several topics goes on in each of them where it ended", () =>
    Effect.gen(function*() {
      const [orders, payments] = [yield* freshTopic(2), yield* freshTopic(2)]
      const group = yield* freshGroup
      const log = makeLog<Call>()
      const consume = (as: string) =>
        [orders, payments].map((topic) =>
          Consumer.idempotent(topic, (event) => log.add(callOf(event, as)), { onFailure: blocking })
        )
      yield* publishAll(orders, items(30, 6))
      yield* publishAll(payments, items(10, 6))
      const first = yield* member(group, consume("first"))
      yield* log.untilCount(40)
      yield* first.stop
      yield* publishAll(orders, items(5, 6, 30))
      yield* publishAll(payments, items(7, 6, 10))
      yield* member(group, consume("second"))
      yield* log.untilCount(52)
      const seen = (topic: string, as: string) =>
        ascending(numbers(log.all.filter((call) => call.topic === topic && call.member === as)))
      assert.deepStrictEqual(seen(orders.name, "second"), upTo(5).map((n) => 30 + n))
      assert.deepStrictEqual(seen(payments.name, "second"), upTo(7).map((n) => 10 + n))
      assert.strictEqual(log.all.length, 52)
    }))

  check(
    "an event that hangs holds the committed position back, and nothing else; when it ends one commit covers all",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const release = Latch.makeUnsafe(false)
        const consume = (as: string) =>
          Consumer.idempotent(
            topic,
            (event) => Effect.andThen(event.payload.n === 5 ? release.await : Effect.void, log.add(callOf(event, as))),
            {
              onFailure: blocking
            }
          )
        const finished = (as: string) => log.all.filter((call) => call.member === as)
        const count = features.events
        yield* publishAll(topic, items(count, count))

        const first = yield* member(group, [consume("first")], { shutdownTimeout: "200 millis" })
        yield* log.until("all but one", () => finished("first").length >= count - 1)
        assert.deepStrictEqual(ascending(numbers(finished("first"))), upTo(count).filter((n) => n !== 5))
        yield* first.stop

        const second = yield* member(group, [consume("second")])
        yield* log.until("all but one again", () => finished("second").length >= count - 6)
        assert.deepStrictEqual(ascending(numbers(finished("second"))), upTo(count).filter((n) => n > 5))
        yield* release.open
        yield* log.until("the one that hung", () => finished("second").length >= count - 5)
        yield* second.stop

        yield* publishAll(topic, items(1, 1, count))
        yield* member(group, [consume("third")])
        yield* log.until("what came last", () => finished("third").length >= 1)
        assert.deepStrictEqual(numbers(finished("third")), [count])
      })
  )

  check(
    "a partition is read again only from what was unfinished: the finished prefix stays done",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const consume = (as: string, hangsAt: number) =>
          Consumer.idempotent(
            topic,
            (event) => event.payload.n >= hangsAt ? Effect.never : log.add(callOf(event, as)),
            {
              ordering: "partition",
              onFailure: blocking
            }
          )
        yield* publishAll(topic, items(100, 7))
        const first = yield* member(group, [consume("first", 60)], { shutdownTimeout: "100 millis" })
        yield* log.untilCount(60)
        yield* first.stop
        yield* member(group, [consume("second", Infinity)])
        yield* log.untilCount(100)
        assert.deepStrictEqual(numbers(log.all), upTo(100))
      })
  )

  check("more events than one partition may hold unfinished all arrive, once", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const log = makeLog<Call>()
      const release = Latch.makeUnsafe(false)
      const count = 4_000
      yield* publishAll(topic, items(count, count))
      const consume = Consumer.idempotent(topic, (event) => Effect.andThen(release.await, log.add(callOf(event))), {
        concurrency: 4,
        onFailure: blocking
      })
      yield* member(group, [consume])
      // The partition is paused by then: 1,024 of 4,000 wait for a slot.
      yield* Publisher.publish(topic, items(1, 1, count)[0]!)
      yield* release.open
      yield* log.untilCount(count + 1)
      assert.deepStrictEqual(ascending(numbers(log.all)), upTo(count + 1))
    }))

  check(
    "an event that hangs bounds what is delivered behind it, its other partitions go on, and all arrive in the end",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const release = Latch.makeUnsafe(false)
        const [hung, other] = [keyFor(0, 2), keyFor(1, 2)]
        const count = 16_000
        // Many keys of the same partition, so that its events run side by side.
        const keys = upTo(2_000).map((n) => `key-${n}`).filter((key) => partitionOf(key, 2) === 0).slice(0, 500)
        yield* publishAll(topic, [new Item({ key: hung, n: 0 })])
        yield* publishAll(topic, upTo(count).map((n) => new Item({ key: keys[n % keys.length]!, n: n + 1 })))
        yield* member(group, [
          Consumer.idempotent(
            topic,
            (event) => Effect.andThen(event.payload.n === 0 ? release.await : Effect.void, log.add(callOf(event))),
            {
              onFailure: blocking
            }
          )
        ])
        yield* log.untilCount(9_900)
        yield* publishAll(topic, [new Item({ key: other, n: count + 1 })])
        yield* log.until("the other partition's event", (calls) => calls.some((call) => call.partition === 1))
        // 10,000 offsets, or as much more as one chunk holds.
        assert.isBelow(log.all.length, 13_000)
        yield* release.open
        yield* log.untilCount(count + 2)
        assert.deepStrictEqual(ascending(numbers(log.all)), upTo(count + 2))
      })
  )
}

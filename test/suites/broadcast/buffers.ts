/** Slow subscribers: what they lose, what they are told, and that nobody else notices. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Stream from "effect/Stream"
import * as Broadcast from "../../../src/Broadcast.ts"
import type { Broker } from "../../../src/Broker.ts"
import { freshTopic, items, publishAll, upTo } from "../consumer/support.ts"
import { cases, type It } from "../features.ts"
import type { BroadcastFeatures } from "./index.ts"
import { logged, numbersOf, take } from "./support.ts"

export const buffers = <R>(it: It<Broker | R>, features: BroadcastFeatures<R>): void => {
  const { check } = cases(it, features)
  const { events } = features

  check(
    "a subscription that nobody reads holds up none: sliding keeps the newest, dropping the oldest, counted",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const sliding = yield* Broadcast.subscribe(topic, { buffer: 10 })
        const dropping = yield* Broadcast.subscribe(topic, { buffer: 10, strategy: "dropping" })
        const fast = yield* logged(yield* Broadcast.subscribe(topic))
        yield* publishAll(topic, items(events, 5))
        yield* fast.untilCount(events)
        assert.deepStrictEqual(numbersOf(fast.all), upTo(events))
        for (const slow of [sliding, dropping]) {
          assert.deepStrictEqual(yield* slow.status, { waiting: 10, lost: events - 10, undecodable: 0, restarts: 0 })
        }
        assert.deepStrictEqual(yield* take(sliding, 10), upTo(10).map((n) => events - 10 + n))
        assert.deepStrictEqual(yield* take(dropping, 10), upTo(10))
        // Both go on.
        yield* publishAll(topic, items(1, 1, events))
        assert.deepStrictEqual(yield* take(sliding, 1), [events])
        assert.deepStrictEqual(yield* take(dropping, 1), [events])
      })
  )

  check(
    "\"fail\" gives what came before without a gap, and then says where the first missing event lies",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const subscription = yield* Broadcast.subscribe(topic, { buffer: 10, strategy: "fail" })
        const fast = yield* logged(yield* Broadcast.subscribe(topic))
        yield* publishAll(topic, items(100, 5))
        yield* fast.untilCount(100)
        const seen: Array<number> = []
        const error = yield* Effect.flip(
          Stream.runForEach(subscription, ({ payload }) => Effect.sync(() => void seen.push(payload.n)))
        )
        assert.deepStrictEqual(seen, upTo(10))
        assert.isTrue(error.reason._tag === "SubscriberTooSlow")
        if (error.reason._tag !== "SubscriberTooSlow") return
        assert.strictEqual(error.reason.offset, 10n)
        assert.strictEqual(error.reason.partition, 0)
        assert.strictEqual(error.reason.buffer, 10)
        assert.include(error.message, topic.name)
      })
  )

  check("a reader that keeps up loses nothing of a burst that is larger than its buffer", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const subscription = yield* Broadcast.subscribe(topic, { buffer: 128, strategy: "fail" })
      const log = yield* logged(subscription)
      yield* publishAll(topic, items(events, 5))
      yield* log.untilCount(events)
      assert.deepStrictEqual(numbersOf(log.all), upTo(events))
      assert.strictEqual((yield* subscription.status).lost, 0)
    }))

  check("a filter that throws ends its own stream with what it threw, and no other", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const broken = yield* Broadcast.subscribe(topic, {
        filter: ({ payload }) => {
          if (payload.n === 1) throw new Error("no idea")
          return true
        }
      })
      const other = yield* Broadcast.subscribe(topic)
      yield* publishAll(topic, items(3, 1))
      assert.deepStrictEqual(yield* take(other, 3), [0, 1, 2])
      const exit = yield* Effect.exit(Stream.runDrain(broken))
      assert.isTrue(Exit.isFailure(exit) && String(exit.cause).includes("no idea"))
    }))

  check("a buffer that is no positive whole number is refused", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      for (const buffer of [0, -1, 1.5, NaN, Infinity]) {
        const error = yield* Effect.flip(Broadcast.subscribe(topic, { buffer }))
        assert.strictEqual(error.reason._tag, "InvalidSubscription")
        assert.include(error.message, String(buffer))
      }
    }))
}

/** Order: what runs one after another, what runs at the same time, and what a rebalance does to both. */
import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Consumer from "../../../src/Consumer.ts"
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
  makeLog,
  markNumber,
  member,
  numbers,
  publishAll,
  publishMarks,
  type Services,
  upTo
} from "./support.ts"

export const ordering = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  check(
    "10 members, 16 keys: each key's events come in order, once, one at a time, also while members come and go",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(12)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const running = new Set<string>()
        const overlaps: Array<string> = []
        const consume = Consumer.idempotent(topic, (event) =>
          Effect.gen(function*() {
            const key = event.key!
            if (running.has(key)) overlaps.push(`${key} at ${event.payload.n}`)
            running.add(key)
            yield* log.add(callOf(event))
            yield* Effect.yieldNow
            yield* Effect.yieldNow
            running.delete(key)
          }), { concurrency: 16, onFailure: blocking })
        const five = yield* Effect.forEach(upTo(5), () => member(group, [consume]), { concurrency: "unbounded" })
        const publishing = yield* Effect.forkScoped(
          Effect.forEach(upTo(100), (round) => publishAll(topic, items(10, 16, round * 10)), { discard: true })
        )
        yield* log.untilCount(100)
        yield* Effect.forEach(upTo(5), () => member(group, [consume]), { concurrency: "unbounded", discard: true })
        yield* Effect.forEach(five.slice(0, 3), ({ stop }) => stop, { concurrency: "unbounded", discard: true })
        yield* Fiber.join(publishing)
        yield* log.until("all 1,000", (calls) => new Set(numbers(calls)).size >= 1_000)
        yield* publishMarks(topic)
        yield* log.until("the marks", (calls) => calls.filter((call) => call.n === markNumber).length >= 12)
        assert.deepStrictEqual(overlaps, [])
        for (const key of upTo(16)) {
          const own = log.all.filter((call) => call.key === `key-${key}`)
          assert.deepStrictEqual(numbers(own), upTo(1_000).filter((n) => n % 16 === key))
        }
      })
  )

  check(
    "what runs when a member joins is finished where it runs, and nobody runs it again",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(4)
        const group = yield* freshGroup
        const started = makeLog<Call>()
        const finished = makeLog<Call>()
        const release = Latch.makeUnsafe(false)
        const consume = (as: string) =>
          Consumer.idempotent(topic, (event) =>
            started.add(callOf(event, as)).pipe(
              Effect.andThen(release.await),
              Effect.andThen(finished.add(callOf(event, as)))
            ), { concurrency: 8, onFailure: blocking })
        yield* member(group, [consume("a")])
        yield* publishAll(topic, items(64, 32))
        yield* started.untilCount(8)
        const joining = yield* Effect.forkScoped(member(group, [consume("b")]))
        // Whatever b runs before a has let go would be a second owner.
        assert.isTrue(started.all.every((call) => call.member === "a"))
        yield* release.open
        yield* Fiber.join(joining)
        yield* finished.until("all 64", (calls) => new Set(numbers(calls)).size >= 64)
        yield* publishMarks(topic)
        yield* finished.until("the marks", (calls) => calls.filter((call) => call.n === markNumber).length >= 4)
        assert.deepStrictEqual(ascending(numbers(finished.all).filter((n) => n !== markNumber)), upTo(64))
        assert.deepStrictEqual(ascending(numbers(started.all).filter((n) => n !== markNumber)), upTo(64))
        assert.isTrue(finished.all.some((call) => call.member === "b"))
      })
  )

  check("events without a key run at the same time under key ordering", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const together = yield* Deferred.make<void>()
      const log = makeLog<Call>()
      const consume = Consumer.idempotent(topic, (event) =>
        Effect.gen(function*() {
          yield* log.add(callOf(event))
          if (log.all.length === 8) yield* Deferred.succeed(together, undefined)
          yield* Deferred.await(together)
        }), { concurrency: 8, onFailure: blocking })
      yield* Effect.forEach(items(8, 1), (item) => Publisher.publish(topic, item, { key: null }), { discard: true })
      yield* member(group, [consume])
      yield* log.untilCount(8)
      yield* Deferred.await(together)
      assert.deepStrictEqual(ascending(numbers(log.all)), upTo(8))
    }))

  check("a hot key that hangs does not keep the other keys of its partition waiting", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const release = Latch.makeUnsafe(false)
      const log = makeLog<Call>()
      const consume = Consumer.idempotent(topic, (event) =>
        Effect.andThen(event.key === "hot" ? release.await : Effect.void, log.add(callOf(event))), {
        concurrency: 2,
        onFailure: blocking
      })
      yield* publishAll(topic, [
        ...upTo(500).map((n) =>
          new Item({ key: "hot", n })
        ),
        ...upTo(20).map((n) => new Item({ key: `cold-${n}`, n: 500 + n }))
      ])
      yield* member(group, [consume])
      yield* log.untilCount(20)
      assert.deepStrictEqual(ascending(numbers(log.all)), upTo(20).map((n) => 500 + n))
      yield* release.open
      yield* log.untilCount(520)
      assert.deepStrictEqual(numbers(log.all.slice(20)), upTo(500))
    }))

  check(
    "partition ordering runs the events of a partition one after another, whatever their keys",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const consume = Consumer.idempotent(topic, (event) => Effect.andThen(Effect.yieldNow, log.add(callOf(event))), {
          ordering: "partition",
          concurrency: 16,
          onFailure: blocking
        })
        yield* publishAll(topic, items(200, 50))
        yield* member(group, [consume])
        yield* log.untilCount(200)
        for (const partition of upTo(2)) {
          const offsets = log.all.filter((call) => call.partition === partition).map((call) => Number(call.offset))
          assert.deepStrictEqual(offsets, upTo(offsets.length))
        }
      })
  )
}

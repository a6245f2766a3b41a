/** Events with a time: they leave when it has come. */
import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Consumer from "../../../src/Consumer.ts"
import * as Outbox from "../../../src/Outbox.ts"
import {
  blocking,
  type Call,
  callOf,
  freshGroup,
  freshTopic,
  type FrontFeatures,
  Item,
  type ItemTopic,
  makeLog,
  member,
  numbers,
  recordsOf,
  relay,
  relayed,
  type Services,
  upTo
} from "../consumer/support.ts"
import { askUntil, cases, freshName, type It } from "../features.ts"

export const scheduling = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  const publish = (topic: ItemTopic, n: number, options?: Outbox.PublishOptions) =>
    Outbox.publish(topic, new Item({ key: "k", n }), options).pipe(Outbox.transaction)

  const listening = (topic: ItemTopic) =>
    Effect.gen(function*() {
      const log = makeLog<Call>()
      yield* member(yield* freshGroup, [
        Consumer.idempotent(topic, (event) => log.add(callOf(event)), { ordering: "partition", onFailure: blocking })
      ])
      return log
    })

  const scheduled = (topic: ItemTopic) => Outbox.scheduled.list({ topic: topic.name })

  check("an event with a delay leaves after it, and one without at once", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const log = yield* listening(topic)
      yield* relay()
      const before = yield* Clock.currentTimeMillis
      const id = yield* publish(topic, 0, { delay: "1500 millis" })
      yield* publish(topic, 1)
      yield* log.untilCount(1)
      const [waiting] = yield* scheduled(topic)
      assert.isDefined(waiting)
      assert.strictEqual(waiting.id, id)
      assert.isAtLeast(DateTime.toEpochMillis(waiting.dueAt), before + 1_500)
      yield* log.untilCount(2)
      assert.deepStrictEqual(numbers(log.all), [1, 0])
      assert.isAtLeast(yield* Clock.currentTimeMillis, before + 1_500)
      assert.deepStrictEqual(yield* scheduled(topic), [])
    }))

  check(
    "events of one key leave in the order of their times, whatever the order of the calls",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const log = yield* listening(topic)
        const now = yield* DateTime.now
        yield* Effect.gen(function*() {
          for (const n of [3, 1, 4, 0, 2]) {
            yield* Outbox.publish(topic, new Item({ key: "k", n }), {
              deliverAt: DateTime.add(now, { milliseconds: 700 + n * 20 })
            })
          }
        }).pipe(Outbox.transaction)
        yield* relay()
        yield* log.untilCount(5)
        assert.deepStrictEqual(numbers(log.all), upTo(5))
      })
  )

  check(
    "one whose transaction rolls back is not scheduled, and one that is cancelled does not leave",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        yield* Effect.flip(
          Effect.andThen(Outbox.publish(topic, new Item({ key: "k", n: 0 }), { delay: "1 millis" }), Effect.fail("no"))
            .pipe(Outbox.transaction)
        )
        const id = yield* freshName("reminder")
        yield* publish(topic, 1, { id, delay: "1 hour" })
        yield* publish(topic, 2, { delay: "1 millis" })
        assert.deepStrictEqual((yield* scheduled(topic)).length, 2)
        assert.isTrue(yield* Outbox.scheduled.cancel(id))
        assert.isFalse(yield* Outbox.scheduled.cancel(id))
        yield* relay()
        yield* askUntil(features, "the other to be moved", scheduled(topic), (all) => all.length === 0)
        yield* relayed
        assert.strictEqual((yield* recordsOf(topic.name, 1)).length, 1)
      })
  )

  check("a time that has passed is now", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const log = yield* listening(topic)
      yield* relay()
      yield* publish(topic, 0, { deliverAt: DateTime.makeUnsafe("2020-01-01T00:00:00Z") })
      yield* log.untilCount(1)
    }))
}

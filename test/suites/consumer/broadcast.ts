/** Broadcast: every running instance sees what is published while it runs. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Consumer from "../../../src/Consumer.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import { cases, type It } from "../features.ts"
import {
  ascending,
  type Call,
  callOf,
  freshGroup,
  freshTopic,
  type FrontFeatures,
  items,
  type ItemTopic,
  makeLog,
  member,
  numbers,
  publishAll,
  retries,
  type Services,
  upTo
} from "./support.ts"

export const broadcast = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  const logging = (topic: ItemTopic, log: ReturnType<typeof makeLog<Call>>, as: string, name: string) =>
    Consumer.broadcast(topic, (event) => log.add(callOf(event, as, name)), { name })

  check(
    "two instances with three handlers: all three see each event, and none sees what came before the start",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(3)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* publishAll(topic, items(10, 10))
        yield* member(group, [logging(topic, log, "a", "one"), logging(topic, log, "a", "two")])
        yield* member(group, [logging(topic, log, "b", "one")])
        yield* publishAll(topic, items(30, 10, 10))
        yield* log.untilCount(90)
        for (const [as, name] of [["a", "one"], ["a", "two"], ["b", "one"]]) {
          const seen = log.all.filter((call) => call.member === as && call.handler === name)
          assert.deepStrictEqual(ascending(numbers(seen)), upTo(30).map((n) => 10 + n), `${as} ${name}`)
        }
      })
  )

  check("what is published while an instance is stopped it never sees", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const log = makeLog<Call>()
      const first = yield* member(group, [logging(topic, log, "first", "one")])
      yield* publishAll(topic, items(1, 1, 0))
      yield* log.untilCount(1)
      yield* first.stop
      yield* publishAll(topic, items(1, 1, 1))
      yield* member(group, [logging(topic, log, "second", "one")])
      yield* publishAll(topic, items(1, 1, 2))
      yield* log.untilCount(2)
      assert.deepStrictEqual(numbers(log.all), [0, 2])
    }))

  check(
    "a broadcast handler and a group's handler of one topic do not get in each other's way",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* publishAll(topic, items(10, 10))
        yield* member(group, [
          logging(topic, log, "a", "all"),
          Consumer.idempotent(topic, (event) => log.add(callOf(event, "a", "shared")), { name: "shared" })
        ])
        yield* publishAll(topic, items(10, 10, 10))
        yield* log.untilCount(30)
        const seen = (name: string) => ascending(numbers(log.all.filter((call) => call.handler === name)))
        assert.deepStrictEqual(seen("all"), upTo(10).map((n) => 10 + n))
        assert.deepStrictEqual(seen("shared"), upTo(20))
      })
  )

  check(
    "a broadcast handler that fails is tried again and then skips the event; its order per key holds",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* member(group, [
          Consumer.broadcast(
            topic,
            (event) => Effect.andThen(log.add(callOf(event)), event.payload.n === 1 ? Effect.fail("no") : Effect.void),
            {
              onFailure: { ...FailurePolicy.discard(), retry: retries(1) }
            }
          )
        ])
        yield* publishAll(topic, items(4, 1))
        yield* log.untilCount(5)
        assert.deepStrictEqual(numbers(log.all), [0, 1, 1, 2, 3])
      })
  )

  check("a batch handler sees every event too", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const group = yield* freshGroup
      const log = makeLog<number>()
      yield* member(group, [
        Consumer.broadcastBatch(topic, (events) =>
          Effect.forEach(events, (event) => log.add(event.payload.n), { discard: true }))
      ])
      yield* publishAll(topic, items(100, 10))
      yield* log.untilCount(100)
      assert.deepStrictEqual(ascending(log.all), upTo(100))
    }))

  check("a policy that saves is refused: a broadcast has no dead letters", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const exit = yield* Effect.exit(Effect.scoped(member(group, [
        Consumer.broadcast(topic, () => Effect.void, { onFailure: FailurePolicy.save() })
      ])))
      assert.isTrue(Exit.isFailure(exit))
      const error = yield* Effect.flip(exit)
      assert.strictEqual(error.reason._tag, "InvalidOption")
      assert.include(error.message, "FailurePolicy.discard()")
    }))
}

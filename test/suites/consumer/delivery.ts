/** Delivery: every event reaches every handler that is to see it, and no other. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Consumer from "../../../src/Consumer.ts"
import * as Event from "../../../src/Event.ts"
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
  items,
  type ItemTopic,
  makeLog,
  markNumber,
  member,
  numbers,
  publishAll,
  publishMarks,
  retries,
  type Services,
  upTo
} from "./support.ts"

export const delivery = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  /** A consumer that logs its calls under a name. */
  const logging = (topic: ItemTopic, log: ReturnType<typeof makeLog<Call>>, as: string, handler = "handler") =>
    Consumer.idempotent(topic, (event) => log.add(callOf(event, as, handler)), { name: handler, onFailure: blocking })

  check(
    "each of 100 events arrives once, with the payload, key and headers it was published with",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic()
        const group = yield* freshGroup
        const log = makeLog<readonly [string, string | null, number, string | undefined, string]>()
        const consume = Consumer.idempotent(
          topic,
          (event) => log.add([event.id, event.key, event.payload.n, Event.header(event, "tenant"), event.type]),
          { onFailure: blocking }
        )
        const published = items(100, 10)
        yield* Effect.forEach(
          published,
          (item) => Publisher.publish(topic, item, { id: `id-${item.n}`, headers: { tenant: `tenant-${item.n}` } }),
          {
            concurrency: 10,
            discard: true
          }
        )
        const first = yield* member(group, [consume])
        yield* log.untilCount(100)
        yield* first.stop
        assert.sameDeepMembers(
          Array.from(log.all),
          published.map(({ key, n }) => [`id-${n}`, key, n, `tenant-${n}`, "Item"] as const)
        )
      })
  )

  check(
    "a consumer that has stopped handles nothing more, and the next one goes on where it ended",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic()
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const first = yield* member(group, [logging(topic, log, "first")])
        yield* publishAll(topic, items(50, 5))
        yield* log.untilCount(50)
        yield* first.stop
        yield* publishAll(topic, items(50, 5, 50))
        assert.strictEqual(log.all.length, 50)
        yield* member(group, [logging(topic, log, "second")])
        yield* log.untilCount(100)
        assert.deepStrictEqual(ascending(numbers(log.all)), upTo(100))
        assert.deepStrictEqual(
          ascending(numbers(log.all.filter((call) => call.member === "second"))),
          upTo(50).map((n) => n + 50)
        )
      })
  )

  check(
    "the members of one group together get everything that 50 publishers send, each event once",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(features.members)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* Effect.forEach(
          upTo(features.members),
          (index) => member(group, [logging(topic, log, `member-${index}`)]),
          {
            concurrency: "unbounded",
            discard: true
          }
        )
        const all = items(features.events, features.events)
        yield* Effect.forEach(all, (item) => Publisher.publish(topic, item), { concurrency: 50, discard: true })
        yield* log.until("every event", (calls) => calls.length >= features.events)
        yield* publishMarks(topic)
        yield* log.until("a mark from each partition", (calls) => calls.length >= features.events + features.members)
        assert.deepStrictEqual(ascending(numbers(log.all).filter((n) => n !== markNumber)), upTo(features.events))
      })
  )

  check("20 topics at once: each is complete, and nothing crosses over", () =>
    Effect.gen(function*() {
      const group = yield* freshGroup
      const topics = yield* Effect.forEach(upTo(20), () => freshTopic(2), { concurrency: 5 })
      const log = makeLog<Call & { readonly home: string }>()
      yield* member(
        group,
        topics.map((topic) =>
          Consumer.idempotent(topic, (event) => log.add({ ...callOf(event), home: topic.name }), {
            onFailure: blocking
          })
        )
      )
      yield* Effect.forEach(topics, (topic, index) => publishAll(topic, items(100, 7, index * 1_000)), {
        concurrency: "unbounded",
        discard: true
      })
      yield* log.untilCount(2_000)
      topics.forEach((topic, index) => {
        const own = log.all.filter((call) => call.home === topic.name)
        assert.deepStrictEqual(ascending(numbers(own)), upTo(100).map((n) => index * 1_000 + n))
        assert.isTrue(own.every((call) => call.topic === topic.name))
      })
      assert.strictEqual(log.all.length, 2_000)
    }))

  check(
    "two groups each get everything; two instances of one group get it once together",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(4)
        const [shared, alone] = [yield* freshGroup, yield* freshGroup]
        const log = makeLog<Call>()
        yield* member(shared, [logging(topic, log, "shared")])
        yield* member(shared, [logging(topic, log, "shared")])
        yield* member(alone, [logging(topic, log, "alone")])
        yield* publishAll(topic, items(100, 20))
        yield* log.untilCount(200)
        for (const name of ["shared", "alone"]) {
          assert.deepStrictEqual(ascending(numbers(log.all.filter((call) => call.member === name))), upTo(100))
        }
      })
  )

  check("two handlers of one topic in one group both get everything", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic()
      const group = yield* freshGroup
      const log = makeLog<Call>()
      yield* member(group, [logging(topic, log, "one", "bill"), logging(topic, log, "one", "ship")])
      yield* publishAll(topic, items(100, 20))
      yield* log.untilCount(200)
      for (const name of ["bill", "ship"]) {
        assert.deepStrictEqual(ascending(numbers(log.all.filter((call) => call.handler === name))), upTo(100))
      }
    }))

  check(
    "one topic consumed twice in one group by one process is refused with a sentence",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic()
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const nameless = Consumer.idempotent(topic, (event) => log.add(callOf(event)))
        const error = yield* Effect.flip(Effect.scoped(member(group, [nameless, nameless])))
        assert.strictEqual(error.reason._tag, "DuplicateHandler")
        assert.include(error.message, group)
        assert.include(error.message, topic.name)
      })
  )

  check(
    "an event whose handler fails twice is handled at the third attempt, by the same member",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(4)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const failing = (as: string) =>
          Consumer.idempotent(
            topic,
            (event) =>
              Effect.andThen(log.add(callOf(event, as)), event.attempt < 3 ? Effect.fail("not yet") : Effect.void),
            {
              onFailure: { ...blocking, retry: retries(5) }
            }
          )
        yield* member(group, [failing("a")])
        yield* member(group, [failing("b")])
        yield* publishAll(topic, items(40, 20))
        yield* log.untilCount(120)
        yield* publishMarks(topic)
        yield* log.untilCount(132)
        for (const n of upTo(40)) {
          const calls = log.all.filter((call) => call.n === n)
          assert.deepStrictEqual(calls.map((call) => call.attempt), [1, 2, 3])
          assert.strictEqual(new Set(calls.map((call) => call.member)).size, 1)
        }
      })
  )
}

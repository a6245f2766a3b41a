/** Topics that are missing, grow or are deleted, and records that do not decode. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Broadcast from "../../../src/Broadcast.ts"
import { Broker } from "../../../src/Broker.ts"
import * as Publisher from "../../../src/Publisher.ts"
import * as Topic from "../../../src/Topic.ts"
import { ascending, freshTopic, Item, items, itemTopic, publishAll, publishMarks, upTo } from "../consumer/support.ts"
import { askUntil, cases, freshName, type It } from "../features.ts"
import type { BroadcastFeatures } from "./index.ts"
import { logged, numbersOf, take } from "./support.ts"

export const accidents = <R>(it: It<Broker | R>, features: BroadcastFeatures<R>): void => {
  const { check, checkWith } = cases(it, features)

  check(
    "a record that does not decode is skipped and counted, for those who would have seen it",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const raw = Topic.make(topic.name, { schema: Schema.Unknown, key: () => "key-0" })
        const everything = yield* Broadcast.subscribe(topic)
        const keyed = yield* Broadcast.subscribe(topic, { key: "key-0" })
        const other = yield* Broadcast.subscribe(topic, { key: "key-1" })
        yield* publishAll(topic, items(2, 2))
        yield* Publisher.publish(raw, "no item")
        yield* publishAll(topic, items(2, 2, 2))
        assert.deepStrictEqual(yield* take(everything, 4), [0, 1, 2, 3])
        assert.deepStrictEqual(yield* take(keyed, 2), [0, 2])
        assert.deepStrictEqual(yield* take(other, 2), [1, 3])
        const counts = yield* Effect.forEach([everything, keyed, other], ({ status }) => status)
        assert.deepStrictEqual(counts.map(({ undecodable }) => undecodable), [1, 1, 0])
      })
  )

  check("a topic that does not exist is a typed failure, and no obstacle once it exists", () =>
    Effect.gen(function*() {
      const name = yield* freshName("late")
      const topic = Topic.make(name, { schema: Item, key: (item) => item.key })
      const error = yield* Effect.flip(Broadcast.subscribe(topic))
      assert.isTrue(error.reason._tag === "BrokerError" && error.reason.reason._tag === "UnknownTopic")
      assert.include(error.message, name)
      yield* Broker.use((broker) => broker.ensureTopics([{ name, create: { partitions: 1 } }]))
      const subscription = yield* Broadcast.subscribe(topic)
      yield* Publisher.publish(topic, { key: "a", n: 1 })
      assert.deepStrictEqual(yield* take(subscription, 1), [1])
    }))

  check("a topic that says how it is created is created", () =>
    Effect.gen(function*() {
      const topic = itemTopic(yield* freshName("created"), 2)
      const subscription = yield* Broadcast.subscribe(topic)
      yield* publishAll(topic, items(4, 4))
      assert.deepStrictEqual(ascending(yield* take(subscription, 4)), upTo(4))
    }))

  checkWith(
    features.addPartitions,
    "partitions that are added later are read from their beginning",
    (addPartitions) =>
      Effect.gen(function*() {
        const before = yield* freshTopic(1)
        const log = yield* logged(yield* Broadcast.subscribe(before))
        yield* publishAll(before, items(5, 5))
        yield* log.untilCount(5)
        yield* addPartitions(before.name, 4)
        const after = itemTopic(before.name, 4)
        // A process that knows of the new partitions only now.
        yield* askUntil(
          features,
          "the new partitions are known",
          Effect.scoped(
            Broker.use((broker) => Effect.flatMap(broker.producer, (producer) => producer.partitions(before.name)))
          ),
          (count) => count === 4
        )
        yield* Effect.provideServiceEffect(
          publishMarks(after, 99),
          Broker,
          Effect.map(Broker, (broker) => Broker.of({ ...broker }))
        )
        yield* log.until(
          "a mark of each partition",
          (all) => new Set(all.filter(({ payload }) => payload.n === 99).map(({ partition }) => partition)).size === 4
        )
        assert.deepStrictEqual(ascending(numbersOf(log.all)), [...upTo(5), 99, 99, 99, 99])
      })
  )

  checkWith(
    features.deleteTopic,
    "when the topic is deleted, \"fail\" ends with the reason, and the others go on once it is there again",
    (deleteTopic) =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const going = yield* Broadcast.subscribe(topic)
        const log = yield* logged(going)
        const failing = yield* Broadcast.subscribe(topic, { strategy: "fail" })
        const failed = yield* Effect.forkScoped(Effect.flip(Stream.runDrain(failing)))
        yield* publishAll(topic, items(1, 1))
        yield* log.untilCount(1)
        yield* deleteTopic(topic.name)
        const error = yield* Fiber.join(failed)
        assert.isTrue(error.reason._tag === "BrokerError" && error.reason.reason._tag === "UnknownTopic")
        // Returns when the reader runs again; the topic says how to create it.
        const later = yield* Broadcast.subscribe(topic)
        yield* publishAll(topic, items(1, 1, 7))
        assert.deepStrictEqual(yield* take(later, 1), [7])
        yield* log.untilCount(2)
        assert.deepStrictEqual(numbersOf(log.all), [0, 7])
        assert.strictEqual((yield* going.status).restarts, 1)
      })
  )
}

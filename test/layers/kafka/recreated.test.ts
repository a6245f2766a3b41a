/** A topic that is deleted and created again before its consumer has noticed. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Broker from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import { freshKafka } from "../../suites/consumer/kafka.ts"
import { Outside } from "../../suites/consumer/outside.ts"
import {
  ascending,
  type Call,
  callOf,
  created,
  freshGroup,
  freshTopic,
  items,
  makeLog,
  member,
  numbers,
  publishAll,
  savingAtOnce,
  silent,
  upTo
} from "../../suites/consumer/support.ts"
import { kafkaBrokers, requireOrSkip } from "../../support/services.ts"
import { outside as outsideOf } from "./outside.ts"
import { connect, freshName, newTopic, sendText } from "./support.ts"

/** Joins, commits the position after the first records that come, leaves; tells the offset of the first. */
const readOnce = Effect.fnUntraced(function*(broker: Broker.Broker["Service"], group: string, topic: string) {
  const got = yield* Deferred.make<Extract<Broker.Signal, { readonly _tag: "Records" }>>()
  const subscription = yield* broker.subscribe({
    group,
    topics: [topic],
    onSignal: (signal) => signal._tag === "Records" ? Deferred.succeed(got, signal) : Effect.void
  })
  const { assignment, nextOffset, records } = yield* Deferred.await(got)
  yield* subscription.commit([{ ...assignment, offset: nextOffset }])
  return records[0]!.offset
}, Effect.scoped)

/** A group that has read a topic of three records, which is deleted and created again with six. */
const readAndReplaced = Effect.gen(function*() {
  const broker = yield* connect({ brokers: kafkaBrokers! })
  const kafka = outsideOf(kafkaBrokers!)
  const topic = yield* newTopic(broker, 1)
  const at = { topic, partition: 0 }
  const group = yield* freshName("group")
  const producer = yield* broker.producer
  yield* Effect.forEach(upTo(3), (n) => sendText(producer, topic, 0, String(n)))
  yield* readOnce(broker, group, topic)
  const { metadata } = yield* kafka.committedAs(group, at)
  yield* kafka.deleteTopic(topic)
  yield* kafka.createTopic(topic, 1)
  yield* Effect.forEach(upTo(6), (n) => sendText(producer, topic, 0, String(n)))
  return { broker, kafka, at, group, metadata: metadata ?? "" }
})

describe.skipIf(requireOrSkip("kafka"))("a topic that is created again at once", () => {
  // The position in the old topic is one in the new one as soon as that is long
  // enough. What was read from there before the member noticed comes again.
  it.live("and has more records soon than the old one had is read from its start", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const outside = yield* Outside
      const log = makeLog<Call>()
      yield* publishAll(topic, items(20, 10))
      yield* member(group, [
        Consumer.idempotent(topic, (event) => log.add(callOf(event)), {
          ordering: "partition",
          onFailure: savingAtOnce
        })
      ])
      yield* log.untilCount(20)
      yield* outside.deleteTopic(topic.name)
      yield* created(topic)
      yield* publishAll(topic, items(200, 10, 20))
      yield* log.until("all of the new topic", (calls) => new Set(numbers(calls)).size === 220)
      assert.deepStrictEqual(ascending([...new Set(numbers(log.all))]), upTo(220))
    }).pipe(Effect.scoped, Effect.provide(Layer.merge(freshKafka, silent))), 180_000)

  it.live(
    "and is read from its start although a position of the old one was committed later",
    () =>
      Effect.gen(function*() {
        const { at, broker, group, kafka, metadata } = yield* readAndReplaced
        yield* kafka.commit(group, at, 2n, metadata)
        assert.strictEqual(yield* readOnce(broker, group, at.topic), 0n)
        const later = yield* kafka.committedAs(group, at)
        assert.match(later.metadata ?? "", /^topic-id:/)
        assert.notStrictEqual(later.metadata, metadata)
        // A position in the topic as it is now is gone on from.
        yield* kafka.commit(group, at, 5n, later.metadata ?? "")
        assert.strictEqual(yield* readOnce(broker, group, at.topic), 5n)
      }),
    180_000
  )

  it.live("and is gone on with where somebody else has set the position", () =>
    Effect.gen(function*() {
      const { at, broker, group, kafka } = yield* readAndReplaced
      yield* kafka.commit(group, at, 2n, "set by hand")
      assert.strictEqual(yield* readOnce(broker, group, at.topic), 2n)
    }), 180_000)

  it.live("and is read from its start by a member that has heard nothing of it", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers: kafkaBrokers! })
      const kafka = outsideOf(kafkaBrokers!)
      const topic = yield* newTopic(broker, 1)
      const producer = yield* broker.producer
      const log = makeLog<string>()
      yield* Effect.forEach(upTo(3), (n) => sendText(producer, topic, 0, String(n)))
      const subscription = yield* broker.subscribe({
        group: yield* freshName("group"),
        topics: [topic],
        onSignal: (signal) =>
          signal._tag === "Records"
            ? Effect.forEach(signal.records, ({ offset }) => log.add(String(offset)), { discard: true })
            : log.add(signal._tag)
      })
      yield* log.until("all of the old topic", (seen) => seen.includes("2"))
      // Nothing is fetched now, so nobody is told that the topic is gone.
      yield* subscription.pause([{ topic, partition: 0 }])
      yield* kafka.deleteTopic(topic)
      yield* kafka.createTopic(topic, 1)
      yield* Effect.forEach(upTo(6), (n) => sendText(producer, topic, 0, String(n)))
      yield* subscription.resume([{ topic, partition: 0 }])
      yield* log.until("all of the new topic", (seen) => seen.at(-1) === "5" && seen.includes("Lost"))
      assert.deepStrictEqual(log.all.slice(0, 4), ["Assigned", "0", "1", "2"])
      assert.deepStrictEqual(log.all.slice(log.all.indexOf("Lost")), ["Lost", "Assigned", "0", "1", "2", "3", "4", "5"])
    }), 180_000)
})

/** Topics: what must exist, what is created, and what happens when they are not there. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Broker } from "../../../src/Broker.ts"
import { cases, freshName, within } from "../features.ts"
import type { BrokerFeatures, It } from "../features.ts"
import * as Journal from "./journal.ts"
import { freshGroup, freshTopic, reasonOf, record, send, sendTimeout } from "./support.ts"

export const topics = <R>(it: It<Broker | R>, features: BrokerFeatures<R>): void => {
  const { check, checkWith } = cases(it, features)

  const partitionsOf = (topic: string) =>
    Effect.scoped(Effect.gen(function*() {
      const producer = yield* Broker.use((broker) => broker.producer)
      return yield* producer.partitions(topic)
    }))

  const unknownTopic = (topic: string) => (reason: { readonly _tag: string; readonly topic?: string }) => {
    assert.strictEqual(reason._tag, "UnknownTopic")
    assert.strictEqual(reason.topic, topic)
  }

  check("a topic is created with the partitions asked for", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(4)
      assert.strictEqual(yield* partitionsOf(topic), 4)
    }))

  check("a topic that exists is left as it is", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      yield* send(topic, 1, ["kept"])
      const broker = yield* Broker
      yield* broker.ensureTopics([{ name: topic, create: { partitions: 5 } }, { name: topic, create: undefined }])
      assert.strictEqual(yield* partitionsOf(topic), 2)
      assert.strictEqual(yield* send(topic, 1, ["next"]), 1n)
    }))

  check("several programs that create the same topic at once all succeed", () =>
    Effect.gen(function*() {
      const name = yield* freshName("suite")
      const broker = yield* Broker
      const create = broker.ensureTopics([{ name, create: { partitions: 3 } }])
      yield* Effect.all([create, create, create, create], { concurrency: "unbounded" })
      assert.strictEqual(yield* partitionsOf(name), 3)
    }))

  check("a topic that is missing and has no settings to create it fails with its name", () =>
    Effect.gen(function*() {
      const present = yield* freshTopic()
      const missing = yield* freshName("missing")
      const broker = yield* Broker
      const required = [{ name: present, create: undefined }, { name: missing, create: undefined }]
      unknownTopic(missing)(yield* reasonOf(broker.ensureTopics(required)))
    }))

  check("a name that the broker does not take is refused", () =>
    Effect.gen(function*() {
      const broker = yield* Broker
      const reason = yield* reasonOf(broker.ensureTopics([{ name: "not a topic!", create: { partitions: 1 } }]))
      assert.strictEqual(reason._tag, "Refused")
    }))

  check("sending to a topic that does not exist is an error, never silence", () =>
    Effect.gen(function*() {
      const missing = yield* freshName("missing")
      unknownTopic(missing)(yield* reasonOf(send(missing, 0, ["lost?"])))
    }))

  check("sending to a partition that does not exist is an error that names it", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const reason = yield* reasonOf(send(topic, 2, ["lost?"]))
      unknownTopic(topic)(reason)
      assert.strictEqual(reason._tag === "UnknownTopic" ? reason.partition : undefined, 2)
      assert.strictEqual(yield* send(topic, 1, ["fine"]), 0n)
    }))

  check("asking for the partitions of a topic that does not exist fails", () =>
    Effect.gen(function*() {
      const missing = yield* freshName("missing")
      unknownTopic(missing)(yield* reasonOf(partitionsOf(missing)))
    }))

  check("subscribing to a topic that does not exist fails", () =>
    Effect.gen(function*() {
      const missing = yield* freshName("missing")
      const present = yield* freshTopic()
      const journal = yield* Journal.make
      const group = yield* freshGroup
      unknownTopic(missing)(yield* reasonOf(journal.member("a", { group, topics: [present, missing] })))
    }))

  check("tailing a topic that does not exist fails", () =>
    Effect.gen(function*() {
      const missing = yield* freshName("missing")
      const journal = yield* Journal.make
      unknownTopic(missing)(yield* reasonOf(journal.tail("a", { topics: [missing] })))
    }))

  checkWith(
    features.deleteTopic,
    "a topic that is deleted while it is produced to fails the send",
    (deleteTopic) =>
      Effect.gen(function*() {
        const topic = yield* freshTopic()
        const producer = yield* Broker.use((broker) => broker.producer)
        const sendOne = producer.send({ topic, partition: 0, records: [record("x")], timeout: sendTimeout })
        yield* sendOne
        yield* deleteTopic(topic)
        // a broker deletes in the background: sends may succeed for a while
        const reason = yield* within(reasonOf(Effect.forever(sendOne)), 60_000, () => "for a send to fail")
        assert.include(["UnknownTopic", "ResultUnknown"], reason._tag)
      })
  )

  checkWith(features.deleteTopic, "a subscription and a tail whose topic is deleted fail, and do not fall silent", (
    deleteTopic
  ) =>
    Effect.gen(function*() {
      const topic = yield* freshTopic()
      const journal = yield* Journal.make
      const member = yield* journal.member("member", { group: yield* freshGroup, topics: [topic] })
      const tail = yield* journal.tail("tail", { topics: [topic] })
      yield* deleteTopic(topic)
      unknownTopic(topic)(yield* within(reasonOf(member.failed), 60_000, () => "for the subscription to fail"))
      unknownTopic(topic)(yield* within(reasonOf(tail.failed), 60_000, () => "for the tail to fail"))
    }))
}

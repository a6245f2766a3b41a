/** What is asked and understood of topic ids, without a broker. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { unknownTopic } from "../../../src/Layers/internal/kafka/failure.ts"
import { attempt } from "../../../src/Layers/internal/kafkajs/errors.ts"
import type { Node, OwnRequest } from "../../../src/Layers/internal/kafkajs/internals.ts"
import * as TopicIds from "../../../src/Layers/internal/kafkajs/topicIds.ts"

const text = (value: string) => [value.length + 1, ...Buffer.from(value)]
const int32 = [0, 0, 0, 1]
const tagged = [1, 5, 2, 9, 9]

const topic = (code: number, name: string, id: number) => [
  0,
  code,
  ...text(name),
  ...Array.from({ length: 16 }, () => id),
  0,
  // One partition with two replicas, both in sync, none offline.
  2,
  0,
  0,
  ...int32,
  ...int32,
  ...int32,
  3,
  ...int32,
  ...int32,
  3,
  ...int32,
  ...int32,
  1,
  ...tagged,
  ...int32,
  ...tagged
]

/** An answer as a broker writes it, with a tagged field wherever one may be. */
const answer = (...topics: ReadonlyArray<ReadonlyArray<number>>) =>
  Buffer.from([
    ...tagged,
    ...int32,
    2,
    ...int32,
    ...text("localhost"),
    ...int32,
    0,
    ...tagged,
    ...text("cluster"),
    ...int32,
    topics.length + 1,
    ...topics.flat(),
    ...int32,
    ...tagged
  ])

/** A broker that speaks Metadata up to a version, and gives this answer. */
const brokerWith = (maxVersion: number, payload: Buffer) => {
  const broker = {
    versions: { 3: { minVersion: 0, maxVersion } },
    lookupRequest(): () => OwnRequest<unknown> {
      throw new Error("KafkaJS's own request")
    },
    metadata() {
      const { response } = this.lookupRequest()()
      return response.decode(payload).then(response.parse)
    }
  }
  return broker as unknown as Node
}

const idOf = (byte: number) => Buffer.alloc(16, byte).toString("base64url")

describe("topic ids", () => {
  it.effect("are read past everything else of the answer", () =>
    Effect.gen(function*() {
      const node = brokerWith(13, answer(topic(0, "a", 1), topic(0, "b", 2)))
      const ids = yield* Effect.promise(() => TopicIds.findAll(node, ["a", "b"]))
      assert.deepStrictEqual([...ids], [["a", idOf(1)], ["b", idOf(2)]])
    }))

  it.effect("are none where brokers do not tell them", () =>
    Effect.gen(function*() {
      const old = brokerWith(9, answer())
      assert.strictEqual((yield* Effect.promise(() => TopicIds.findAll(old, ["a"]))).size, 0)
      const without = brokerWith(10, answer(topic(0, "a", 0)))
      assert.strictEqual((yield* Effect.promise(() => TopicIds.findAll(without, ["a"]))).size, 0)
    }))

  it.effect("of a topic that does not exist fail as KafkaJS would, or are left out", () =>
    Effect.gen(function*() {
      const node = brokerWith(13, answer(topic(0, "a", 1), topic(3, "gone", 0)))
      const failure = yield* Effect.flip(attempt(() => TopicIds.findAll(node, ["a", "gone"])))
      assert.isTrue(unknownTopic(failure) && failure.transient)
      assert.deepStrictEqual([...(yield* Effect.promise(() => TopicIds.find(node, ["a", "gone"])))], [["a", idOf(1)]])
    }))

  it("decide which committed positions are believed", () => {
    const committed = (metadata: string | null) => ({
      responses: [{ topic: "a", partitions: [{ partition: 0, offset: "7", metadata }] }]
    })
    const offset = (metadata: string | null, ids: TopicIds.TopicIds) =>
      TopicIds.withoutOld(committed(metadata), ids).responses[0]!.partitions[0]!.offset
    const now = new Map([["a", "now"]])
    const [labelled] = TopicIds.label([{ topic: "a", partitions: [{ partition: 0, offset: "7" }] }], now)
    assert.strictEqual(offset(labelled!.partitions[0]!.metadata!, now), "7")
    assert.strictEqual(offset("topic-id:before", now), "-1")
    assert.strictEqual(offset("topic-id:before", new Map()), "7")
    for (const other of [null, "", "set by hand"]) assert.strictEqual(offset(other, now), "7")
  })

  it("that are new are no replacement", () => {
    const before = new Map([["a", "1"], ["b", "1"], ["gone", "1"]])
    assert.deepStrictEqual([...TopicIds.replaced(before, new Map([["a", "1"], ["b", "2"], ["new", "1"]]))], ["b"])
  })
})

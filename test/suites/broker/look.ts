/** Looking at a topic: its settings, the right to write, all of its records. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { Broker } from "../../../src/Broker.ts"
import { cases, freshName } from "../features.ts"
import type { BrokerFeatures, It } from "../features.ts"
import { bytes, freshTopic, reasonOf, record, send, sendRecords, sendToEach, sorted, upTo } from "./support.ts"

const decoder = new TextDecoder()

export const look = <R>(it: It<Broker | R>, features: BrokerFeatures<R>): void => {
  const { check, checkWith } = cases(it, features)

  const describe = (topic: string) => Broker.use((broker) => broker.describe(topic))
  const mayWrite = (topic: string) => Broker.use((broker) => broker.mayWrite(topic))
  const chunksOf = (topic: string) => Broker.use((broker) => Stream.runCollect(broker.read(topic)))
  const textsOf = (topic: string) =>
    Effect.map(
      chunksOf(topic),
      (chunks) =>
        chunks.flatMap(({ partition, records }) =>
          records.map((record) => ({ partition, text: decoder.decode(record.value ?? undefined) }))
        )
    )

  check(
    "a topic is described with its partitions and the settings that it was created with",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(4, {
          "cleanup.policy": "compact",
          "retention.ms": "777000",
          "max.message.bytes": "2000000"
        })
        const { config, partitions, replicationFactor } = yield* describe(topic)
        assert.strictEqual(partitions, 4)
        assert.isAtLeast(replicationFactor, 1)
        assert.strictEqual(config["cleanup.policy"], "compact")
        assert.strictEqual(config["retention.ms"], "777000")
        assert.strictEqual(config["max.message.bytes"], "2000000")
      })
  )

  check("settings that nobody gave are described, too", () =>
    Effect.gen(function*() {
      const { config } = yield* describe(yield* freshTopic())
      assert.strictEqual(config["cleanup.policy"], "delete")
      assert.match(config["retention.ms"]!, /^-?\d+$/)
      assert.match(config["max.message.bytes"]!, /^\d+$/)
    }))

  check(
    "describing or reading a topic that does not exist fails with its name, and does not create it",
    () =>
      Effect.gen(function*() {
        const missing = yield* freshName("missing")
        const attempts = [
          Effect.asVoid(describe(missing)),
          Effect.asVoid(chunksOf(missing)),
          Effect.asVoid(describe(missing))
        ]
        for (const attempt of attempts) {
          const reason = yield* reasonOf(attempt)
          assert.strictEqual(reason._tag, "UnknownTopic")
          assert.strictEqual(reason._tag === "UnknownTopic" ? reason.topic : undefined, missing)
        }
      })
  )

  check("asking for the right to write leaves no trace", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      yield* mayWrite(topic)
      yield* mayWrite(topic)
      assert.strictEqual(yield* send(topic, 0, ["first"]), 0n)
      assert.deepStrictEqual((yield* textsOf(topic)).map(({ text }) => text), ["first"])
    }))

  check("a read gives every record once, each partition in its order, and ends", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(3)
      const texts = yield* sendToEach(topic, 3, 700)
      const found = yield* textsOf(topic)
      assert.deepStrictEqual(sorted(found.map(({ text }) => text)), sorted(texts))
      for (const partition of upTo(3)) {
        assert.deepStrictEqual(
          found.filter((one) => one.partition === partition).map(({ text }) => text),
          upTo(700).map((n) => `v-${partition}-${n}`)
        )
      }
    }))

  check(
    "a read gives keys, headers, offsets and tombstones as they are, and large values",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic()
        yield* sendRecords(topic, 0, [
          record(null, "key", { tenant: "t-1" }),
          { ...record("x"), value: new Uint8Array(900_000).fill(7) }
        ])
        yield* sendRecords(topic, 0, [{ ...record("x"), value: new Uint8Array(900_000).fill(8) }])
        const records = (yield* chunksOf(topic)).flatMap(({ records }) => records)
        assert.deepStrictEqual(records.map(({ offset }) => offset), [0n, 1n, 2n])
        assert.isNull(records[0]!.value)
        assert.deepStrictEqual(Array.from(records[0]!.key!), Array.from(bytes("key")))
        assert.deepStrictEqual(records.slice(1).map(({ value }) => [value!.length, value![0]]), [[900_000, 7], [
          900_000,
          8
        ]])
      })
  )

  check("a read of an empty topic is empty", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* textsOf(yield* freshTopic(2)), [])
    }))

  check("a read ends where the topic ended when it began", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      yield* sendToEach(topic, 2, 10)
      const broker = yield* Broker
      let seen = 0
      yield* broker.read(topic).pipe(
        Stream.runForEach(({ records }) => {
          seen += records.length
          return records.length === 0 ? Effect.void : send(topic, 1, ["later"])
        })
      )
      assert.strictEqual(seen, 20)
    }))

  checkWith(
    features.skipOffsets,
    "a read passes offsets without records, also at the end",
    (skipOffsets) =>
      Effect.gen(function*() {
        const topic = yield* freshTopic()
        yield* send(topic, 0, ["a"])
        yield* skipOffsets({ topic, partition: 0 })
        yield* send(topic, 0, ["b"])
        yield* skipOffsets({ topic, partition: 0 })
        assert.includeMembers((yield* textsOf(topic)).map(({ text }) => text), ["a", "b"])
      })
  )
}

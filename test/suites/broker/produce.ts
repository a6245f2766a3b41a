/** Producing: what is sent lies in the log once, whole and in order. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Broker } from "../../../src/Broker.ts"
import { cases } from "../features.ts"
import type { BrokerFeatures, It } from "../features.ts"
import * as Journal from "./journal.ts"
import {
  freshGroup,
  freshTopic,
  headerBytes,
  nonEmpty,
  reasonOf,
  record,
  send,
  sendRecords,
  sendTimeout,
  sorted,
  upTo
} from "./support.ts"

export const produce = <R>(it: It<Broker | R>, features: BrokerFeatures<R>): void => {
  const { check } = cases(it, features)

  check(
    "a send returns the offset of its first record, and the next send continues there",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic()
        assert.strictEqual(yield* send(topic, 0, ["a", "b", "c"]), 0n)
        assert.strictEqual(yield* send(topic, 0, ["d"]), 3n)
        assert.strictEqual(yield* send(topic, 0, ["e", "f"]), 4n)
      })
  )

  check(
    "100 records that were sent before the subscription arrive once each, with key, value and headers equal",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic()
        const journal = yield* Journal.make
        const sent = upTo(100).map((n) =>
          record(`value-${n}`, `key-${n % 7}`, { "ce_id": `id-${n}`, "ce_type": "tested" })
        )
        yield* sendRecords(topic, 0, nonEmpty(sent))
        yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
        yield* journal.until("100 records", () => journal.deliveries().length >= 100)
        const got = journal.deliveries().map(({ record }) => record)
        assert.deepStrictEqual(got.map(({ offset }) => offset), upTo(100).map(BigInt))
        assert.deepStrictEqual(journal.texts(), upTo(100).map((n) => `value-${n}`))
        assert.deepStrictEqual(got.map(({ key }) => textOf(key)), sent.map(({ key }) => key))
        assert.deepStrictEqual(got.map(headerBytes), sent.map(headerBytes))
        assert.isTrue(got.every(({ timestamp }) => Number.isInteger(timestamp) && timestamp >= 0))
      })
  )

  check(
    "repeated header names, empty and binary header values survive the way, in order",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic()
        const journal = yield* Journal.make
        const sent = record("v", "k", {
          single: "text",
          unicode: "Grüße, 世界 🎉",
          empty: "",
          binary: new Uint8Array([0, 255, 254, 10, 128]),
          twice: ["first", "second"],
          mixed: ["", new Uint8Array([200, 201]), "last"]
        })
        yield* sendRecords(topic, 0, [sent])
        yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
        yield* journal.until("the record", () => journal.deliveries().length >= 1)
        assert.deepStrictEqual(journal.deliveries().map(({ record }) => headerBytes(record)), [headerBytes(sent)])
      })
  )

  check("a tombstone, an empty value, an empty key and no key stay different things", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic()
      const journal = yield* Journal.make
      yield* sendRecords(topic, 0, [
        record(null, "tombstone"),
        record("", "empty value"),
        record("empty key", ""),
        record("no key", null),
        record(null, null)
      ])
      yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
      yield* journal.until("five records", () => journal.deliveries().length >= 5)
      assert.deepStrictEqual(
        journal.deliveries().map(({ record, text }) => [textOf(record.key), text]),
        [["tombstone", null], ["empty value", ""], ["", "empty key"], [null, "no key"], [null, null]]
      )
    }))

  check("a value of 1 MiB arrives whole", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1, { "max.message.bytes": String(2 ** 21) })
      const journal = yield* Journal.make
      const value = new Uint8Array(2 ** 20).map((_, index) => (index * 31) % 251)
      yield* sendRecords(topic, 0, [record(value, "large")])
      yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
      yield* journal.until("the record", () => journal.deliveries().length >= 1)
      const [delivery] = journal.deliveries()
      assert.strictEqual(journal.deliveries().length, 1)
      assert.isTrue(Buffer.from(value).equals(delivery!.record.value!), "the value differs")
    }))

  check("2,000 records of one partition arrive in the order given, once each", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic()
      const journal = yield* Journal.make
      const texts = upTo(2_000).map((n) => `n-${n}`)
      yield* send(topic, 0, texts.slice(0, 900))
      yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
      yield* send(topic, 0, texts.slice(900))
      yield* journal.until("2,000 records", () => journal.deliveries().length >= 2_000)
      assert.deepStrictEqual(journal.texts(), texts)
    }))

  check(
    "sends of different partitions overlap; each partition keeps its order and loses nothing",
    () =>
      Effect.gen(function*() {
        const partitions = 6
        const topic = yield* freshTopic(partitions)
        const journal = yield* Journal.make
        const producer = yield* Broker.use((broker) => broker.producer)
        yield* Effect.forEach(upTo(partitions), (partition) =>
          Effect.forEach(upTo(20), (batch) =>
            producer.send({
              topic,
              partition,
              records: nonEmpty(upTo(5).map((n) => record(`${partition}-${batch * 5 + n}`))),
              timeout: sendTimeout
            })), { concurrency: "unbounded" })
        yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
        yield* journal.until("600 records", () => journal.deliveries().length >= 600)
        for (const partition of upTo(partitions)) {
          const own = journal.deliveries().filter((delivery) => delivery.partition === partition)
          assert.deepStrictEqual(own.map(({ text }) => text), upTo(100).map((n) => `${partition}-${n}`))
        }
        assert.strictEqual(journal.deliveries().length, 600)
      })
  )

  check("many producers at once lose nothing and double nothing", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const journal = yield* Journal.make
      const texts = yield* Effect.forEach(upTo(10), (producer) => {
        const own = upTo(20).map((n) => `${producer}-${n}`)
        return Effect.as(send(topic, producer % 2, own), own)
      }, { concurrency: "unbounded" })
      yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
      yield* journal.until("200 records", () => journal.deliveries().length >= 200)
      assert.deepStrictEqual(sorted(journal.texts()), sorted(texts.flat()))
    }))

  check(
    "a batch that is too large for its topic is refused whole, and the producer goes on",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1, { "max.message.bytes": "2000" })
        const journal = yield* Journal.make
        const producer = yield* Broker.use((broker) => broker.producer)
        const large = record(noise(10_000))
        const refused = yield* reasonOf(
          producer.send({ topic, partition: 0, records: [record("first"), large], timeout: sendTimeout })
        )
        assert.strictEqual(refused._tag, "TooLarge")
        yield* producer.send({ topic, partition: 0, records: [record("small")], timeout: sendTimeout })
        yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
        yield* journal.until("a record", () => journal.deliveries().length >= 1)
        assert.deepStrictEqual(journal.texts(), ["small"])
      })
  )
}

const decoder = new TextDecoder()

const textOf = (value: Uint8Array | null): string | null => value === null ? null : decoder.decode(value)

/** Bytes that no compression makes small. */
const noise = (length: number): Uint8Array => globalThis.crypto.getRandomValues(new Uint8Array(length))

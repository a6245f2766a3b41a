/** On the wire: what records look like that others wrote, and where keys go. */
import { assert } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import type { ConsumerRecord, Headers } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import type * as Event from "../../../src/Event.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import * as Publisher from "../../../src/Publisher.ts"
import * as Topic from "../../../src/Topic.ts"
import { headerBytes, record, sendRecords } from "../broker/support.ts"
import { cases, freshName, type It } from "../features.ts"
import {
  blocking,
  type Call,
  callOf,
  created,
  deadLetters,
  freshGroup,
  freshTopic,
  type FrontFeatures,
  headerText,
  Item,
  makeLog,
  member,
  numbers,
  publishAll,
  savingAtOnce,
  type Services
} from "./support.ts"

/** Keys with the hashes that Kafka's own tests expect of Java's murmur2 (`UtilsTest.testMurmur2`). */
const javaHashes: ReadonlyArray<readonly [string, number]> = [
  ["21", -973932308],
  ["foobar", -790332482],
  ["a-little-bit-long-string", -985981536],
  ["a-little-bit-longer-string", -1486304829],
  ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
  ["abc", 479470107]
]

const json = (value: unknown): string => JSON.stringify(value)

export const wire = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  check("a key lands on the partition that the Java client would choose", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(7)
      for (const [key, hash] of javaHashes) {
        const { partition } = yield* Publisher.publish(topic, { key, n: 0 })
        assert.strictEqual(partition, (hash & 0x7fffffff) % 7, key)
      }
    }))

  check(
    "repeated, empty and binary headers, a tombstone, an empty key and no key arrive as they were sent",
    () =>
      Effect.gen(function*() {
        const name = yield* freshName("front")
        const topic = yield* created(Topic.make(name, { schema: Schema.NullOr(Item), create: { partitions: 1 } }))
        const group = yield* freshGroup
        const log = makeLog<Event.Event<Item | null>>()
        const headers: Headers = { twice: ["first", "second"], empty: "", binary: new Uint8Array([0, 255, 128, 10]) }
        const sent = [
          record(json({ key: "a", n: 1 }), "a", headers),
          record(null, "gone", { reason: "tombstone" }),
          record(json({ key: "", n: 2 }), ""),
          record(json({ key: "", n: 3 }), null)
        ] as const
        yield* sendRecords(name, 0, sent)
        yield* member(group, [
          Consumer.idempotent(topic, (event) => log.add(event), { ordering: "partition", onFailure: blocking })
        ])
        yield* log.untilCount(4)
        const [full, tombstone, emptyKey, noKey] = log.all
        const received: ConsumerRecord = { key: null, value: null, headers: full!.headers, offset: 0n, timestamp: 0 }
        assert.deepStrictEqual(headerBytes(received), headerBytes(sent[0]))
        assert.strictEqual(full!.key, "a")
        assert.deepStrictEqual([tombstone!.key, tombstone!.payload], ["gone", null])
        assert.deepStrictEqual([emptyKey!.key, emptyKey!.payload?.n], ["", 2])
        assert.deepStrictEqual([noKey!.key, noKey!.payload?.n], [null, 3])
      })
  )

  check("a payload of 1 MiB arrives whole where topic and broker allow it", () =>
    Effect.gen(function*() {
      const name = yield* freshName("front")
      const topic = yield* created(Topic.make(name, {
        schema: Schema.String,
        maxBytes: 2_000_000,
        create: { partitions: 1, config: { "max.message.bytes": "2000000" } }
      }))
      const group = yield* freshGroup
      const log = makeLog<string>()
      const large = "0123456789abcdef".repeat(65_536)
      yield* Publisher.publish(topic, large)
      yield* member(group, [Consumer.idempotent(topic, (event) => log.add(event.payload), { onFailure: blocking })])
      yield* log.untilCount(1)
      assert.isTrue(log.all[0] === large, "the payload has changed")
    }))

  check(
    "records of other producers are read: without attributes, structured, with a charset, with a time that is none",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Event.Event<Item>>()
        const attributes = { ce_specversion: "1.0", ce_id: "their-id", ce_type: "theirs", ce_source: "/them" }
        yield* sendRecords(topic.name, 0, [
          record(json({ key: "k", n: 1 }), "k"),
          record(
            json({
              specversion: "1.0",
              id: "structured-id",
              type: "structured",
              source: "/structured",
              time: "2020-01-02T03:04:05Z",
              data: { key: "k", n: 2 }
            }),
            "k",
            { "content-type": "application/cloudevents+json; charset=utf-8" }
          ),
          record(json({ key: "k", n: 3 }), "k", {
            ...attributes,
            ce_time: "2021-02-03T04:05:06.789Z",
            "content-type": "application/json; charset=UTF-8"
          }),
          record(json({ key: "k", n: 4 }), "k", { ...attributes, ce_id: "their-other-id", ce_time: "yesterday" })
        ])
        yield* member(group, [Consumer.idempotent(topic, (event) => log.add(event), { onFailure: blocking })])
        yield* log.untilCount(4)
        const [bare, structured, charset, badTime] = log.all
        assert.deepStrictEqual(log.all.map((event) => event.payload.n), [1, 2, 3, 4])
        assert.isTrue(bare!.id.startsWith(`${topic.name}/0/0/`), bare!.id)
        assert.deepStrictEqual([bare!.type, bare!.source], ["", ""])
        assert.deepStrictEqual(
          [structured!.id, structured!.type, structured!.source, DateTime.formatIso(structured!.time)],
          ["structured-id", "structured", "/structured", "2020-01-02T03:04:05.000Z"]
        )
        assert.deepStrictEqual(
          [charset!.id, charset!.type, charset!.source, DateTime.formatIso(charset!.time)],
          ["their-id", "theirs", "/them", "2021-02-03T04:05:06.789Z"]
        )
        // The broker's time stands in; it is that of the append, so of about now and not of "yesterday".
        const { time } = badTime!
        assert.isAbove(DateTime.toEpochMillis(time), DateTime.toEpochMillis(bare!.time) - 60_000)
      })
  )

  /** One record that does not decode between two that do, all of one key. */
  const withPoison = (name: string) =>
    sendRecords(name, 0, [
      record(json({ key: "k", n: 1 }), "k"),
      record(new Uint8Array([0x7b, 0xff, 0xfe]), "k", { tenant: "t-1" }),
      record(json({ key: "k", n: 2 }), "k"),
      record(json({ key: "other", n: 3 }), "other")
    ])

  check(
    "undecodable bytes under save: a dead letter that keeps the bytes, and the rest goes on",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* withPoison(topic.name)
        const running = yield* member(group, [Consumer.idempotent(topic, (event) => log.add(callOf(event)))])
        yield* log.untilCount(3)
        yield* running.stop
        const [letter, ...more] = yield* deadLetters(topic, group)
        assert.deepStrictEqual(more, [])
        assert.deepStrictEqual(Array.from(letter!.value!), [0x7b, 0xff, 0xfe])
        assert.strictEqual(headerText(letter!, "dl_error_tag"), "Undecodable")
        assert.strictEqual(headerText(letter!, "dl_attempts"), "1")
        assert.strictEqual(headerText(letter!, "tenant"), "t-1")
        assert.deepStrictEqual(numbers(log.all.filter((call) => call.key === "k")), [1, 2])
      })
  )

  check("undecodable bytes under discard: that record is skipped, and the rest goes on", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const log = makeLog<Call>()
      yield* withPoison(topic.name)
      yield* member(group, [
        Consumer.idempotent(topic, (event) => log.add(callOf(event)), { onFailure: FailurePolicy.discard() })
      ])
      yield* log.untilCount(3)
      assert.deepStrictEqual(numbers(log.all.filter((call) => call.key === "k")), [1, 2])
    }))

  check(
    "undecodable bytes under block: their key waits, others go on, and the next instance finds them again",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* withPoison(topic.name)
        const blocked = yield* member(group, [
          Consumer.idempotent(topic, (event) => log.add(callOf(event, "blocked")), {
            onFailure: { ...FailurePolicy.block(), retry: Schedule.spaced("20 millis") }
          })
        ])
        yield* publishAll(topic, [new Item({ key: "later", n: 4 })])
        yield* log.untilCount(3)
        yield* blocked.stop
        assert.sameMembers(Array.from(numbers(log.all)), [1, 3, 4])
        yield* member(group, [
          Consumer.idempotent(topic, (event) => log.add(callOf(event, "saves")), { onFailure: savingAtOnce })
        ])
        yield* log.until("what waited behind it", (calls) => calls.some((call) => call.n === 2))
        const letters = yield* deadLetters(topic, group)
        assert.strictEqual(letters.length, 1)
      })
  )

  check(
    "a payload that does not fit the schema is undecodable too, and the dead letter says what does not fit",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* sendRecords(topic.name, 0, [
          record(json({ key: "k", n: "one" }), "k"),
          record(json({ key: "k", n: 2 }), "k")
        ])
        const running = yield* member(group, [Consumer.idempotent(topic, (event) => log.add(callOf(event)))])
        yield* log.untilCount(1)
        yield* running.stop
        const letters = yield* deadLetters(topic, group)
        assert.deepStrictEqual(letters.map((letter) => headerText(letter, "dl_error_tag")), ["Undecodable"])
        assert.match(headerText(letters[0]!, "dl_error_message")!, /Expected [^]*\["n"\]/)
      })
  )

  check("keys beyond ASCII arrive as they were published", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(3)
      const group = yield* freshGroup
      const log = makeLog<Call>()
      const keys = ["grün", "日本", "🦀", "a b/c?d=é"]
      yield* publishAll(topic, keys.map((key, n) => new Item({ key, n })))
      yield* member(group, [Consumer.idempotent(topic, (event) => log.add(callOf(event)), { onFailure: blocking })])
      yield* log.untilCount(keys.length)
      assert.sameMembers(log.all.map((call) => call.key), keys)
    }))
}

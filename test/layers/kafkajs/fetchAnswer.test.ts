/** What is shown of an answer to a fetch, and that it is what KafkaJS reads where that is right. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { createRequire } from "node:module"
import { visible } from "../../../src/Layers/internal/kafka/recordBatch.ts"
import { decode } from "../../../src/Layers/internal/kafkajs/fetchAnswer.ts"
import { answerOf, type GivenBatch, type GivenPartition, type GivenRecord, marker } from "./answers.ts"

const versions = [4, 5, 7, 8, 11]

type Decode = (payload: Buffer) => Promise<any>
const byKafkaJs = (version: number): Decode =>
  createRequire(import.meta.url)(`kafkajs/src/protocol/requests/fetch/v${version}/response`).decode

const decoded = (version: number, payload: Buffer) => decode(version, payload, byKafkaJs(version))

const shown = (from: number, partition: GivenPartition) =>
  Effect.promise(() => decoded(11, answerOf(11, "items", [partition]))).pipe(
    Effect.map(({ responses }) => {
      const { nextOffset, records } = visible(responses[0]!.partitions[0]!.messages, BigInt(from))
      return { offsets: records.map(({ offset }) => Number(offset)), next: Number(nextOffset) }
    })
  )

const inTransaction = (offset: number, producerId: number): GivenBatch => ({
  records: [{ offset }],
  producerId,
  transactional: true
})
const plain = (...offsets: ReadonlyArray<number>): GivenBatch => ({ records: offsets.map((offset) => ({ offset })) })
const [x, y] = [1, 2] as const

describe("what is shown of an answer", () => {
  it.effect("two transactions that are open at the fetch offset and both aborted are both left out", () =>
    Effect.gen(function*() {
      // x0 y1 | x2 y3 abort(x)4 abort(y)5 6, fetched from 2: KafkaJS lets y3 through
      const batches = [
        inTransaction(2, x),
        inTransaction(3, y),
        marker(4, x, "abort"),
        marker(5, y, "abort"),
        plain(6)
      ]
      assert.deepStrictEqual(yield* shown(2, { batches, aborted: [[x, 0], [y, 1]] }), { offsets: [6], next: 7 })
    }))

  it.effect("aborted transactions count in the order in which they began, in whatever order they are listed", () =>
    Effect.gen(function*() {
      const batches = [
        inTransaction(0, x),
        inTransaction(1, y),
        marker(2, y, "abort"),
        marker(3, x, "abort"),
        plain(4)
      ]
      assert.deepStrictEqual(yield* shown(0, { batches, aborted: [[y, 1], [x, 0]] }), { offsets: [4], next: 5 })
    }))

  it.effect("a producer that aborted once and committed later is seen again", () =>
    Effect.gen(function*() {
      const batches = [inTransaction(0, x), marker(1, x, "abort"), inTransaction(2, x), marker(3, x, "commit")]
      assert.deepStrictEqual(yield* shown(0, { batches, aborted: [[x, 0]] }), { offsets: [2], next: 4 })
    }))

  it.effect("records outside of transactions pass beside an aborted one of the same producer id", () =>
    Effect.gen(function*() {
      const batches = [inTransaction(0, x), { ...plain(1), producerId: x }, marker(2, x, "abort")]
      assert.deepStrictEqual(yield* shown(0, { batches, aborted: [[x, 0]] }), { offsets: [1], next: 3 })
    }))

  it.effect("records below the fetch offset are left out, and still count for what is aborted", () =>
    Effect.gen(function*() {
      const batches = [inTransaction(0, x), marker(1, x, "abort"), inTransaction(2, x), plain(3, 4)]
      assert.deepStrictEqual(yield* shown(2, { batches, aborted: [[x, 0]] }), { offsets: [2, 3, 4], next: 5 })
      assert.deepStrictEqual(yield* shown(4, { batches, aborted: [[x, 0]] }), { offsets: [4], next: 5 })
    }))

  it.effect("control records alone move the position", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* shown(4, { batches: [marker(4, x, "commit")] }), { offsets: [], next: 5 })
    }))

  it.effect("a batch whose last records, or all of them, were compacted away is passed to its end", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* shown(10, { batches: [{ ...plain(10), last: 19 }] }), { offsets: [10], next: 20 })
      const emptied = { records: [], first: 20, last: 29 }
      assert.deepStrictEqual(yield* shown(20, { batches: [emptied] }), { offsets: [], next: 30 })
      assert.deepStrictEqual(yield* shown(20, { batches: [emptied, plain(30)] }), { offsets: [30], next: 31 })
    }))

  it.effect("an empty answer moves nothing, nor does one that ends below the fetch offset", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* shown(7, { batches: [] }), { offsets: [], next: 7 })
      assert.deepStrictEqual(yield* shown(7, { batches: [plain(5, 6)] }), { offsets: [], next: 7 })
    }))

  it.effect("a batch that the broker has cut off is left for the next fetch", () =>
    Effect.gen(function*() {
      const batches = [plain(0, 1), plain(2, 3)]
      for (const cut of [1, 30, 65]) {
        assert.deepStrictEqual(yield* shown(0, { batches, cut }), { offsets: [0, 1], next: 2 })
      }
    }))

  it.effect("a header without a value has none, and a repeated one all of them in order", () =>
    Effect.gen(function*() {
      const headers = [
        ["a", Buffer.from("1")],
        ["none", null],
        ["a", Buffer.from("2")],
        ["a", Buffer.from("3")],
        ["toString", Buffer.from("4")],
        ["__proto__", Buffer.from("5")]
      ] as const
      const payload = answerOf(11, "items", [{ batches: [{ records: [{ offset: 0, headers }] }] }])
      const { responses } = yield* Effect.promise(() => decoded(11, payload))
      const read = responses[0]!.partitions[0]!.messages[0]!.headers
      assert.deepStrictEqual(Object.entries(read).map(([name, value]) => [name, String(value)]), [
        ["a", "1,2,3"],
        ["none", "undefined"],
        ["toString", "4"],
        ["__proto__", "5"]
      ])
      assert.strictEqual(Object.getPrototypeOf(read), Object.prototype)
    }))

  it.effect("a codec that nobody has registered fails the fetch by its name", () =>
    Effect.gen(function*() {
      const payload = answerOf(11, "items", [{ batches: [{ ...plain(0), compressed: true }] }])
      // Snappy instead of gzip, in the attributes of the first batch.
      const attributes = payload.indexOf(Buffer.from([2, 0, 0, 0, 0, 0, 1])) + 6
      payload[attributes] = 2
      const failure = yield* Effect.flip(Effect.tryPromise(() => decoded(11, payload)))
      assert.match(String(failure.cause), /Snappy/)
    }))

  it.effect("a batch that counts more records than it has fails the fetch", () =>
    Effect.gen(function*() {
      const payload = answerOf(11, "items", [{ batches: [plain(0, 1)] }])
      const count = payload.indexOf(Buffer.from([0, 0, 0, 2, 12]))
      payload.writeInt32BE(2 ** 30, count)
      const failure = yield* Effect.flip(Effect.tryPromise(() => decoded(11, payload)))
      assert.match(String(failure.cause), /ends before its last record/)
    }))

  it.effect("a broker that is too old to be asked with transactions is named as the reason", () =>
    Effect.gen(function*() {
      const failure = yield* Effect.flip(Effect.tryPromise(() => decoded(3, Buffer.alloc(0))))
      assert.match(String(failure.cause), /Kafka 0\.11/)
    }))

  it.effect("records of the form before Kafka 0.11 are read as KafkaJS reads them", () =>
    Effect.gen(function*() {
      const require = createRequire(import.meta.url)
      const messageSet = require("kafkajs/src/protocol/messageSet")
      const entries = [{ key: "k", value: "v", timestamp: 5 }]
      const { buffer } = messageSet({ messageVersion: 1, entries })
      // What KafkaJS writes begins with the size of the set, as an answer wants it.
      const empty = answerOf(11, "items", [{ batches: [] }])
      const set = buffer as Buffer
      const isSized = set.readInt32BE(0) === set.length - 4
      const size = Buffer.alloc(4)
      size.writeInt32BE(set.length)
      const payload = Buffer.concat([empty.subarray(0, empty.length - 4), ...(isSized ? [set] : [size, set])])
      const { responses } = yield* Effect.promise(() => decoded(11, payload))
      assert.deepStrictEqual(
        responses[0]!.partitions[0]!.messages.map(({ headers, key, timestamp, value }) => ({
          key: key === null ? null : String(key),
          value: String(value),
          headers,
          timestamp
        })),
        [{ key: "k", value: "v", headers: {}, timestamp: 5 }]
      )
    }))
})

const bytes = fc.uint8Array({ maxLength: 20 }).map((all) => Buffer.from(all))
const anyRecord: fc.Arbitrary<Omit<GivenRecord, "offset">> = fc.record({
  key: fc.option(bytes),
  value: fc.option(bytes),
  headers: fc.array(
    fc.tuple(fc.oneof(fc.constantFrom("ce_id", "ce_type", "a", "b"), fc.string({ minLength: 1, maxLength: 6 })), bytes),
    { maxLength: 6 }
  ),
  timestamp: fc.integer({ min: 0, max: 2 ** 45 })
})
const anyBatch = fc.record({
  records: fc.array(fc.record({ record: anyRecord, gap: fc.integer({ min: 1, max: 3 }) }), {
    minLength: 1,
    maxLength: 5
  }),
  compressed: fc.boolean(),
  appendTime: fc.option(fc.integer({ min: 1, max: 2 ** 45 }), { nil: undefined })
})
const anyPartition = (partition: number) =>
  fc.array(anyBatch, { maxLength: 4 }).map((all): GivenPartition => {
    let offset = 2 ** 33
    const batches = all.map(({ appendTime, compressed, records }): GivenBatch => ({
      compressed,
      ...(appendTime === undefined ? {} : { appendTime }),
      records: records.map(({ gap, record }) => ({ ...record, offset: offset += gap }))
    }))
    return { partition, batches }
  })

describe("an answer without transactions", () => {
  it("is read as KafkaJS reads it, in every version of the request", () =>
    fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...versions),
        anyPartition(0),
        anyPartition(3),
        (version, first, second) => {
          const payload = answerOf(version, "items", [first, second])
          return Promise.all([decoded(version, payload), byKafkaJs(version)(payload)]).then(([ours, theirs]) => {
            const theirPartitions = theirs.responses[0].partitions.map((partition: any) => ({
              partition: partition.partition,
              errorCode: partition.errorCode,
              highWatermark: partition.highWatermark,
              messages: partition.messages.map((message: any) => ({
                key: message.key,
                value: message.value,
                headers: Object.entries(message.headers),
                offset: BigInt(message.offset),
                timestamp: Number(message.timestamp),
                isControlRecord: false
              }))
            }))
            const { responses, ...rest } = ours
            const ourPartitions = responses[0]!.partitions.map(({ preferredReadReplica, ...partition }) => ({
              ...partition,
              messages: partition.messages.map((message) => ({ ...message, headers: Object.entries(message.headers) }))
            }))
            assert.deepStrictEqual(ourPartitions, theirPartitions)
            assert.strictEqual(responses[0]!.topicName, "items")
            assert.strictEqual(rest.throttleTime, theirs.throttleTime)
            assert.strictEqual(rest.clientSideThrottleTime, theirs.clientSideThrottleTime)
          })
        }
      ),
      { numRuns: 300 }
    ))
})

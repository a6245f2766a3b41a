/** What is written into a batch is what is read out of it. */
import { assert, describe, it } from "@effect/vitest"
import { crc32c } from "@platformatic/kafka"
import * as fc from "fast-check"
import type { Headers, ProducerRecord } from "../../../src/Broker.ts"
import * as BatchWriter from "../../../src/Layers/internal/kafka/batchWriter.ts"
import { readBatches, readRecords } from "../../../src/Layers/internal/kafka/recordBatch.ts"

const bytes = fc.uint8Array({ maxLength: 300 })
const value = fc.oneof(bytes, fc.string({ unit: "grapheme", maxLength: 200 }))
const record: fc.Arbitrary<ProducerRecord> = fc.record({
  key: fc.option(value),
  value: fc.option(bytes),
  headers: fc.dictionary(
    fc.string({ unit: "grapheme", minLength: 1, maxLength: 20 }),
    fc.oneof(value, fc.array(value, { minLength: 2, maxLength: 3 }), fc.constant(undefined)),
    { maxKeys: 4, noNullPrototype: true }
  )
})

const bytesOf = (value: string | Uint8Array): Array<number> =>
  Array.from(typeof value === "string" ? Buffer.from(value) : value)

const plain = (headers: Headers) =>
  Object.entries(headers).flatMap(([name, value]) =>
    value === undefined
      ? []
      : [[name, (typeof value === "string" || value instanceof Uint8Array ? [value] : value).map(bytesOf)]]
  ).sort(([a], [b]) => String(a) < String(b) ? -1 : 1)

const encode = (records: ReadonlyArray<ProducerRecord>) =>
  BatchWriter.encode(
    { records, identity: { producerId: 7n, producerEpoch: 3 }, sequence: 11, timestamp: 1_700_000_000_000 },
    crc32c
  )

describe("a batch", () => {
  it("is read as it was written: keys, values, headers, offsets and the time", () => {
    fc.assert(fc.property(fc.array(record, { minLength: 1, maxLength: 20 }), (records) => {
      const batches = readBatches(encode(records))!
      assert.strictEqual(batches.length, 1)
      const [batch] = batches
      assert.strictEqual(batch!.producerId, 7n)
      const read = readRecords([[batch!, batch!.records]], [])
      assert.deepStrictEqual(read.map(({ offset }) => offset), records.map((_, index) => BigInt(index)))
      read.forEach((found, index) => {
        const given = records[index]!
        assert.deepStrictEqual(
          found.key === null ? null : bytesOf(found.key),
          given.key === null ? null : bytesOf(given.key)
        )
        assert.deepStrictEqual(
          found.value === null ? null : bytesOf(found.value),
          given.value === null ? null : bytesOf(given.value)
        )
        assert.deepStrictEqual(plain(found.headers), plain(given.headers))
        assert.strictEqual(found.timestamp, 1_700_000_000_000)
      })
    }))
  })

  it("is read as it was written, whatever its records' lengths take", () => {
    for (const around of [0, 40, 8_150]) {
      const records = Array.from({ length: 90 }, (_, i) => ({
        key: "ä".repeat(i % 70),
        value: new Uint8Array(around + i),
        headers: {}
      }))
      const read = readRecords([[readBatches(encode(records))![0]!, readBatches(encode(records))![0]!.records]], [])
      assert.deepStrictEqual(
        read.map(({ key, value }) => [key?.toString(), value?.length]),
        records.map(({ key, value }) => [key, value.length])
      )
    }
  })

  it("is as long as it says, also with records of more than 16 KiB", () => {
    const large = { key: "key", value: new Uint8Array(70_000), headers: {} }
    const batch = encode([large, { key: null, value: null, headers: {} }])
    assert.strictEqual(batch.readInt32BE(8), batch.length - 12)
    assert.strictEqual(readRecords([[readBatches(batch)![0]!, readBatches(batch)![0]!.records]], []).length, 2)
  })

  it("lets go of the answer that it came in: what waits of one partition does not hold the others", () => {
    const batch = encode([{ key: "key", value: new Uint8Array(70_000), headers: {} }])
    const answer = Buffer.concat([batch, Buffer.alloc(1_000_000)])
    const [read] = readBatches(answer.subarray(0, batch.length))!
    assert.isBelow(read!.records.buffer.byteLength, 80_000)
  })
})

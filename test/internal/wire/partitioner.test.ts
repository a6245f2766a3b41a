/** Keys find the partition that Kafka's Java client and KafkaJS would choose. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Partitioners } from "kafkajs"
import { createRequire } from "node:module"
import { murmur2, partitionOf, partOf } from "../../../src/internal/wire/partitioner.ts"

const theirMurmur2 = createRequire(import.meta.url)(
  "kafkajs/src/producer/partitioners/default/murmur2"
) as (key: string | Buffer) => number

const theirPartitioner = Partitioners.DefaultPartitioner()

const theirPartition = (key: string, partitions: number): number =>
  theirPartitioner({
    topic: "topic",
    partitionMetadata: Array.from({ length: partitions }, (_, partitionId) => ({
      partitionErrorCode: 0,
      partitionId,
      leader: 0,
      replicas: [],
      isr: []
    })),
    message: { key, value: null }
  })

const utf8 = (text: string) => new TextEncoder().encode(text)

/** Any text: ASCII, several bytes per character, empty. */
const text = fc.oneof(fc.string(), fc.string({ unit: "binary" }), fc.string({ unit: "grapheme", maxLength: 60 }))

describe("partitioner", () => {
  it("hashes as the Java client does in its own tests", () => {
    const known: ReadonlyArray<readonly [string, number]> = [
      ["21", -973932308],
      ["foobar", -790332482],
      ["a-little-bit-long-string", -985981536],
      ["a-little-bit-longer-string", -1486304829],
      ["lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971],
      ["abc", 479470107]
    ]
    for (const [key, hash] of known) assert.strictEqual(murmur2(utf8(key)), hash, key)
  })

  it("hashes any text as KafkaJS does, non-ASCII too", () => {
    fc.assert(fc.property(text, (key) => assert.strictEqual(murmur2(utf8(key)), theirMurmur2(key))), { numRuns: 500 })
  })

  it("hashes any bytes as KafkaJS does, whatever their number", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        assert.strictEqual(murmur2(bytes), theirMurmur2(Buffer.from(bytes)))
      }),
      { numRuns: 500 }
    )
  })

  it("puts a key into the partition that KafkaJS would choose", () => {
    fc.assert(
      fc.property(text.filter((key) => key !== ""), fc.integer({ min: 1, max: 200 }), (key, partitions) => {
        assert.strictEqual(partitionOf(key, partitions), theirPartition(key, partitions))
      }),
      { numRuns: 300 }
    )
  })

  it("names an existing partition and part, for the empty key as well", () => {
    fc.assert(fc.property(text, text, fc.integer({ min: 1, max: 200 }), (topic, key, count) => {
      for (const n of [partitionOf(key, count), partOf(topic, key, count)]) {
        assert.isTrue(Number.isInteger(n) && n >= 0 && n < count, `${n} of ${count}`)
      }
    }))
  })

  it("the outbox part of a topic and key never changes between versions", () => {
    assert.strictEqual(partOf("orders.placed", "customer-1", 64), theirPartition("orders.placed\u0000customer-1", 64))
    assert.deepStrictEqual(
      ["customer-1", "customer-2", "customer-3", "", "Zürich", "東京"].map((key) => partOf("orders.placed", key, 64)),
      [18, 40, 12, 56, 60, 12]
    )
  })
})

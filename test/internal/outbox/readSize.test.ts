/** How many rows the relay reads at once. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { ReadSize } from "../../../src/internal/outbox/readSize.ts"

const mebibyte = 1024 * 1024

describe("the size of a read", () => {
  it("reaches the batch size of small rows within a few reads", () => {
    const size = new ReadSize(500)
    const limits = Array.from({ length: 4 }, () => {
      const { limit } = size
      size.learn(limit, limit * 300)
      return limit
    })
    assert.deepStrictEqual(limits, [64, 128, 256, 500])
  })

  it("is at least one row, however large, and at most the batch size", () => {
    const reads = fc.array(fc.tuple(fc.nat(500), fc.nat(20 * mebibyte)), { minLength: 1 })
    fc.assert(fc.property(fc.integer({ min: 1, max: 1_000 }), reads, (most, reads) => {
      const size = new ReadSize(most)
      for (const [rows, each] of reads) {
        size.learn(rows, rows * each)
        assert.isAtLeast(size.limit, 1)
        assert.isAtMost(size.limit, most)
      }
    }))
  })

  it("brings no more than 8 MiB of rows like the last ones, and falls at once when rows grow", () => {
    fc.assert(fc.property(fc.array(fc.integer({ min: 1, max: 4 * mebibyte }), { minLength: 1 }), (sizes) => {
      const size = new ReadSize(500)
      for (const each of sizes) {
        size.learn(10, 10 * each)
        assert.isAtMost(size.limit * each, 8 * mebibyte)
      }
    }))
  })

  it("does not change with a read that found nothing", () => {
    const size = new ReadSize(500)
    size.learn(0, 0)
    assert.strictEqual(size.limit, 64)
  })
})

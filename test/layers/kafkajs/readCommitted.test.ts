/** Which records of a fetch are there to be seen. */
import { assert, describe, it } from "@effect/vitest"
import type { WireRecord } from "../../../src/Layers/internal/kafkajs/internals.ts"
import { read } from "../../../src/Layers/internal/kafkajs/readCommitted.ts"

const abortMarker = Buffer.from([0, 0, 0, 0])
const commitMarker = Buffer.from([0, 0, 0, 1])

const record = (offset: number, producerId: string, inTransaction = true, lastOffsetDelta = 0): WireRecord => ({
  key: null,
  value: Buffer.from(`v${offset}`),
  headers: {},
  offset: String(offset),
  timestamp: "0",
  isControlRecord: false,
  batchContext: { producerId, inTransaction, firstOffset: String(offset), lastOffsetDelta }
})
const marker = (offset: number, producerId: string, key: Buffer): WireRecord => ({
  ...record(offset, producerId),
  key,
  isControlRecord: true
})
const seen = (
  from: number,
  messages: ReadonlyArray<WireRecord>,
  aborted: ReadonlyArray<readonly [producerId: string, firstOffset: number]> = []
) => {
  const abortedTransactions = aborted.map(([producerId, first]) => ({ producerId, firstOffset: String(first) }))
  const { nextOffset, records } = read(
    { partition: 0, highWatermark: "100", abortedTransactions, messages },
    BigInt(from)
  )
  return { offsets: records.map(({ offset }) => Number(offset)), next: Number(nextOffset) }
}

describe("reading a fetched partition", () => {
  it("two transactions that are open at the fetch offset and both aborted are both left out", () => {
    // x0 y1 | x2 y3 abort(x)4 abort(y)5 z6, fetched from 2: KafkaJS lets y3 through
    const messages = [
      record(2, "x"),
      record(3, "y"),
      marker(4, "x", abortMarker),
      marker(5, "y", abortMarker),
      record(6, "z", false)
    ]
    assert.deepStrictEqual(seen(2, messages, [["x", 0], ["y", 1]]), { offsets: [6], next: 7 })
  })

  it("a producer that aborted once and committed later is seen again", () => {
    const messages = [record(0, "x"), marker(1, "x", abortMarker), record(2, "x"), marker(3, "x", commitMarker)]
    assert.deepStrictEqual(seen(0, messages, [["x", 0]]), { offsets: [2], next: 4 })
  })

  it("records outside of transactions pass beside an aborted one of the same producer id", () => {
    const messages = [record(0, "x"), record(1, "x", false), marker(2, "x", abortMarker)]
    assert.deepStrictEqual(seen(0, messages, [["x", 0]]), { offsets: [1], next: 3 })
  })

  it("records below the fetch offset are left out, and still count for what is aborted", () => {
    const messages = [record(0, "x"), marker(1, "x", abortMarker), record(2, "x"), record(3, "p", false)]
    assert.deepStrictEqual(seen(2, messages, [["x", 0]]), { offsets: [2, 3], next: 4 })
  })

  it("control records alone move the position", () => {
    assert.deepStrictEqual(seen(4, [marker(4, "x", commitMarker)]), { offsets: [], next: 5 })
  })

  it("a batch whose last offsets were compacted away is passed to its end", () => {
    assert.deepStrictEqual(seen(10, [record(10, "-1", false, 9)]), { offsets: [10], next: 20 })
  })

  it("an empty answer moves nothing", () => {
    assert.deepStrictEqual(seen(7, []), { offsets: [], next: 7 })
  })
})

/**
 * Owns the reading of a fetched partition: which of its records are there to
 * be seen, and where the next fetch begins. Pure.
 *
 * Invariant: what is returned lies at or above the fetch offset, is no control
 * record, and belongs to no aborted transaction; the next offset lies above
 * everything that was in the answer.
 *
 * The insight: brokers answer with whole batches, so the first may begin below
 * the fetch offset, and several aborted transactions may be open there. All of
 * them count from the start: KafkaJS opens one per record, and lets records of
 * the second through.
 */
import type * as Broker from "../../../Broker.ts"
import type { FetchedPartition, WireRecord } from "./internals.ts"
import { fromWire } from "./records.ts"

/** Control records are keyed by version and type, both 16 bits; type 0 aborts. */
const aborts = (record: WireRecord): boolean =>
  record.isControlRecord === true && record.key !== null && record.key.length >= 4 && record.key.readInt16BE(2) === 0

/** The offset after a record's batch, which may end in offsets that compaction has removed. */
const endOf = (record: WireRecord): bigint =>
  record.batchContext === undefined
    ? BigInt(record.offset) + 1n
    : BigInt(record.batchContext.firstOffset) + BigInt(record.batchContext.lastOffsetDelta) + 1n

/** Reads what a fetch from `offset` brought. */
export const read = (fetched: FetchedPartition, offset: bigint): {
  readonly records: ReadonlyArray<Broker.ConsumerRecord>
  readonly nextOffset: bigint
} => {
  const pending = (fetched.abortedTransactions ?? [])
    .map(({ firstOffset, producerId }) => ({ firstOffset: BigInt(firstOffset), producerId }))
    .sort((a, b) => a.firstOffset < b.firstOffset ? -1 : a.firstOffset > b.firstOffset ? 1 : 0)
  const aborted = new Set<string>()
  const records: Array<Broker.ConsumerRecord> = []
  let nextOffset = offset
  let opened = 0
  for (const record of fetched.messages) {
    const at = BigInt(record.offset)
    while (opened < pending.length && pending[opened]!.firstOffset <= at) aborted.add(pending[opened++]!.producerId)
    const end = endOf(record)
    if (end > nextOffset) nextOffset = end
    const batch = record.batchContext
    if (record.isControlRecord === true) {
      if (batch !== undefined && aborts(record)) aborted.delete(batch.producerId)
    } else if (at >= offset && !(batch?.inTransaction === true && aborted.has(batch.producerId))) {
      records.push(fromWire(record))
    }
  }
  return { records, nextOffset }
}

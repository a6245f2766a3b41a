/**
 * Owns record batches (magic 2): from the bytes of a record set to the records
 * that are there to be seen. Pure, but for decompression.
 *
 * Invariant: a record that is shown is no control record and belongs to no
 * aborted transaction; the last entry of a record set, shown or not, carries
 * the last offset that the set covers. Bytes are copied once per record set.
 *
 * The insight: several aborted transactions may be open where an answer begins.
 * They count from the start, in the order of their first offsets: KafkaJS opens
 * one per record, in the order in which they ended, and lets records through.
 * The rules are those of Kafka's own client: `CompletedFetch` of
 * `org.apache.kafka.clients.consumer`, and Kafka's protocol documentation on
 * record batches.
 */
import type * as Broker from "../../../Broker.ts"
import { Reader } from "./reader.ts"

/** The form of a record set; older ones have no headers and no transactions. */
const magic = 2
const magicAt = 16

export interface RecordBatch {
  readonly firstOffset: bigint
  readonly lastOffset: bigint
  readonly attributes: number
  readonly firstTimestamp: number
  readonly maxTimestamp: number
  readonly producerId: bigint
  readonly count: number
  /** As they came: perhaps compressed. */
  readonly records: Buffer
}

const codecBits = 0x07
const appendTimeBit = 0x08
const transactionBit = 0x10
const controlBit = 0x20

/** A record of an answer, or what stands for offsets at which there is nothing to be seen. */
export interface FetchedRecord extends Broker.ConsumerRecord {
  readonly isControlRecord: boolean
}

/** Bytes that are no record batch. */
export class BrokenBatch extends Error {
  override readonly name = "BrokenBatch"
}

export interface Aborted {
  readonly producerId: bigint
  readonly firstOffset: bigint
}

const readBatch = (reader: Reader): RecordBatch => {
  const firstOffset = reader.int64()
  const end = reader.int32() + reader.at
  // The leader's epoch, the magic byte and the checksum.
  reader.skip(4 + 1 + 4)
  const attributes = reader.int16()
  const lastOffset = firstOffset + BigInt(reader.int32())
  const firstTimestamp = Number(reader.int64())
  const maxTimestamp = Number(reader.int64())
  const producerId = reader.int64()
  // The producer's epoch and its first sequence.
  reader.skip(2 + 4)
  const count = reader.int32()
  const records = reader.slice(end - reader.at)
  return { firstOffset, lastOffset, attributes, firstTimestamp, maxTimestamp, producerId, count, records }
}

/**
 * The whole batches of a record set, which is copied out of its answer first:
 * else a record that waits would hold what came with it of all other partitions.
 * The broker may cut off the last one.
 */
export const readBatches = (ofAnswer: Buffer): ReadonlyArray<RecordBatch> | undefined => {
  const bytes = Buffer.from(ofAnswer)
  const batches: Array<RecordBatch> = []
  const reader = new Reader(bytes)
  while (reader.left > magicAt) {
    if (bytes[reader.at + magicAt] !== magic) return undefined
    const length = bytes.readInt32BE(reader.at + 8)
    if (reader.left - 12 < length) break
    batches.push(readBatch(reader))
  }
  return batches
}

/** The number of the codec that the records are packed with; 0: none. */
export const codecOf = ({ attributes }: RecordBatch): number => attributes & codecBits

/** Names of headers: those of one record are mostly those of the record before. */
class Names {
  readonly #known: Array<{ readonly bytes: Buffer; readonly name: string }> = []
  read(reader: Reader, index: number): string {
    const length = reader.signed()
    const known = this.#known[index]
    if (known !== undefined && known.bytes.length === length && startsWith(reader, known.bytes)) {
      reader.skip(length)
      return known.name
    }
    const bytes = reader.slice(Math.max(0, length))
    const name = bytes.toString()
    this.#known[index] = { bytes, name }
    return name
  }
}

const startsWith = ({ at, bytes }: Reader, start: Buffer): boolean => {
  for (let i = 0; i < start.length; i++) if (bytes[at + i] !== start[i]) return false
  return true
}

type WritableHeaders = { -readonly [name in keyof Broker.Headers]: Broker.Headers[name] }

export const noHeaders: Broker.Headers = {}

const readHeaders = (reader: Reader, names: Names): Broker.Headers => {
  const count = reader.signed()
  if (count <= 0) return noHeaders
  const headers: WritableHeaders = {}
  for (let i = 0; i < count; i++) {
    const name = names.read(reader, i)
    const value = reader.signedSlice() ?? undefined
    const before = Object.hasOwn(headers, name) ? headers[name] : undefined
    if (name === "__proto__") Object.defineProperty(headers, name, { value, enumerable: true, configurable: true })
    else if (before === undefined || value === undefined) headers[name] = before ?? value
    else headers[name] = Array.isArray(before) ? [...before, value] : [before as Buffer, value]
  }
  return headers
}

const readRecord = (reader: Reader, batch: RecordBatch, names: Names): FetchedRecord => {
  if (reader.left <= 0) throw new BrokenBatch("A record batch ends before its last record")
  const length = reader.signed()
  const end = reader.at + length
  // Attributes, of which there are none yet.
  reader.skip(1)
  const timestampDelta = reader.signedLong()
  const offset = batch.firstOffset + BigInt(reader.signed())
  const key = reader.signedSlice()
  const value = reader.signedSlice()
  const headers = readHeaders(reader, names)
  reader.at = end
  const timestamp = (batch.attributes & appendTimeBit) === 0
    ? batch.firstTimestamp + timestampDelta
    : batch.maxTimestamp
  return { key, value, headers, offset, timestamp, isControlRecord: false }
}

/** Stands for offsets at which there is nothing to be seen. */
const hidden = (offset: bigint): FetchedRecord => ({
  key: null,
  value: null,
  headers: noHeaders,
  offset,
  timestamp: 0,
  isControlRecord: true
})

/** Control records are keyed by version and type, both 16 bits; type 0 aborts. */
const aborts = ({ key }: FetchedRecord): boolean =>
  key instanceof Uint8Array && key.length >= 4 && key[2] === 0 && key[3] === 0

const byFirstOffset = (a: Aborted, b: Aborted): number => Number(a.firstOffset - b.firstOffset)

/** What is to be seen of batches, whose records are unpacked by now. */
export const readRecords = (
  batches: ReadonlyArray<readonly [RecordBatch, Buffer]>,
  aborted: ReadonlyArray<Aborted>
) => {
  const pending = aborted.toSorted(byFirstOffset)
  const open = new Set<bigint>()
  const names = new Names()
  const all: Array<FetchedRecord> = []
  let opened = 0
  for (const [batch, bytes] of batches) {
    const { attributes, count, lastOffset, producerId } = batch
    while (opened < pending.length && pending[opened]!.firstOffset <= lastOffset) {
      open.add(pending[opened++]!.producerId)
    }
    const reader = new Reader(bytes)
    const isControl = (attributes & controlBit) !== 0
    if (isControl && count > 0 && aborts(readRecord(reader, batch, names))) open.delete(producerId)
    if (!isControl && ((attributes & transactionBit) === 0 || !open.has(producerId))) {
      for (let left = count; left > 0; left--) all.push(readRecord(reader, batch, names))
    }
    // Compaction removes records and keeps the extent of their batch.
    if (all.at(-1)?.offset !== lastOffset) all.push(hidden(lastOffset))
  }
  return all
}

/** What a fetch from `offset` brought: a broker answers with whole batches, so the first may begin below. */
export const visible = (fetched: ReadonlyArray<FetchedRecord>, offset: bigint): {
  readonly records: ReadonlyArray<Broker.ConsumerRecord>
  readonly nextOffset: bigint
} => {
  const last = fetched.at(-1)
  return {
    records: fetched.filter((record) => !record.isControlRecord && record.offset >= offset),
    nextOffset: last === undefined || last.offset < offset ? offset : last.offset + 1n
  }
}

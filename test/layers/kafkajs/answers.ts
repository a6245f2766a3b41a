/** Answers to a fetch as brokers write them: record batches of magic 2, by Kafka's protocol documentation. */
import { gzipSync } from "node:zlib"

export interface GivenRecord {
  readonly offset: number
  readonly key?: Buffer | null | undefined
  readonly value?: Buffer | null | undefined
  readonly headers?: ReadonlyArray<readonly [name: string, value: Buffer | null]>
  /** Milliseconds since the epoch. */
  readonly timestamp?: number
}

export interface GivenBatch {
  readonly records: ReadonlyArray<GivenRecord>
  /** Default: that of the first record. */
  readonly first?: number
  /** Default: that of the last record. */
  readonly last?: number
  readonly producerId?: number
  readonly transactional?: boolean
  readonly control?: boolean
  readonly compressed?: boolean
  /** The broker's time counts, for all of them. */
  readonly appendTime?: number
}

export interface GivenPartition {
  readonly partition?: number
  readonly batches: ReadonlyArray<GivenBatch>
  readonly aborted?: ReadonlyArray<readonly [producerId: number, firstOffset: number]>
  /** Bytes that the broker cuts off at the end. */
  readonly cut?: number
}

const int = (bytes: 1 | 2 | 4) => (value: number): Buffer => {
  const buffer = Buffer.alloc(bytes)
  buffer.writeIntBE(value, 0, bytes)
  return buffer
}
const int8 = int(1)
const int16 = int(2)
const int32 = int(4)
const int64 = (value: number): Buffer => {
  const buffer = Buffer.alloc(8)
  buffer.writeBigInt64BE(BigInt(value))
  return buffer
}

const varint = (value: number): Buffer => {
  const bytes: Array<number> = []
  let left = BigInt.asUintN(64, BigInt(value) << 1n ^ BigInt(value) >> 63n)
  for (; left > 0x7fn; left >>= 7n) bytes.push(Number(left & 0x7fn) | 0x80)
  return Buffer.from([...bytes, Number(left)])
}
const slice = (bytes: Buffer | null | undefined): ReadonlyArray<Buffer> =>
  bytes === null || bytes === undefined ? [varint(-1)] : [varint(bytes.length), bytes]

const array = <A>(all: ReadonlyArray<A>, write: (one: A) => Buffer): ReadonlyArray<Buffer> => [
  int32(all.length),
  ...all.map(write)
]

const recordOf = (record: GivenRecord, first: number, firstTimestamp: number): Buffer => {
  const headers = record.headers ?? []
  const body = Buffer.concat([
    int8(0),
    varint((record.timestamp ?? 0) - firstTimestamp),
    varint(record.offset - first),
    ...slice(record.key),
    ...slice(record.value),
    varint(headers.length),
    ...headers.flatMap(([name, value]) => [...slice(Buffer.from(name)), ...slice(value)])
  ])
  return Buffer.concat([varint(body.length), body])
}

const batchOf = (batch: GivenBatch): Buffer => {
  const { appendTime, compressed = false, control = false, producerId = -1, records, transactional = false } = batch
  const first = batch.first ?? records[0]!.offset
  const last = batch.last ?? records.at(-1)!.offset
  const timestamp = records[0]?.timestamp ?? 0
  const attributes = (compressed ? 1 : 0) | (appendTime === undefined ? 0 : 0x08) | (transactional ? 0x10 : 0) |
    (control ? 0x20 : 0)
  const all = Buffer.concat(records.map((record) => recordOf(record, first, timestamp)))
  const behindLength = Buffer.concat([
    int32(0),
    int8(2),
    int32(0),
    int16(attributes),
    int32(last - first),
    int64(timestamp),
    int64(appendTime ?? timestamp),
    int64(producerId),
    int16(0),
    int32(0),
    int32(records.length),
    compressed ? gzipSync(all) : all
  ])
  return Buffer.concat([int64(first), int32(behindLength.length), behindLength])
}

/** The payload of an answer in this version of the request. */
export const answerOf = (version: number, topic: string, partitions: ReadonlyArray<GivenPartition>): Buffer => {
  const partitionOf = ({ aborted = [], batches, cut = 0, partition = 0 }: GivenPartition): Buffer => {
    const whole = Buffer.concat(batches.map(batchOf))
    const records = whole.subarray(0, whole.length - cut)
    return Buffer.concat([
      int32(partition),
      int16(0),
      int64(100),
      int64(100),
      ...(version >= 5 ? [int64(0)] : []),
      ...array(aborted, ([producerId, firstOffset]) => Buffer.concat([int64(producerId), int64(firstOffset)])),
      ...(version >= 11 ? [int32(-1)] : []),
      int32(records.length),
      records
    ])
  }
  return Buffer.concat([
    int32(0),
    ...(version >= 7 ? [int16(0), int32(0)] : []),
    ...array(
      [topic],
      (name) => Buffer.concat([int16(Buffer.byteLength(name)), Buffer.from(name), ...array(partitions, partitionOf)])
    )
  ])
}

/** The marker that ends a transaction. */
export const marker = (offset: number, producerId: number, type: "abort" | "commit"): GivenBatch => ({
  records: [{ offset, key: Buffer.from([0, 0, 0, type === "abort" ? 0 : 1]), value: Buffer.alloc(6) }],
  producerId,
  transactional: true,
  control: true
})

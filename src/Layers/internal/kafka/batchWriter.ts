/**
 * Owns record batches (magic 2) on their way out: from records to bytes. Pure.
 *
 * Invariant: every batch is one buffer of exactly its size.
 *
 * The form is that of Kafka's protocol documentation on record batches.
 */
import type * as Broker from "../../../Broker.ts"
import type { ProducerIdentity } from "./cluster.ts"

type Bytes = string | Uint8Array

/** What stands before the records: from the first offset to their number. */
const headLength = 61
/** From here on the checksum counts. */
const checkedFrom = 21

const lengthOf = (bytes: Bytes): number => typeof bytes === "string" ? Buffer.byteLength(bytes) : bytes.length

/** The bytes of a number that is not negative, written with a sign (zigzag). */
const signedLength = (value: number): number => {
  let length = 1
  for (let rest = value * 2; rest >= 0x80; rest = Math.floor(rest / 128)) length++
  return length
}

const sizedLength = (bytes: Bytes | null): number => {
  if (bytes === null) return 1
  const length = lengthOf(bytes)
  return signedLength(length) + length
}

const eachHeader = (headers: Broker.Headers, visit: (name: string, value: Bytes) => void): void => {
  for (const name in headers) {
    const value = headers[name]
    if (value === undefined) continue
    if (typeof value === "string" || value instanceof Uint8Array) visit(name, value)
    else for (const one of value) visit(name, one)
  }
}

interface Measured {
  readonly record: Broker.ProducerRecord
  readonly headers: number
  /** Without the length itself. */
  readonly length: number
}

const measure = (record: Broker.ProducerRecord, index: number): Measured => {
  let headers = 0
  let length = 0
  eachHeader(record.headers, (name, value) => {
    headers++
    length += sizedLength(name) + sizedLength(value)
  })
  // Attributes and the difference of the timestamps take a byte each.
  length += 2 + signedLength(index) + sizedLength(record.key) + sizedLength(record.value) + signedLength(headers)
  return { record, headers, length }
}

class Writer {
  at = 0
  readonly bytes: Buffer
  constructor(length: number) {
    this.bytes = Buffer.allocUnsafe(length)
  }

  byte(value: number): void {
    this.bytes[this.at++] = value
  }

  int16(value: number): void {
    this.at = this.bytes.writeInt16BE(value, this.at)
  }

  int32(value: number): void {
    this.at = this.bytes.writeInt32BE(value, this.at)
  }

  int64(value: bigint): void {
    this.at = this.bytes.writeBigInt64BE(value, this.at)
  }

  /** A number that is not negative, or -1, with a sign (zigzag). */
  signed(value: number): void {
    let rest = value < 0 ? 1 : value * 2
    for (; rest >= 0x80; rest = Math.floor(rest / 128)) this.byte(rest & 0x7f | 0x80)
    this.byte(rest)
  }

  sized(bytes: Bytes | null): void {
    if (bytes === null) return this.signed(-1)
    this.signed(lengthOf(bytes))
    if (typeof bytes === "string") this.at += this.bytes.write(bytes, this.at)
    else {
      this.bytes.set(bytes, this.at)
      this.at += bytes.length
    }
  }
}

const writeRecord = (writer: Writer, { headers, length, record }: Measured, index: number): void => {
  writer.signed(length)
  writer.byte(0)
  writer.byte(0)
  writer.signed(index)
  writer.sized(record.key)
  writer.sized(record.value)
  writer.signed(headers)
  eachHeader(record.headers, (name, value) => {
    writer.sized(name)
    writer.sized(value)
  })
}

/** A batch of records with one timestamp, in milliseconds since the epoch; `checksum` is CRC-32C. */
export const encode = (
  batch: {
    readonly records: ReadonlyArray<Broker.ProducerRecord>
    readonly identity: ProducerIdentity
    readonly sequence: number
    readonly timestamp: number
  },
  checksum: (bytes: Buffer) => number
): Buffer => {
  const { identity, records, sequence, timestamp } = batch
  const measured = records.map(measure)
  const length = measured.reduce((sum, one) => sum + signedLength(one.length) + one.length, headLength)
  const writer = new Writer(length)
  writer.int64(0n)
  writer.int32(length - 12)
  // The leader's epoch, which only brokers know, and the magic byte.
  writer.int32(-1)
  writer.byte(2)
  // The checksum, when all is there.
  writer.int32(0)
  writer.int16(0)
  writer.int32(records.length - 1)
  writer.int64(BigInt(timestamp))
  writer.int64(BigInt(timestamp))
  writer.int64(identity.producerId)
  writer.int16(identity.producerEpoch)
  writer.int32(sequence)
  writer.int32(records.length)
  measured.forEach((one, index) => writeRecord(writer, one, index))
  writer.bytes.writeUInt32BE(checksum(writer.bytes.subarray(checkedFrom)) >>> 0, checkedFrom - 4)
  return writer.bytes
}

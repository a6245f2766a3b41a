/**
 * Owns record batches (magic 2) on their way out: from records to bytes. Pure.
 *
 * Invariant: a batch is written once, into one buffer that grows where need be.
 *
 * The form is that of Kafka's protocol documentation on record batches. What
 * comes before something and tells its length is written behind it.
 */
import type * as Broker from "../../../Broker.ts"
import type { ProducerIdentity } from "./cluster.ts"

type Bytes = string | Uint8Array

/** What stands before the records: from the first offset to their number. */
const headLength = 61
/** From here on the checksum counts. */
const checkedFrom = 21

/** What a record takes beside its value, mostly. */
const usual = 512
/** The length of what is shorter takes one byte. */
const short = 64
/** The length of a record of 64 to 8,191 bytes takes so many. */
const usualLength = 2
/** A length takes so many bytes at most. */
const longestLength = 5

/** The bytes of a number that is not negative, written with a sign (zigzag). */
const signedLength = (value: number): number => {
  let length = 1
  for (let rest = value * 2; rest >= 0x80; rest = Math.floor(rest / 128)) length++
  return length
}

class Writer {
  at = 0
  bytes: Buffer
  constructor(length: number) {
    this.bytes = Buffer.allocUnsafe(length)
  }

  /** Makes room for so many bytes. */
  private reserve(length: number): void {
    if (this.at + length <= this.bytes.length) return
    const larger = Buffer.allocUnsafe(2 * (this.at + length))
    this.bytes.copy(larger, 0, 0, this.at)
    this.bytes = larger
  }

  private byte(value: number): void {
    this.bytes[this.at++] = value
  }

  private signed(value: number): void {
    let rest = value < 0 ? 1 : value * 2
    for (; rest >= 0x80; rest = Math.floor(rest / 128)) this.byte(rest & 0x7f | 0x80)
    this.byte(rest)
  }

  /** A number that is not negative, or -1, with a sign (zigzag). */
  number(value: number): void {
    this.reserve(longestLength)
    this.signed(value)
  }

  zeros(count: number): void {
    this.reserve(count)
    this.bytes.fill(0, this.at, this.at += count)
  }

  /** Text or bytes, behind their length. */
  sized(bytes: Bytes | null): void {
    if (bytes === null) return this.number(-1)
    const most = bytes.length * (typeof bytes === "string" ? 3 : 1)
    this.reserve(longestLength + most)
    if (typeof bytes !== "string") {
      this.signed(bytes.length)
      this.bytes.set(bytes, this.at)
      this.at += bytes.length
    } else if (bytes.length >= short || !this.ascii(bytes)) {
      this.signed(Buffer.byteLength(bytes))
      this.at += this.bytes.write(bytes, this.at)
    }
  }

  /** Short text, unless it is not ASCII: quicker than to ask for its length and have it encoded. */
  private ascii(text: string): boolean {
    const { bytes } = this
    let at = this.at
    bytes[at++] = text.length * 2
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i)
      if (code >= 0x80) return false
      bytes[at++] = code
    }
    this.at = at
    return true
  }

  /** Leaves room for the length of what follows. */
  open(): number {
    this.reserve(longestLength)
    return this.at += usualLength
  }

  /** Writes the length of what was written since. */
  close(start: number): void {
    const length = this.at - start
    const taken = signedLength(length)
    this.reserve(longestLength)
    if (taken !== usualLength) this.bytes.copyWithin(start - usualLength + taken, start, this.at)
    this.at = start - usualLength
    this.signed(length)
    this.at += length
  }
}

/** Writes the headers of a record behind their number. */
const writeHeaders = (writer: Writer, headers: Broker.Headers): void => {
  let count = 0
  for (const name in headers) {
    const value = headers[name]
    if (value !== undefined) count += Array.isArray(value) ? value.length : 1
  }
  writer.number(count)
  for (const name in headers) {
    const value = headers[name]
    if (value === undefined) continue
    if (typeof value === "string" || value instanceof Uint8Array) writeHeader(writer, name, value)
    else for (const one of value) writeHeader(writer, name, one)
  }
}

const writeHeader = (writer: Writer, name: string, value: Bytes): void => {
  writer.sized(name)
  writer.sized(value)
}

const writeRecord = (writer: Writer, { headers, key, value }: Broker.ProducerRecord, index: number): void => {
  // Attributes, and the difference of the timestamps.
  writer.number(0)
  writer.number(0)
  writer.number(index)
  writer.sized(key)
  writer.sized(value)
  writeHeaders(writer, headers)
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
  const { records } = batch
  const values = records.reduce((sum, { value }) => sum + (value?.length ?? 0), 0)
  const writer = new Writer(headLength + values + records.length * usual)
  writer.zeros(headLength)
  for (let i = 0; i < records.length; i++) {
    const start = writer.open()
    writeRecord(writer, records[i]!, i)
    writer.close(start)
  }
  const bytes = writer.bytes.subarray(0, writer.at)
  writeHead(bytes, batch)
  bytes.writeUInt32BE(checksum(bytes.subarray(checkedFrom)) >>> 0, checkedFrom - 4)
  return bytes
}

const writeHead = (bytes: Buffer, { identity, records, sequence, timestamp }: Parameters<typeof encode>[0]): void => {
  let at = bytes.writeBigInt64BE(0n, 0)
  at = bytes.writeInt32BE(bytes.length - 12, at)
  // The leader's epoch, which only brokers know, and the magic byte.
  at = bytes.writeInt32BE(-1, at)
  at = bytes.writeInt8(2, at)
  // The checksum is written when all is there. No attributes.
  at = bytes.writeInt16BE(0, at + 4)
  at = bytes.writeInt32BE(records.length - 1, at)
  at = bytes.writeBigInt64BE(BigInt(timestamp), at)
  at = bytes.writeBigInt64BE(BigInt(timestamp), at)
  at = bytes.writeBigInt64BE(identity.producerId, at)
  at = bytes.writeInt16BE(identity.producerEpoch, at)
  at = bytes.writeInt32BE(sequence, at)
  bytes.writeInt32BE(records.length, at)
}

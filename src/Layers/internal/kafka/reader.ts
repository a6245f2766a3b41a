/**
 * Owns the reading of Kafka's primitive types from the front of some bytes.
 * Pure, and on the way of every record.
 *
 * Invariant: bytes are never copied, and nothing is read beyond their end:
 * there a number of fixed size throws, one of variable size is 0, and a slice
 * is short.
 */

export class Reader {
  at = 0
  readonly bytes: Buffer
  constructor(bytes: Buffer) {
    this.bytes = bytes
  }

  get left(): number {
    return this.bytes.length - this.at
  }

  skip(length: number): void {
    this.at += length
  }

  int16(): number {
    this.at += 2
    return this.bytes.readInt16BE(this.at - 2)
  }

  int32(): number {
    this.at += 4
    return this.bytes.readInt32BE(this.at - 4)
  }

  int64(): bigint {
    this.at += 8
    return this.bytes.readBigInt64BE(this.at - 8)
  }

  /** Without a sign, 32 bits at most. */
  varint(): number {
    let value = 0
    for (let shift = 0;; shift += 7) {
      const byte = this.bytes[this.at++]
      if (byte === undefined) return 0
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value >>> 0
    }
  }

  /** With a sign (zigzag), 32 bits at most. */
  signed(): number {
    const value = this.varint()
    return value >>> 1 ^ -(value & 1)
  }

  /** With a sign (zigzag), 64 bits, exact up to 2^53. */
  signedLong(): number {
    const start = this.at
    let value = 0
    for (let scale = 1;; scale *= 128) {
      const byte = this.bytes[this.at++]
      if (byte === undefined || this.at - start > 10) return 0
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value % 2 === 0 ? value / 2 : -(value + 1) / 2
    }
  }

  slice(length: number): Buffer {
    this.at += length
    return this.bytes.subarray(this.at - length, this.at)
  }

  /** Bytes behind their length; `null` for a length of -1. */
  signedSlice(): Buffer | null {
    const length = this.signed()
    return length < 0 ? null : this.slice(length)
  }
}

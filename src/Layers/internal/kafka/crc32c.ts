/**
 * CRC-32C (Castagnoli), the checksum of record batches, eight bytes at a time:
 * "slicing-by-8" of Kounavis and Berry, "Novel Table Lookup-Based Algorithms
 * for High-Performance CRC Generation" (IEEE Transactions on Computers, 2008).
 */

/** The polynomial, its bits in reverse. */
const polynomial = 0x82f63b78

/** Table 0 is that of a byte at a time; table k tells what a byte makes of the sum k bytes later. */
const tables: ReadonlyArray<Int32Array> = (() => {
  const first = new Int32Array(256)
  for (let byte = 0; byte < 256; byte++) {
    let sum = byte
    for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? sum >>> 1 ^ polynomial : sum >>> 1
    first[byte] = sum
  }
  const all = [first]
  for (let k = 1; k < 8; k++) {
    all.push(all[k - 1]!.map((sum) => sum >>> 8 ^ first[sum & 0xff]!))
  }
  return all
})()

const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array
]

export const crc32c = (bytes: Uint8Array): number => {
  const { length } = bytes
  let sum = -1
  let at = 0
  for (const end = length - 7; at < end; at += 8) {
    sum ^= bytes[at]! | bytes[at + 1]! << 8 | bytes[at + 2]! << 16 | bytes[at + 3]! << 24
    sum = t7[sum & 0xff]! ^ t6[sum >>> 8 & 0xff]! ^ t5[sum >>> 16 & 0xff]! ^ t4[sum >>> 24]! ^
      t3[bytes[at + 4]!]! ^ t2[bytes[at + 5]!]! ^ t1[bytes[at + 6]!]! ^ t0[bytes[at + 7]!]!
  }
  for (; at < length; at++) sum = t0[(sum ^ bytes[at]!) & 0xff]! ^ sum >>> 8
  return ~sum >>> 0
}

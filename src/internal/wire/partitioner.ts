/**
 * Which partition a key belongs to: murmur2 as in Kafka's Java client
 * (org.apache.kafka.common.utils.Utils.murmur2, after Austin Appleby's
 * MurmurHash2), so that events of one key meet records of other producers in
 * the same partition. Pure.
 *
 * @internal
 */
const seed = 0x9747b28c
const m = 0x5bd1e995
const r = 24

export const murmur2 = (bytes: Uint8Array): number => {
  const length = bytes.length
  let h = seed ^ length
  const blocks = length >> 2
  for (let i = 0; i < blocks; i++) {
    const at = i << 2
    let k = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    k = Math.imul(k, m)
    k ^= k >>> r
    h = Math.imul(h, m) ^ Math.imul(k, m)
  }
  const tail = blocks << 2
  const rest = length & 3
  if (rest === 3) h ^= bytes[tail + 2]! << 16
  if (rest >= 2) h ^= bytes[tail + 1]! << 8
  if (rest >= 1) h = Math.imul(h ^ bytes[tail]!, m)
  h ^= h >>> 13
  h = Math.imul(h, m)
  return h ^ (h >>> 15)
}

const utf8 = new TextEncoder()

/** The partition of a key, 0 … `partitions - 1`. */
export const partitionOf = (key: string | Uint8Array, partitions: number): number =>
  (murmur2(typeof key === "string" ? utf8.encode(key) : key) & 0x7fffffff) % partitions

/** The outbox part of a topic and key, 0 … `parts - 1`. A pure function of both, forever: order per key rests on it. */
export const partOf = (topic: string, key: string, parts: number): number => partitionOf(`${topic}\u0000${key}`, parts)

/**
 * FNV-1a with 32 bits (Fowler, Noll, Vo; draft-eastlake-fnv): spreads short keys well,
 * and costs a multiplication per byte. It is not the partitioner's, in which
 * all keys of one partition agree. Pure.
 *
 * @internal
 */
export const hash = (bytes: Uint8Array): number => {
  let hash = 0x811c9dc5 | 0
  for (let i = 0; i < bytes.length; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193)
  return hash
}

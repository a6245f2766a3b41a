/**
 * Which parts to read next, and which rows may go. Pure.
 *
 * A read is ordered by part, so that a full one would starve the parts behind
 * it: the next read goes on above the last part seen, and wraps round.
 *
 * @internal
 */
import type { StoredRow } from "../../MessageStore.ts"

/** The parts to read, given the part where the last full read ended; `undefined` after one that was not full. */
export const next = (owned: ReadonlyArray<number>, after: number | undefined): ReadonlyArray<number> => {
  if (after === undefined) return owned
  const above = owned.filter((part) => part > after)
  return above.length > 0 ? above : owned
}

/** Where the next read goes on. */
export const after = (rows: ReadonlyArray<StoredRow>, limit: number): number | undefined =>
  rows.length < limit ? undefined : rows[rows.length - 1]!.part

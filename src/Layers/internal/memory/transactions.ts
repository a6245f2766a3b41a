/**
 * Transactions over maps, for the in-memory store. Pure: no Effect.
 *
 * A `Level` is a transaction or a savepoint. A table keeps what each open level
 * has written into it. Reading goes from the innermost level outwards to the
 * committed map; committing a level pours its writes into the next one out, and
 * rolling back drops them.
 *
 * Invariant: the committed map changes only when an outermost level commits, or
 * by a write outside of any level. So who reads from outside sees no write of
 * an open transaction, and needs no lock.
 */

export interface Level {
  readonly parent: Level | undefined
  /** What each table does with the writes of this level when it ends. */
  readonly endings: Array<(kept: boolean) => void>
  readonly afterCommit: Array<() => void>
  state: "Open" | "Ended"
}

/** A write: the new value, or a deletion. */
type Write<V> = { readonly _tag: "Put"; readonly value: V } | { readonly _tag: "Deleted" }

export interface Table<in out K, in out V> {
  readonly committed: Map<K, V>
  readonly written: Map<Level, Map<K, Write<V>>>
}

export const table = <K, V>(): Table<K, V> => ({ committed: new Map(), written: new Map() })

export const begin = (parent: Level | undefined): Level => ({
  parent,
  endings: [],
  afterCommit: [],
  state: "Open"
})

/** Whether a level and all around it still run. */
export const isOpen = (level: Level): boolean =>
  level.state === "Open" && (level.parent === undefined || isOpen(level.parent))

export const rollback = (level: Level): void => {
  level.state = "Ended"
  level.endings.forEach((end) => end(false))
}

/** Keeps a level's writes; those of an outermost level become visible to all. */
export const commit = (level: Level): void => {
  level.state = "Ended"
  level.endings.forEach((end) => end(true))
  level.afterCommit.forEach((action) => afterCommit(level.parent, action))
}

/** Runs an action once the outermost transaction has committed; at once outside of any. */
export const afterCommit = (level: Level | undefined, action: () => void): void => {
  if (level === undefined) {
    action()
  } else {
    level.afterCommit.push(action)
  }
}

export const get = <K, V>(from: Table<K, V>, level: Level | undefined, key: K): V | undefined => {
  for (let at = level; at !== undefined; at = at.parent) {
    const write = from.written.get(at)?.get(key)
    if (write !== undefined) {
      return write._tag === "Put" ? write.value : undefined
    }
  }
  return from.committed.get(key)
}

export const set = <K, V>(into: Table<K, V>, level: Level | undefined, key: K, value: V): void =>
  put(into, level, key, { _tag: "Put", value })

export const remove = <K, V>(from: Table<K, V>, level: Level | undefined, key: K): void =>
  put(from, level, key, { _tag: "Deleted" })

export const entries = <K, V>(from: Table<K, V>, level: Level | undefined): ReadonlyMap<K, V> => {
  if (level === undefined) {
    return from.committed
  }
  const merged = new Map(entries(from, level.parent))
  for (const [key, write] of from.written.get(level) ?? []) {
    if (write._tag === "Put") {
      merged.set(key, write.value)
    } else {
      merged.delete(key)
    }
  }
  return merged
}

const put = <K, V>(into: Table<K, V>, level: Level | undefined, key: K, write: Write<V>): void => {
  if (level !== undefined) {
    writesOf(into, level).set(key, write)
  } else if (write._tag === "Put") {
    into.committed.set(key, write.value)
  } else {
    into.committed.delete(key)
  }
}

const writesOf = <K, V>(into: Table<K, V>, level: Level): Map<K, Write<V>> => {
  const present = into.written.get(level)
  if (present !== undefined) {
    return present
  }
  const writes = new Map<K, Write<V>>()
  into.written.set(level, writes)
  level.endings.push((kept) => {
    into.written.delete(level)
    if (kept) {
      writes.forEach((write, key) => put(into, level.parent, key, write))
    }
  })
  return writes
}

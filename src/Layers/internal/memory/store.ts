/**
 * The in-memory message store: outbox rows, inbox marks, leases and test tables
 * over `transactions`.
 *
 * Invariant: each operation is one synchronous step on the state that the
 * calling fiber sees.
 *
 * Insight: with one transaction at a time a concurrent claim waits for the
 * other's end by itself, and no transaction ever loses a race. Operations
 * outside of any transaction wait for nobody: they see and change committed
 * state, as with a row-versioned database.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type {
  Lease,
  MessageStoreErrorReason,
  OutboxRow,
  OutboxRows,
  Page,
  ParkedKey,
  ParkedRow,
  PartOwner,
  RowSelection,
  ScheduledRow,
  SentRow,
  StoredRow
} from "../../../MessageStore.ts"
import { isMessageStoreError, MessageStore, MessageStoreError, parts } from "../../../MessageStore.ts"
import * as Frames from "./frames.ts"
import * as Tx from "./transactions.ts"

/** What tests may do to the store; documented at `Memory.MemoryStore`. */
export interface StoreControl {
  readonly table: <K, V>(name: string) => TableAccess<K, V>
  readonly failNextCommit: (reason: MessageStoreErrorReason) => Effect.Effect<void>
}

export interface TableAccess<K, V> {
  readonly get: (key: K) => Effect.Effect<V | undefined, MessageStoreError>
  readonly set: (key: K, value: V) => Effect.Effect<void, MessageStoreError>
  readonly update: (key: K, f: (value: V | undefined) => V) => Effect.Effect<V, MessageStoreError>
  readonly entries: Effect.Effect<ReadonlyArray<readonly [K, V]>, MessageStoreError>
}

interface HeldLease {
  readonly owner: string | undefined
  readonly epoch: bigint
  readonly until: number
}

/** Wakes whoever has subscribed; hints that nobody has taken yet are one. */
const makeBell = () => {
  const queues = new Set<Queue.Enqueue<void>>()
  return {
    ring: () => queues.forEach((queue) => Queue.offerUnsafe(queue, undefined)),
    subscribe: Effect.acquireRelease(
      Effect.tap(Queue.sliding<void>(1), (queue) => Effect.sync(() => queues.add(queue))),
      (queue) => Effect.andThen(Effect.sync(() => queues.delete(queue)), Queue.shutdown(queue))
    )
  }
}

export const make = (): { readonly store: MessageStore["Service"]; readonly control: StoreControl } => {
  const { atomically, commitFailures, level, transaction } = Frames.make()
  const rows = Tx.table<bigint, StoredRow>()
  /** When rows entered the outbox. */
  const since = Tx.table<bigint, number>()
  const waiting = Tx.table<bigint, ScheduledRow>()
  const aside = Tx.table<bigint, ParkedRow>()
  const kept = Tx.table<bigint, SentRow>()
  const marks = Tx.table<string, number>()
  const leases = Tx.table<number, HeldLease>()
  const owners = Tx.table<string, number>()
  const tables = new Map<string, unknown>()
  const consumers = new Map<string, number>()
  const committed = makeBell()
  const changed = makeBell()
  let lastId = 0n

  /** The rows of parts that `owner` holds under these epochs. */
  const fenced = <A extends { readonly part: number; readonly id: bigint }>(
    level: Tx.Level | undefined,
    owner: string,
    claimed: ReadonlyArray<Lease>,
    given: ReadonlyArray<A>
  ): ReadonlyArray<A> => {
    const held = new Set(
      claimed.filter(({ epoch, part }) => {
        const lease = Tx.get(leases, level, part)
        return lease?.owner === owner && lease.epoch === epoch
      }).map((lease) => lease.part)
    )
    return given.filter(({ id, part }) => held.has(part) && Tx.get(rows, level, id)?.part === part)
  }

  const byPlace = (a: StoredRow, b: StoredRow): number => a.part - b.part || (a.id < b.id ? -1 : 1)

  const chosenOf = <A extends StoredRow>(
    table: Tx.Table<bigint, A>,
    level: Tx.Level | undefined,
    { key, messageKey, topic }: RowSelection
  ): ReadonlyArray<A> =>
    Array.from(Tx.entries(table, level).values()).filter((row) =>
      (messageKey === undefined || row.messageKey === messageKey) &&
      (topic === undefined || row.topic === topic) && (key === undefined || row.key === key)
    ).sort(byPlace)

  const chosen = (level: Tx.Level | undefined, selection: RowSelection) => chosenOf(aside, level, selection)

  const pageOf = <A extends StoredRow>(found: ReadonlyArray<A>, { after, limit }: Page): ReadonlyArray<A> =>
    found.filter((row) =>
      after === undefined || row.part > after.part || (row.part === after.part && row.id > after.id)
    ).slice(0, limit)

  const enter = (level: Tx.Level | undefined, row: OutboxRow, now: number) => {
    const id = ++lastId
    Tx.set(rows, level, id, { ...row, id })
    Tx.set(since, level, id, now)
  }

  const putBack = (level: Tx.Level | undefined, found: ReadonlyArray<ParkedRow>): number => {
    for (const { parkedAt: _at, reason: _reason, ...row } of found) {
      Tx.remove(aside, level, row.id)
      Tx.set(rows, level, row.id, row)
    }
    if (found.length > 0) Tx.afterCommit(level, committed.ring)
    return found.length
  }

  const parked: OutboxRows["parked"] = {
    park: (request) =>
      atomically("park rows of the outbox", (level, now) => {
        const found = fenced(level, request.owner, request.leases, request.rows)
        for (const { id, reason } of found) {
          Tx.set(aside, level, id, { ...Tx.get(rows, level, id)!, reason, parkedAt: new Date(now) })
          Tx.remove(rows, level, id)
        }
        return found.length
      }),
    keys: (of) =>
      atomically("look for parked keys", (level) =>
        of.flatMap(({ key, part, topic }): Array<ParkedKey> => {
          const first = chosen(level, { key, topic }).find((row) => row.part === part)
          return first === undefined ? [] : [{ part, topic, key, id: first.id }]
        })),
    list: (page) => atomically("list parked rows", (level) => pageOf(chosen(level, page.selection), page)),
    release: (selection) =>
      atomically(
        "release parked rows",
        (level) => putBack(level, chosen(level, selection).filter(({ reason }) => reason !== null))
      ),
    free: atomically("free parked rows", (level) => {
      const refused = new Set<string>()
      const free: Array<ParkedRow> = []
      for (const row of chosen(level, {})) {
        const name = JSON.stringify([row.part, row.topic, row.key])
        if (row.reason !== null) refused.add(name)
        else if (!refused.has(name)) free.push(row)
      }
      return putBack(level, free)
    }),
    edit: (messageKey, payload) =>
      atomically("edit a parked row", (level) => {
        const found = chosen(level, { messageKey })
        for (const row of found) Tx.set(aside, level, row.id, { ...row, payload })
        return found.length > 0
      }),
    drop: (selection) =>
      atomically("drop parked rows", (level) => {
        const found = chosen(level, selection)
        for (const { id } of found) {
          Tx.remove(aside, level, id)
          Tx.remove(since, level, id)
        }
        return found.length
      })
  }

  const waitingByTime = (level: Tx.Level | undefined) =>
    Array.from(Tx.entries(waiting, level)).sort(([a, x], [b, y]) => x.dueMillis - y.dueMillis || (a < b ? -1 : 1))

  const scheduled: OutboxRows["scheduled"] = {
    add: (added) =>
      atomically("schedule events", (level) => {
        for (const row of added) Tx.set(waiting, level, ++lastId, { ...copyRow(row), dueMillis: row.dueMillis })
        Tx.afterCommit(level, committed.ring)
      }),
    next: atomically("look for scheduled events", (level, now) => {
      const first = waitingByTime(level)[0]
      return first === undefined ? undefined : first[1].dueMillis - now
    }),
    move: (limit) =>
      atomically("move scheduled events", (level, now) => {
        const due = waitingByTime(level).filter(([, row]) => row.dueMillis <= now).slice(0, limit)
        for (const [id, { dueMillis: _, ...row }] of due) {
          Tx.remove(waiting, level, id)
          enter(level, row, now)
        }
        if (due.length > 0) Tx.afterCommit(level, committed.ring)
        return due.length
      }),
    list: ({ limit, topic }) =>
      atomically(
        "list scheduled events",
        (level) =>
          waitingByTime(level).map(([, row]) => row).filter((row) => topic === undefined || row.topic === topic)
            .slice(0, limit)
      ),
    cancel: (messageKey) =>
      atomically("cancel a scheduled event", (level) => {
        const found = waitingByTime(level).filter(([, row]) => row.messageKey === messageKey)
        for (const [id] of found) Tx.remove(waiting, level, id)
        return found.length > 0
      })
  }

  /** Takes rows out of the outbox, of parts that the owner holds. */
  const take = (level: Tx.Level | undefined, request: Parameters<OutboxRows["remove"]>[0]): ReadonlyArray<StoredRow> =>
    fenced(level, request.owner, request.leases, request.rows).map(({ id }) => {
      const row = Tx.get(rows, level, id)!
      Tx.remove(rows, level, id)
      Tx.remove(since, level, id)
      return row
    })

  const sent: OutboxRows["sent"] = {
    keep: (request) =>
      atomically("keep sent rows of the outbox", (level, now) => {
        const taken = take(level, request)
        for (const row of taken) Tx.set(kept, level, row.id, { ...row, sentAt: new Date(now) })
        return taken.length
      }),
    list: (page) => atomically("list sent rows", (level) => pageOf(chosenOf(kept, level, page.selection), page)),
    prune: (retention) =>
      atomically("prune sent rows", (level, now) => {
        const old = chosenOf(kept, level, {}).filter(({ sentAt }) =>
          sentAt.getTime() <= now - Duration.toMillis(retention)
        )
        for (const { id } of old) Tx.remove(kept, level, id)
        return old.length
      })
  }

  const outbox: OutboxRows = {
    append: (added) =>
      atomically("append to the outbox", (level, now) => {
        for (const row of added) enter(level, copyRow(row), now)
        Tx.afterCommit(level, committed.ring)
      }),
    // One transaction runs at a time.
    lock: () => Effect.void,
    read: ({ limit, parts }) =>
      atomically("read the outbox", (level) =>
        Array.from(Tx.entries(rows, level).values())
          .filter((row) => parts.includes(row.part))
          .sort(byPlace)
          .slice(0, limit)),
    remove: (request) => atomically("remove from the outbox", (level) => take(level, request).length),
    counts: atomically("count outbox rows", (level, now) => {
      const ids = Array.from(Tx.entries(rows, level).keys())
      const first = ids.reduce((first, id) => Math.min(first, Tx.get(since, level, id) ?? now), now)
      return {
        waiting: ids.length,
        oldestMillis: ids.length === 0 ? undefined : now - first,
        parked: Array.from(Tx.entries(aside, level)).length,
        scheduled: Array.from(Tx.entries(waiting, level)).length
      }
    }),
    parked,
    scheduled,
    sent,
    wakeups: committed.subscribe
  }

  const isFree = (lease: HeldLease | undefined, now: number): boolean =>
    lease === undefined || lease.owner === undefined || lease.until <= now

  const leasing: MessageStore["Service"]["leases"] = {
    beat: (owner, ttl) =>
      atomically("beat", (level, now) => {
        Tx.set(owners, level, owner, now + Duration.toMillis(ttl))
        return Array.from(Tx.entries(owners, level).values()).filter((until) => until > now).length
      }),
    free: atomically(
      "list free leases",
      (level, now) =>
        Array.from({ length: parts }, (_, part) => part).filter((part) => isFree(Tx.get(leases, level, part), now))
    ),
    hold: ({ owner, parts, ttl }) =>
      atomically("hold leases", (level, now) => {
        for (const part of parts) {
          const lease = Tx.get(leases, level, part)
          if (lease?.owner === owner || isFree(lease, now)) {
            const epoch = (lease?.epoch ?? 0n) + (lease?.owner === owner ? 0n : 1n)
            Tx.set(leases, level, part, { owner, epoch, until: now + Duration.toMillis(ttl) })
          }
        }
        return Array.from(Tx.entries(leases, level))
          .filter(([, lease]) => lease.owner === owner && lease.until > now)
          .map(([part, lease]): Lease => ({ part, epoch: lease.epoch }))
          .sort((a, b) => a.part - b.part)
      }),
    release: (owner, parts) =>
      atomically("release leases", (level) => {
        for (const part of parts) {
          const lease = Tx.get(leases, level, part)
          if (lease?.owner === owner) {
            Tx.set(leases, level, part, { ...lease, owner: undefined })
          }
        }
      }),
    leave: (owner) => atomically("leave", (level) => Tx.remove(owners, level, owner)),
    owners: atomically("list lease owners", (level, now) =>
      Array.from({ length: parts }, (_, part): PartOwner => {
        const lease = Tx.get(leases, level, part)
        return { part, owner: isFree(lease, now) ? undefined : lease!.owner, epoch: lease?.epoch ?? 0n }
      })),
    announce: Effect.sync(changed.ring),
    changes: changed.subscribe
  }

  const inbox: MessageStore["Service"]["inbox"] = {
    consumer: (group, handler) =>
      Effect.sync(() => {
        const name = JSON.stringify([group, handler])
        const id = consumers.get(name) ?? consumers.size + 1
        consumers.set(name, id)
        return id
      }),
    claim: (consumer, messageKeys) =>
      transaction(atomically("claim messages", (level, now) => {
        const fresh = new Set<string>()
        for (const key of messageKeys) {
          const mark = `${consumer}:${key.toLowerCase()}`
          if (Tx.get(marks, level, mark) === undefined) {
            Tx.set(marks, level, mark, now)
            fresh.add(key)
          }
        }
        return fresh
      })),
    prune: (retention) =>
      atomically("prune the inbox", (level, now) => {
        const old = Array.from(Tx.entries(marks, level)).filter(([, at]) => at < now - Duration.toMillis(retention))
        old.forEach(([mark]) => Tx.remove(marks, level, mark))
        return old.length
      })
  }

  const table = <K, V>(name: string): TableAccess<K, V> => {
    const existing = (tables.get(name) ?? Tx.table<K, V>()) as Tx.Table<K, V>
    tables.set(name, existing)
    const operation = `use table "${name}"`
    return {
      get: (key) => atomically(operation, (level) => Tx.get(existing, level, key)),
      set: (key, value) => atomically(operation, (level) => Tx.set(existing, level, key, value)),
      update: (key, f) =>
        atomically(operation, (level) => {
          const value = f(Tx.get(existing, level, key))
          Tx.set(existing, level, key, value)
          return value
        }),
      entries: atomically(operation, (level) => Array.from(Tx.entries(existing, level)))
    }
  }

  return {
    store: MessageStore.of({
      dialect: "memory",
      transaction,
      level,
      joins: () => false,
      isConflict: (error) => isMessageStoreError(error) && error.reason._tag === "Conflict",
      isTransactionWide: isMessageStoreError,
      isOutage: (error) => isMessageStoreError(error) && error.reason._tag !== "Conflict",
      outbox,
      leases: leasing,
      inbox
    }),
    control: {
      table,
      failNextCommit: (reason) => Effect.sync(() => void commitFailures.push(new MessageStoreError({ reason })))
    }
  }
}

/** A row as a database would keep it: later changes to the given one do not show. */
const copyRow = (row: OutboxRow): OutboxRow => ({
  ...row,
  headers: { ...row.headers },
  payload: row.payload === null ? null : new Uint8Array(row.payload)
})

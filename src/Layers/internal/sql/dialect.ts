/**
 * Every statement of the SQL store, by purpose; a dialect is a file that
 * implements all of them.
 *
 * Owns: the list of statements and what each must hold. Invariant:
 * `postgres.ts`, `mysql.ts` and `sqlite.ts` have the members below in this
 * order (a test compares), so that they can be read side by side, and no other
 * file knows which database it talks to. Texts are built once, from validated
 * identifiers and placeholders only; every value is a bound parameter, and a
 * text is the same for every call, so that a prepared statement is found again.
 *
 * The statements were raced against each other on live databases before they
 * were written here; "without it" says what went wrong there.
 *
 * @internal
 */
import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type * as SqlError from "effect/sql/SqlError"
import { createHash } from "node:crypto"
import type {
  Lease,
  OutboxKey,
  OutboxRow,
  ParkedRow,
  RowKey,
  RowSelection,
  ScheduledRow,
  SentRow,
  StoredRow
} from "../../../MessageStore.ts"

/** A statement's text with its bound values. */
export interface Query {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
}

/** A result row as the driver hands it over; integers come as number or bigint. */
export type Row = Readonly<Record<string, unknown>>

/** Runs statements where the calling fiber is: in its transaction, if it is in one. */
export interface Runner {
  readonly rows: (query: Query) => Effect.Effect<ReadonlyArray<Row>, SqlError.SqlError>
  /** Runs several statements on one connection, in a transaction: the fiber's, or one of their own. */
  readonly together: <A>(program: Effect.Effect<A, SqlError.SqlError>) => Effect.Effect<A, SqlError.SqlError>
}

/** What takes one statement on some databases, and several on others. */
export type Program<A> = (run: Runner) => Effect.Effect<A, SqlError.SqlError>

/** A program of one statement. */
export const single = <A>(query: Query, shape: (rows: ReadonlyArray<Row>) => A): Program<A> => (run) =>
  Effect.map(run.rows(query), shape)

/** One step of the schema, as single statements: no driver here runs two in one call. */
export interface MigrationScript {
  readonly id: number
  readonly name: string
  readonly statements: ReadonlyArray<string>
}

/** Quoted names of the tables. */
export interface Tables {
  readonly outbox: string
  readonly parked: string
  readonly scheduled: string
  readonly sent: string
  readonly lease: string
  readonly instance: string
  readonly consumer: string
  readonly inbox: string
}

/** @internal */
export const tablesOf = (nameOf: (name: string) => string): Tables => ({
  outbox: nameOf("outbox"),
  lease: nameOf("lease"),
  instance: nameOf("instance"),
  consumer: nameOf("consumer"),
  inbox: nameOf("inbox"),
  parked: nameOf("parked"),
  scheduled: nameOf("scheduled"),
  sent: nameOf("sent")
})

/** A lock of the connection. */
export interface MigrationLock {
  /** Waits for it: `{ count }`, 1 if it was got. */
  readonly take: Query
  readonly giveBack: Query
}

/** Where the tables are. `SqlStore.make` has checked that both names are identifiers. */
export interface Location {
  readonly schema: string | undefined
  readonly tablePrefix: string
}

/** Texts of several statements each, for the connection of a transaction. */
export interface Guard {
  /** After BEGIN. */
  readonly enter: string
  /** Before COMMIT; fails if the transaction is no longer the one that was entered. */
  readonly leave: string
  /** Before ROLLBACK. */
  readonly abandon: string
}

/** Most rows that one insert carries. */
export const maxRows = 500

/** What every server takes for a time in milliseconds. */
export const maxIdleMillis = 2 ** 31 - 1

/** Most rows that one prune statement deletes. */
export const pruneChunk = 5_000

/** @internal */
export interface Dialect {
  /** As `MessageStore.dialect` shows it. */
  readonly name: string

  /**
   * Starts a transaction. Postgres: READ COMMITTED whatever the database's
   * default is, since under a higher level a concurrent claim ends in a
   * serialization failure instead of "not new". SQLite: takes the write lock
   * at once; a deferred transaction that reads first loses it to any other
   * writer, and waiting never helps.
   */
  readonly begin: string

  /**
   * What a transaction runs first and last, where the server may end one behind
   * its back; `undefined` where it answers all that follows with an error.
   * Without it, what a handler writes after a deadlock that it swallowed stays,
   * and what it wrote before is gone.
   */
  readonly guard: Guard | undefined

  /**
   * Whether the driver runs its statements on the event loop's own thread. Then
   * a fiber never waits for the database, and a busy loop of transactions would
   * let no timer and no signal through: each transaction yields before it begins.
   */
  readonly synchronous: boolean

  /** Runs before the migrations, where their own table needs a place that may not exist. */
  readonly prepare: ReadonlyArray<string>

  /** The schema, step by step. Idempotent, so that both ways to migrate can meet. */
  readonly migrations: ReadonlyArray<MigrationScript>

  /** The Migrator's own table, unquoted, as `sql(name)` takes it. */
  readonly migrationsTable: string

  /**
   * Lets one instance migrate at a time where statements of a schema commit by
   * themselves, so that a transaction cannot; `undefined` where one can.
   */
  readonly migrationLock: MigrationLock | undefined

  /** Names of all tables, for messages. */
  readonly tableNames: ReadonlyArray<string>

  /** Which of them exist: rows `{ name, home }`, `home` being the schema they are in. */
  readonly findTables: Query

  /**
   * Inserts up to `maxRows` rows, with ids in the order given. Without that
   * order, events of one transaction change places.
   */
  readonly appendRows: (rows: Arr.NonEmptyReadonlyArray<OutboxRow>) => ReadonlyArray<Query>

  /**
   * Holds locks until the transaction ends, taken in ascending order; else two
   * transactions that share keys deadlock. `undefined` where one transaction
   * writes at a time. Unrelated keys may share a lock.
   */
  readonly lockKeys: (keys: ReadonlyArray<OutboxKey>) => Query | undefined

  /**
   * Rows of the given parts by `(part, id)`. A work list: no cursor, since ids
   * become visible out of order and a cursor strands what commits late. Of each
   * key without gaps: what committed before a row is read with it.
   */
  readonly readRows: (parts: ReadonlyArray<number>, limit: number) => Program<ReadonlyArray<Row>>

  readonly storedRow: (row: Row) => StoredRow

  /**
   * Deletes exactly the rows given, of parts that `owner` still holds under
   * the epoch given, and holds off a take-over while it does; returns how many
   * went. Without the fence, an owner that froze deletes beside its successor.
   */
  readonly deleteRows: (
    owner: string,
    leases: ReadonlyArray<Lease>,
    rows: ReadonlyArray<{ readonly part: number; readonly id: bigint }>
  ) => Program<number>

  /**
   * Moves rows of parts that `owner` still holds out of the outbox, under the
   * fence of `deleteRows`; returns how many went.
   */
  readonly parkRows: (
    owner: string,
    leases: ReadonlyArray<Lease>,
    rows: ReadonlyArray<{ readonly part: number; readonly id: bigint; readonly reason: string | null }>
  ) => Program<number>

  /** The first parked row of each of these keys that has one: `{ part, topic, key, id }`. */
  readonly parkedKeys: (of: ReadonlyArray<RowKey>) => Program<ReadonlyArray<Row>>

  /** Parked rows by `(part, id)`, after the one given. */
  readonly listParked: (selection: RowSelection, after: { part: number; id: bigint }, limit: number) => Query

  readonly parkedRow: (row: Row) => ParkedRow

  /** Moves refused rows back into the outbox, under the ids that they had; returns how many. */
  readonly releaseParked: (selection: RowSelection) => Program<number>

  /** Moves rows back that come after no refused row of their key; returns how many. */
  readonly freeParked: Program<number>

  /** Changes a payload: `{ count }`. */
  readonly editParked: (messageKey: string, payload: Uint8Array | null) => Program<number>

  /** Deletes parked rows; returns how many went. */
  readonly dropParked: (selection: RowSelection) => Program<number>

  /** Inserts scheduled rows, in the order given. */
  readonly scheduleRows: (rows: Arr.NonEmptyReadonlyArray<ScheduledRow>) => ReadonlyArray<Query>

  /** Milliseconds until the next scheduled row is due: `{ millis }`, `null` without any. */
  readonly nextDue: Query

  /**
   * Moves due rows into the outbox, ordered by `(due_at, id)`; returns how
   * many. Two at once wait for each other: else the later rows of a key could
   * get the lower ids.
   */
  readonly moveDue: (limit: number) => Program<number>

  /** Scheduled rows by `(due_at, id)`; of one topic, or of all (`null`). */
  readonly listScheduled: (topic: string | null, limit: number) => Query

  readonly scheduledRow: (row: Row) => ScheduledRow

  /** Deletes a scheduled row; returns how many went. */
  readonly cancelScheduled: (messageKey: string) => Program<number>

  /** Moves rows out of the outbox as `deleteRows` deletes them, to where they are kept; returns how many went. */
  readonly keepRows: Dialect["deleteRows"]

  /** Kept rows by `(part, id)`, after the one given. */
  readonly listSent: Dialect["listParked"]

  readonly sentRow: (row: Row) => SentRow

  /** Deletes up to `pruneChunk` kept rows that were sent longer ago than this, oldest first; returns how many went. */
  readonly pruneSent: (retentionMillis: number) => Program<number>

  /** How much there is: `{ waiting, oldest_millis, parked, scheduled }`, the second `null` when nothing waits. */
  readonly countRows: Query

  /** Says that an owner lives, on the database's clock: clocks of machines differ. */
  readonly announceOwner: (owner: string, ttlMillis: number) => Query

  /** Drops owners that died long ago without leaving; else each crash leaves a row for ever. */
  readonly forgetDeadOwners: Query

  /** How many owners live: `{ count }`. */
  readonly countOwners: Query

  /** Parts that nobody holds: `{ part }`. */
  readonly freeParts: Query

  /**
   * Renews the parts that `owner` holds and takes those that are free, locking
   * in part order; else two owners that take over the same parts deadlock.
   * The epoch grows when the owner changes; else the fence cannot tell an
   * owner from its successor.
   */
  readonly takeParts: (owner: string, ttlMillis: number, parts: ReadonlyArray<number>) => Query

  /** What `owner` holds now: `{ part, epoch }`. */
  readonly ownedParts: (owner: string) => Query

  /** All parts in order: `{ part, owner, epoch }`, `owner` being `null` where nobody's lease runs. */
  readonly partOwners: Query

  /** Gives parts back, as far as `owner` holds them. */
  readonly releaseParts: (owner: string, parts: ReadonlyArray<number>) => Query

  /** Forgets an owner. */
  readonly forgetOwner: (owner: string) => Query

  /** The number of a handler, if it has one: `{ id }`. */
  readonly findConsumer: (group: string, handler: string) => Query

  /** Gives a handler its number, or returns the one that somebody else has just given. */
  readonly registerConsumer: (group: string, handler: string) => Program<number>

  /**
   * Inserts marks and returns the keys of those that are new, as lower-case
   * UUID text. Keys come sorted: unsorted, two transactions that share keys
   * deadlock. Waits for a transaction that holds the same key. A transaction
   * that stands still for `idleMillis` is ended, where the server can do that
   * and the program has not told it another time.
   */
  readonly claimKeys: (
    consumer: number,
    sortedKeys: ReadonlyArray<string>,
    idleMillis: number | undefined
  ) => Program<ReadonlyArray<string>>

  /**
   * Deletes up to `pruneChunk` marks that are older than this, oldest first;
   * returns how many went. Goes by the index on the time: keys are time-ordered
   * only where they are UUIDv7, a hashed one looks like any other, so no bound
   * on the key fits both.
   */
  readonly pruneMarks: (retentionMillis: number) => Program<number>
}

/**
 * Splits a list into pieces whose sizes are powers of two, at most 256. A
 * multi-row insert whose text depends on the row count then has nine texts,
 * not five hundred, and its prepared statements are found again.
 */
export const piecesOf = <A>(items: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> => {
  const pieces: Array<ReadonlyArray<A>> = []
  for (let start = 0; start < items.length;) {
    const size = Math.min(256, 2 ** Math.floor(Math.log2(items.length - start)))
    pieces.push(items.slice(start, start + size))
    start += size
  }
  return pieces
}

/** Numbers of the locks of keys, below `locks`, ascending. */
export const lockNumbers = (keys: ReadonlyArray<OutboxKey>, locks: bigint): ReadonlyArray<bigint> => {
  const numbers = keys.map(({ key, topic }) =>
    createHash("sha256").update(topic).update("\u0000").update(key).digest().readBigUInt64BE() % locks
  )
  return Array.from(new Set(numbers)).sort((a, b) => a < b ? -1 : 1)
}

/** A selection as parameters; `null`: any. */
export const selected = (
  { key, messageKey, topic }: RowSelection
): readonly [string | null, string | null, string | null] => [
  messageKey ?? null,
  topic ?? null,
  key ?? null
]

/** A column of a time, as drivers hand it over. */
export const dateOf = (value: unknown): Date => value instanceof Date ? value : new Date(Number(value))

/** `[[part, n], …]`; `JSON.stringify` refuses bigints. */
export const pairs = (values: ReadonlyArray<readonly [number, bigint]>): string =>
  `[${values.map(([part, n]) => `[${part},${n}]`).join(",")}]`

/** The text form of a UUID that the database shows in hexadecimal. */
export const uuidOf = (hex: unknown): string => {
  const lower = String(hex).toLowerCase()
  return `${lower.slice(0, 8)}-${lower.slice(8, 12)}-${lower.slice(12, 16)}-${lower.slice(16, 20)}-${lower.slice(20)}`
}

/** A scheduled row, from one that was read like those of the outbox and has `due_at` in milliseconds. */
export const scheduledOf = ({ id: _, ...row }: StoredRow, { due_at }: Row): ScheduledRow => ({
  ...row,
  dueMillis: Number(due_at)
})

/** A row of the outbox where ids of messages come in hexadecimal, and headers as text. */
export const textualRow = (row: Row): StoredRow => ({
  part: Number(row.part),
  id: BigInt(row.id as number | bigint | string),
  messageKey: uuidOf(row.message_id),
  topic: row.topic as string,
  key: row.key as string | null,
  headers: JSON.parse(row.headers as string) as { readonly [name: string]: string },
  payload: row.payload as Uint8Array | null
})

/** The `id` of the only row. */
export const idOf = ([row]: ReadonlyArray<Row>): number => Number(row?.id)

/** The `count` of a row that counts. */
export const countOf = ([row]: ReadonlyArray<Row>): number => Number(row?.count)

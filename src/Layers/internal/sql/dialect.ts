/**
 * Every statement of the SQL store, by purpose; a dialect is a file that
 * implements all of them.
 *
 * Owns: the list of statements and what each must hold. Invariant:
 * `postgres.ts` and `sqlite.ts` have the members below in this order (a test
 * compares), so two dialects can be read side by side, and no other file knows
 * which database it talks to. Texts are built once, from validated identifiers
 * and placeholders only; every value is a bound parameter, and a text is the
 * same for every call, so that a prepared statement is found again.
 *
 * The statements were raced against each other on live databases before they
 * were written here; "without it" says what went wrong there.
 *
 * @internal
 */
import type * as Arr from "effect/Array"
import type { Lease, OutboxRow, StoredRow } from "../../../MessageStore.ts"

/** A statement's text with its bound values. */
export interface Query {
  readonly sql: string
  readonly params: ReadonlyArray<unknown>
}

/** A result row as the driver hands it over; integers come as number or bigint. */
export type Row = Readonly<Record<string, unknown>>

/** One step of the schema, as single statements: no driver here runs two in one call. */
export interface MigrationScript {
  readonly id: number
  readonly name: string
  readonly statements: ReadonlyArray<string>
}

/** Where the tables are. `SqlStore.make` has checked that both names are identifiers. */
export interface Location {
  readonly schema: string | undefined
  readonly tablePrefix: string
}

/** Most rows that one insert carries. */
export const maxRows = 500

/** Most marks that one prune statement deletes. */
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
   * Rows of the given parts by `(part, id)`. A work list: no cursor, since ids
   * become visible out of order and a cursor strands what commits late.
   */
  readonly readRows: (parts: ReadonlyArray<number>, limit: number) => Query

  readonly storedRow: (row: Row) => StoredRow

  /**
   * Deletes exactly the rows given, of parts that `owner` still holds under
   * the epoch given, and holds off a take-over while it does; `removed` counts.
   * Without the fence, an owner that froze deletes beside its successor.
   */
  readonly deleteRows: (
    owner: string,
    leases: ReadonlyArray<Lease>,
    rows: ReadonlyArray<{ readonly part: number; readonly id: bigint }>
  ) => Query

  /** How many rows `deleteRows` or `pruneMarks` removed, from what it returned. */
  readonly removed: (rows: ReadonlyArray<Row>) => number

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

  /** Gives parts back, as far as `owner` holds them. */
  readonly releaseParts: (owner: string, parts: ReadonlyArray<number>) => Query

  /** Forgets an owner. */
  readonly forgetOwner: (owner: string) => Query

  /** The number of a handler, if it has one: `{ id }`. */
  readonly findConsumer: (group: string, handler: string) => Query

  /** Gives a handler its number, or returns the one that somebody else has just given: `{ id }`. */
  readonly registerConsumer: (group: string, handler: string) => Query

  /**
   * Inserts marks and returns those that are new: `{ message_key }`. Keys come
   * sorted: unsorted, two transactions that share keys deadlock. Waits for a
   * transaction that holds the same key.
   */
  readonly claimKeys: (consumer: number, sortedKeys: ReadonlyArray<string>) => Query

  /** A claimed key in the form in which it was given: lower-case UUID text. */
  readonly claimedKey: (row: Row) => string

  /**
   * Deletes up to `pruneChunk` marks that are older than this, oldest first;
   * `removed` counts. Goes by the index on the time: keys are time-ordered only
   * where they are UUIDv7, a hashed one looks like any other, so no bound on
   * the key fits both.
   */
  readonly pruneMarks: (retentionMillis: number) => Query
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

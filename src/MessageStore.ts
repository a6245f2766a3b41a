/**
 * The contract between the library and a database: transactions, outbox rows,
 * inbox marks and leases.
 *
 * The outbox and inbox own every policy (which part a row belongs to, when a
 * lease may act, what a repeat means); a store moves rows. Each Layer
 * (`Layers/SqlStore`, `Layers/Memory`) implements this file and passes
 * `test/suites/store`.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import type * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as SqlClient from "effect/sql/SqlClient"

const ErrorTypeId = "~effect-events/MessageStore/MessageStoreError" as const

/**
 * How many parts the outbox has. A row's part is a pure function of topic and
 * key; leases are held per part.
 *
 * @category constants
 * @since 0.1.0
 */
export const parts = 64

/**
 * A row on its way into the outbox.
 *
 * @category models
 * @since 0.1.0
 */
export interface OutboxRow {
  /** 0 … `parts - 1`. */
  readonly part: number
  /** The message's identity as a UUID in text form. */
  readonly messageKey: string
  readonly topic: string
  readonly key: string | null
  readonly headers: { readonly [name: string]: string }
  /** `null` is a tombstone. */
  readonly payload: Uint8Array | null
}

/**
 * A row as it lies in the outbox. Within a part, `id` grows in insertion order.
 *
 * @category models
 * @since 0.1.0
 */
export interface StoredRow extends OutboxRow {
  readonly id: bigint
}

/**
 * The right to relay one part: `epoch` grows whenever the owner changes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Lease {
  readonly part: number
  readonly epoch: bigint
}

/**
 * A row that was taken out of the outbox: the broker refuses it for good, or it
 * comes after such a row of its topic and key.
 *
 * @category models
 * @since 0.1.0
 */
export interface ParkedRow extends StoredRow {
  /** Why the broker refuses it; `null`: it waits behind one that is refused. */
  readonly reason: string | null
  readonly parkedAt: Date
}

/**
 * Which rows are meant: all, or those that agree with all that is given.
 *
 * @category models
 * @since 0.1.0
 */
export interface RowSelection {
  readonly messageKey?: string | undefined
  readonly topic?: string | undefined
  readonly key?: string | undefined
}

/**
 * Some of the rows that are meant, in the order of their parts and ids.
 *
 * @category models
 * @since 0.1.0
 */
export interface Page {
  readonly selection: RowSelection
  /** The last row of the page before. */
  readonly after?: { readonly part: number; readonly id: bigint } | undefined
  readonly limit: number
}

/**
 * What rows are kept in order by.
 *
 * @category models
 * @since 0.1.0
 */
export interface RowKey extends OutboxKey {
  readonly part: number
}

/**
 * The first parked row of a key: what comes after it waits.
 *
 * @category models
 * @since 0.1.0
 */
export interface ParkedKey extends RowKey {
  readonly id: bigint
}

/**
 * Rows that were taken out of the outbox. They keep their ids, and so their
 * place among the others when they come back.
 *
 * @category models
 * @since 0.1.0
 */
export interface ParkedRows {
  /**
   * Takes exactly these rows out of the outbox, as far as `owner` still holds
   * their part under the epoch given. Returns how many went.
   */
  readonly park: (options: {
    readonly owner: string
    readonly leases: ReadonlyArray<Lease>
    readonly rows: Arr.NonEmptyReadonlyArray<{
      readonly part: number
      readonly id: bigint
      readonly reason: string | null
    }>
  }) => Effect.Effect<number, MessageStoreError>
  /** The first parked row of each of these keys that has one. */
  readonly keys: (of: Arr.NonEmptyReadonlyArray<RowKey>) => Effect.Effect<ReadonlyArray<ParkedKey>, MessageStoreError>
  readonly list: (page: Page) => Effect.Effect<ReadonlyArray<ParkedRow>, MessageStoreError>
  /** Puts the refused ones of these rows back, and wakes the relays. Returns how many. */
  readonly release: (selection: RowSelection) => Effect.Effect<number, MessageStoreError>
  /** Puts rows back that wait behind no refused one any more, and wakes the relays. Returns how many. */
  readonly free: Effect.Effect<number, MessageStoreError>
  /** Gives a row another payload. Returns whether it is there. */
  readonly edit: (messageKey: string, payload: Uint8Array | null) => Effect.Effect<boolean, MessageStoreError>
  /** Removes these rows for good. Returns how many. */
  readonly drop: (selection: RowSelection) => Effect.Effect<number, MessageStoreError>
}

/**
 * A row that was sent, and is kept for a while.
 *
 * @category models
 * @since 0.1.0
 */
export interface SentRow extends StoredRow {
  readonly sentAt: Date
}

/**
 * Rows that were sent, where a relay keeps them.
 *
 * @category models
 * @since 0.1.0
 */
export interface SentRows {
  /** As `remove`, but keeps the rows here. */
  readonly keep: OutboxRows["remove"]
  readonly list: (page: Page) => Effect.Effect<ReadonlyArray<SentRow>, MessageStoreError>
  /** Forgets rows that were sent longer ago than `retention`. Returns how many went. */
  readonly prune: (retention: Duration.Duration) => Effect.Effect<number, MessageStoreError>
}

/**
 * What the events of one topic are kept in order by.
 *
 * @category models
 * @since 0.1.0
 */
export interface OutboxKey {
  readonly topic: string
  readonly key: string
}

/**
 * A row that enters the outbox later.
 *
 * @category models
 * @since 0.1.0
 */
export interface ScheduledRow extends OutboxRow {
  /** When it is due: milliseconds since 1970, compared with the database's clock. */
  readonly dueMillis: number
}

/**
 * Rows that enter the outbox when they are due.
 *
 * @category models
 * @since 0.1.0
 */
export interface ScheduledRows {
  /** Inserts rows, within the transaction of the calling fiber, and wakes the relays once that has committed. */
  readonly add: (rows: Arr.NonEmptyReadonlyArray<ScheduledRow>) => Effect.Effect<void, MessageStoreError>
  /** Milliseconds until the next one is due; negative if it is overdue; `undefined` if there is none. */
  readonly next: Effect.Effect<number | undefined, MessageStoreError>
  /**
   * Moves up to `limit` due rows into the outbox, in the order in which they
   * are due, and wakes the relays. One call at a time does so, of all
   * processes. Returns how many.
   */
  readonly move: (limit: number) => Effect.Effect<number, MessageStoreError>
  /** Up to `limit` rows in the order in which they are due. */
  readonly list: (options: {
    readonly topic?: string | undefined
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<ScheduledRow>, MessageStoreError>
  /** Removes a row. Returns whether it was there. */
  readonly cancel: (messageKey: string) => Effect.Effect<boolean, MessageStoreError>
}

/**
 * How much is in the outbox.
 *
 * @category models
 * @since 0.1.0
 */
export interface OutboxCounts {
  /** Rows to be sent. */
  readonly waiting: number
  /** Since when the oldest of them waits, milliseconds on the database's clock; `undefined` without any. */
  readonly oldestMillis: number | undefined
  readonly parked: number
  readonly scheduled: number
}

/**
 * Outbox rows. `append` belongs into a transaction; the rest is the relay's.
 *
 * @category models
 * @since 0.1.0
 */
export interface OutboxRows {
  /**
   * Inserts rows in the order given, within the transaction of the calling
   * fiber, and wakes the relays once that transaction has committed.
   */
  readonly append: (rows: Arr.NonEmptyReadonlyArray<OutboxRow>) => Effect.Effect<void, MessageStoreError>
  /**
   * Reads rows of the given parts, ordered by `(part, id)`, without locks: up
   * to `limit`, and beyond it where that is needed to read each row with all
   * rows of its key that were committed before it.
   */
  readonly read: (options: {
    readonly parts: Arr.NonEmptyReadonlyArray<number>
    readonly limit: number
  }) => Effect.Effect<ReadonlyArray<StoredRow>, MessageStoreError>
  /**
   * Deletes exactly these rows, as far as `owner` still holds their part under
   * the epoch given. Returns how many went.
   */
  readonly remove: (options: {
    readonly owner: string
    readonly leases: ReadonlyArray<Lease>
    readonly rows: Arr.NonEmptyReadonlyArray<{ readonly part: number; readonly id: bigint }>
  }) => Effect.Effect<number, MessageStoreError>
  /**
   * A queue that receives an element after rows were committed: by this
   * process always, by others where the store can tell. Hints only; polling
   * stays the truth.
   */
  readonly wakeups: Effect.Effect<Queue.Dequeue<void>, never, Scope.Scope>
  /**
   * Waits for other transactions that hold one of these keys, and holds them
   * until the transaction of the calling fiber ends. Ask for them at once and
   * last: whoever holds keys and waits for other locks may deadlock.
   */
  readonly lock: (keys: Arr.NonEmptyReadonlyArray<OutboxKey>) => Effect.Effect<void, MessageStoreError>
  /** Counts the rows, which takes longer the more there are. */
  readonly counts: Effect.Effect<OutboxCounts, MessageStoreError>
  readonly parked: ParkedRows
  readonly scheduled: ScheduledRows
  readonly sent: SentRows
}

/**
 * Who holds a part: nobody, if `owner` is `undefined`. The epoch grows with
 * each change of hands.
 *
 * @category models
 * @since 0.1.0
 */
export interface PartOwner {
  readonly part: number
  readonly owner: string | undefined
  readonly epoch: bigint
}

/**
 * Leases of outbox parts, on the database's clock.
 *
 * @category models
 * @since 0.1.0
 */
export interface Leases {
  /** Says that `owner` lives for another `ttl`. Returns how many owners live. */
  readonly beat: (owner: string, ttl: Duration.Duration) => Effect.Effect<number, MessageStoreError>
  /** Parts whose lease is free or has run out. */
  readonly free: Effect.Effect<ReadonlyArray<number>, MessageStoreError>
  /**
   * Renews those of `parts` that `owner` holds and takes those that are free;
   * returns all leases that `owner` holds now. Parts of others stay theirs.
   */
  readonly hold: (options: {
    readonly owner: string
    readonly ttl: Duration.Duration
    readonly parts: ReadonlyArray<number>
  }) => Effect.Effect<ReadonlyArray<Lease>, MessageStoreError>
  /** Gives parts back at once. */
  readonly release: (owner: string, parts: ReadonlyArray<number>) => Effect.Effect<void, MessageStoreError>
  /** Forgets an owner that stops. */
  readonly leave: (owner: string) => Effect.Effect<void, MessageStoreError>
  /** All parts, in order, each with its owner. */
  readonly owners: Effect.Effect<ReadonlyArray<PartOwner>, MessageStoreError>
  /** Tells all owners that who lives, or what is free, has changed. */
  readonly announce: Effect.Effect<void>
  /** A queue that receives an element after `announce`: by this process always, by others where the store can tell. */
  readonly changes: Effect.Effect<Queue.Dequeue<void>, never, Scope.Scope>
}

/**
 * Marks of the messages that a handler has applied.
 *
 * @category models
 * @since 0.1.0
 */
export interface Inbox {
  /** The small number under which a handler's marks are kept. Registers it when new. */
  readonly consumer: (group: string, handler: string) => Effect.Effect<number, MessageStoreError>
  /**
   * Marks messages as applied, within the transaction of the calling fiber,
   * and returns those that were not marked before. A concurrent claim of the
   * same message waits for the other transaction's end.
   *
   * `idleAtMost`: how long the transaction may stand still before the database
   * ends it, where it can (not SQLite): what a frozen process has locked is free
   * then.
   */
  readonly claim: (
    consumer: number,
    messageKeys: Arr.NonEmptyReadonlyArray<string>,
    idleAtMost?: Duration.Duration
  ) => Effect.Effect<ReadonlySet<string>, MessageStoreError>
  /** Forgets marks older than `retention`. Returns how many went. */
  readonly prune: (retention: Duration.Duration) => Effect.Effect<number, MessageStoreError>
}

/**
 * The service that keeps messages beside business data.
 *
 * **When to use**
 *
 * Programs name it only to provide a Layer; `Outbox` and
 * `Consumer.exactlyOnce` are the fronts to use.
 *
 * @category services
 * @since 0.1.0
 */
export class MessageStore extends Context.Service<MessageStore, {
  /** Which database, for error messages and logs; never contains secrets. */
  readonly dialect: string
  /**
   * Runs an effect inside a transaction: a new one, or a savepoint when the
   * fiber is in one already. Never retries by itself.
   */
  readonly transaction: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | MessageStoreError, R>
  /**
   * Identifies the innermost transaction or savepoint that the fiber is in,
   * by an object that is unique to it; `undefined` outside of any.
   */
  readonly level: Effect.Effect<object | undefined>
  /** Whether statements of this client are part of the transaction that they run in. */
  readonly joins: (client: SqlClient.SqlClient) => boolean
  /** Whether an error means that the transaction lost a race and may simply run again (deadlock, serialization failure). */
  readonly isConflict: (error: unknown) => boolean
  /**
   * Whether an error concerns the whole transaction and not the statement that
   * met it: an earlier statement had failed, or the connection was lost.
   */
  readonly isTransactionWide: (error: unknown) => boolean
  /**
   * Whether an error is the database's, and not that of what a transaction
   * holds: it is away, or full, or refuses what is the store's own. Then it is
   * waited for, and nothing is given up on.
   */
  readonly isOutage: (error: unknown) => boolean
  readonly outbox: OutboxRows
  readonly leases: Leases
  readonly inbox: Inbox
}>()("effect-events/MessageStore") {}

/**
 * The database could not be reached, or the connection was lost.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreUnreachable extends Schema.TaggedError<StoreUnreachable>("effect-events/MessageStore/Unreachable")(
  "StoreUnreachable",
  { operation: Schema.String, detail: Schema.String, cause: Schema.Defect() }
) {
  override get message() {
    return `The database did not answer while trying to ${this.operation}: ${this.detail}. Check its address and that it runs.`
  }
}

/**
 * The database refused the login or the rights.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreDenied extends Schema.TaggedError<StoreDenied>("effect-events/MessageStore/Denied")("StoreDenied", {
  operation: Schema.String,
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `The database denied to ${this.operation}: ${this.detail}. Check user, password and rights.`
  }
}

/**
 * The library's tables are not there.
 *
 * @category errors
 * @since 0.1.0
 */
export class TablesMissing extends Schema.TaggedError<TablesMissing>("effect-events/MessageStore/TablesMissing")(
  "TablesMissing",
  { operation: Schema.String, detail: Schema.String, cause: Schema.Defect() }
) {
  override get message() {
    return `A table of effect-events is missing (${this.operation}: ${this.detail}). ` +
      `Let SqlStore.layer migrate, or apply the statements of SqlStore.migrations(dialect) with your own tool.`
  }
}

/**
 * The transaction lost a race: deadlock, serialization failure or lock timeout.
 *
 * @category errors
 * @since 0.1.0
 */
export class Conflict extends Schema.TaggedError<Conflict>("effect-events/MessageStore/Conflict")("Conflict", {
  operation: Schema.String,
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `The transaction lost a race while trying to ${this.operation}: ${this.detail}. Run it again.`
  }
}

/**
 * The database has no room left: its disk, or its own limit, is full.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreFull extends Schema.TaggedError<StoreFull>("effect-events/MessageStore/Full")("StoreFull", {
  operation: Schema.String,
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `The database has no room left to ${this.operation}: ${this.detail}. Free some, or give it more.`
  }
}

/**
 * Any other failure of the database.
 *
 * @category errors
 * @since 0.1.0
 */
export class StoreFailed extends Schema.TaggedError<StoreFailed>("effect-events/MessageStore/Failed")("StoreFailed", {
  operation: Schema.String,
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `The database failed to ${this.operation}: ${this.detail}.`
  }
}

/**
 * Why a store operation failed.
 *
 * @category errors
 * @since 0.1.0
 */
export type MessageStoreErrorReason =
  | StoreUnreachable
  | StoreDenied
  | TablesMissing
  | Conflict
  | StoreFull
  | StoreFailed

/**
 * Schema of `MessageStoreErrorReason`.
 *
 * @category errors
 * @since 0.1.0
 */
export const MessageStoreErrorReason = Schema.Union([
  StoreUnreachable,
  StoreDenied,
  TablesMissing,
  Conflict,
  StoreFull,
  StoreFailed
])

/**
 * A failed store operation; `reason` says why.
 *
 * @category errors
 * @since 0.1.0
 */
export class MessageStoreError
  extends Schema.TaggedError<MessageStoreError>("effect-events/MessageStore/MessageStoreError")("MessageStoreError", {
    reason: MessageStoreErrorReason
  })
{
  readonly [ErrorTypeId] = ErrorTypeId
  override readonly cause = this.reason
  override get message() {
    return this.reason.message
  }
}

/**
 * Checks for a `MessageStoreError`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isMessageStoreError = (u: unknown): u is MessageStoreError => Predicate.hasProperty(u, ErrorTypeId)

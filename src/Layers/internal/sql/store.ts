/**
 * `MessageStore` over a dialect: runs its statements and shapes their results.
 *
 * Owns no policy and no SQL. Invariant: a statement runs on the transaction of
 * the calling fiber if there is one, and every SqlError of ours leaves as
 * `MessageStoreError` with the operation that failed. What the relay runs many
 * times a second is kept out of traces; what belongs to a business transaction
 * stays in them.
 *
 * @internal
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import type * as MessageStore from "../../../MessageStore.ts"
import { type Dialect, pruneChunk, type Query, type Row } from "./dialect.ts"
import * as Errors from "./errors.ts"
import * as Transaction from "./transaction.ts"
import type { Wakeups } from "./wakeups.ts"

type Rows = Effect.Effect<ReadonlyArray<Row>, MessageStore.MessageStoreError>

/** Times cross as whole milliseconds; a lease must not end up shorter than asked. */
const millis = (duration: Duration.Duration): number => Math.ceil(Duration.toMillis(duration))

const makeRunners = (sql: SqlClient.SqlClient) => {
  const run = (operation: string, query: Query): Rows =>
    Effect.mapError(sql.unsafe<Row>(query.sql, query.params), (error) => Errors.fromSqlError(error, operation))

  /**
   * A fiber that outlives its transaction still has its connection in context.
   * Where one connection serves all, as on SQLite, its statement would run in
   * somebody else's transaction. Registering a callback is how the client
   * tells that a transaction has ended.
   */
  const alive = (operation: string) =>
    Effect.catchDefect(
      sql.afterCommit(Effect.void),
      (defect) =>
        Errors.failure("StoreFailed", operation, "the transaction has ended, and this fiber outlived it", defect)
    )

  return {
    /** For what belongs to a business transaction. */
    within: (operation: string, query: Query): Rows => Effect.andThen(alive(operation), run(operation, query)),
    /** For what is run by the clock. */
    quiet: (operation: string, query: Query): Rows => Effect.withTracerEnabled(run(operation, query), false)
  }
}

type Runners = ReturnType<typeof makeRunners>

const makeOutbox = (
  sql: SqlClient.SqlClient,
  dialect: Dialect,
  { within, quiet }: Runners,
  wakeups: Wakeups
): MessageStore.OutboxRows => ({
  append: (rows) =>
    Effect.forEach(dialect.appendRows(rows), (query) => within("append to the outbox", query), { discard: true }).pipe(
      Effect.andThen(sql.afterCommit(wakeups.announce))
    ),
  read: ({ parts, limit }) =>
    Effect.map(quiet("read the outbox", dialect.readRows(parts, limit)), (rows) => rows.map(dialect.storedRow)),
  remove: ({ owner, leases, rows }) =>
    leases.length === 0
      ? Effect.succeed(0)
      : Effect.map(quiet("remove sent rows from the outbox", dialect.deleteRows(owner, leases, rows)), dialect.removed),
  wakeups: wakeups.subscribe
})

const makeLeases = (dialect: Dialect, { quiet }: Runners): MessageStore.Leases => ({
  beat: Effect.fnUntraced(function*(owner, ttl) {
    yield* quiet("announce an outbox owner", dialect.announceOwner(owner, millis(ttl)))
    yield* quiet("forget dead outbox owners", dialect.forgetDeadOwners)
    const [row] = yield* quiet("count outbox owners", dialect.countOwners)
    return Number(row?.count)
  }),
  free: Effect.map(
    Effect.suspend(() => quiet("look for free outbox parts", dialect.freeParts)),
    (rows) => rows.map((row) => Number(row.part))
  ),
  hold: Effect.fnUntraced(function*({ owner, ttl, parts }) {
    if (parts.length > 0) {
      yield* quiet("take outbox parts", dialect.takeParts(owner, millis(ttl), parts))
    }
    const rows = yield* quiet("read outbox leases", dialect.ownedParts(owner))
    return rows.map((row): MessageStore.Lease => ({
      part: Number(row.part),
      epoch: BigInt(row.epoch as number | bigint)
    }))
  }),
  release: (owner, parts) =>
    parts.length === 0 ? Effect.void : Effect.asVoid(quiet("release outbox parts", dialect.releaseParts(owner, parts))),
  leave: (owner) => Effect.asVoid(quiet("forget an outbox owner", dialect.forgetOwner(owner)))
})

const makeInbox = (sql: SqlClient.SqlClient, dialect: Dialect, { within, quiet }: Runners): MessageStore.Inbox => {
  const consumers = new Map<string, number>()
  const pruneOnce = (retention: Duration.Duration) =>
    Effect.map(quiet("prune the inbox", dialect.pruneMarks(millis(retention))), dialect.removed)

  return {
    consumer: Effect.fnUntraced(function*(group, handler) {
      const name = JSON.stringify([group, handler])
      const known = consumers.get(name)
      if (known !== undefined) {
        return known
      }
      const [found] = yield* within("look up a handler", dialect.findConsumer(group, handler))
      const [row] = found === undefined
        ? yield* within("register a handler", dialect.registerConsumer(group, handler))
        : [found]
      const id = Number(row?.id)
      // a registration that is rolled back must not be remembered
      yield* sql.afterCommit(Effect.sync(() => consumers.set(name, id)))
      return id
    }),
    claim: (consumer, messageKeys) =>
      Effect.map(
        within("claim messages in the inbox", dialect.claimKeys(consumer, messageKeys.toSorted())),
        (rows) => new Set(rows.map(dialect.claimedKey))
      ),
    prune: Effect.fnUntraced(function*(retention) {
      let total = 0
      while (true) {
        const gone = yield* pruneOnce(retention)
        total += gone
        if (gone < pruneChunk) {
          return total
        }
        yield* Effect.yieldNow
      }
    })
  }
}

/** @internal */
export const make = (
  sql: SqlClient.SqlClient,
  dialect: Dialect,
  wakeups: Wakeups
): MessageStore.MessageStore["Service"] => {
  const runners = makeRunners(sql)
  return {
    dialect: dialect.name,
    transaction: Transaction.make(sql, dialect),
    level: Effect.withFiber((fiber) => Effect.succeed(Context.getOrUndefined(fiber.context, sql.transactionService))),
    isConflict: Errors.isConflict,
    isTransactionWide: Errors.isTransactionWide,
    outbox: makeOutbox(sql, dialect, runners, wakeups),
    leases: makeLeases(dialect, runners),
    inbox: makeInbox(sql, dialect, runners)
  }
}

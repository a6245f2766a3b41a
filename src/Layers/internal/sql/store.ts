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
import * as SqlClient from "effect/sql/SqlClient"
import type * as MessageStore from "../../../MessageStore.ts"
import { countOf, type Dialect, idOf, type Program, pruneChunk, type Query, type Runner } from "./dialect.ts"
import * as Errors from "./errors.ts"
import * as Transaction from "./transaction.ts"
import type { Bell, Wakeups } from "./wakeups.ts"

type Ran<A> = Effect.Effect<A, MessageStore.MessageStoreError>

/** Times cross as whole milliseconds; a lease must not end up shorter than asked. */
const millis = (duration: Duration.Duration): number => Math.ceil(Duration.toMillis(duration))

const makeRunners = (sql: SqlClient.SqlClient, dialect: Dialect) => {
  const runner: Runner = {
    rows: (query) => sql.unsafe(query.sql, query.params),
    together: (program) =>
      Effect.withFiber((fiber) =>
        Context.getOrUndefined(fiber.context, sql.transactionService) === undefined
          ? Effect.provideService(sql.withTransaction(program), SqlClient.BeginTransaction, dialect.begin)
          : program
      )
  }
  const run = <A>(operation: string, program: Program<A>): Ran<A> =>
    Effect.mapError(program(runner), (error) => Errors.fromSqlError(error, operation))

  /**
   * A fiber that outlives its transaction still has its connection in context.
   * Where one connection serves all, as on SQLite, its statement would run in
   * somebody else's transaction. Registering a callback is how the client
   * tells that a transaction has ended.
   */
  const alive = (operation: string, afterCommit: Effect.Effect<void>) =>
    Effect.catchDefect(
      sql.afterCommit(afterCommit),
      (defect) =>
        Errors.failure("StoreFailed", operation, "the transaction has ended, and this fiber outlived it", defect)
    )

  return {
    /** For what belongs to a business transaction; `afterCommit` runs once that has committed. */
    within: <A>(operation: string, program: Program<A>, afterCommit: Effect.Effect<void> = Effect.void): Ran<A> =>
      Effect.andThen(alive(operation, afterCommit), run(operation, program)),
    /** For what is run by the clock. */
    quiet: <A>(operation: string, program: Program<A>): Ran<A> =>
      Effect.withTracerEnabled(run(operation, program), false)
  }
}

const rowsOf = (query: Query) => ({ rows }: Runner) => rows(query)

/** One statement after another, all or none; most often there is one. */
const allOf = (queries: ReadonlyArray<Query>): Program<unknown> =>
  queries.length === 1
    ? rowsOf(queries[0]!)
    : ({ rows, together }) => together(Effect.forEach(queries, rows, { discard: true }))

type Runners = ReturnType<typeof makeRunners>

const makeOutbox = (
  sql: SqlClient.SqlClient,
  dialect: Dialect,
  { within, quiet }: Runners,
  wakeups: Bell
): MessageStore.OutboxRows => ({
  append: (rows) => Effect.asVoid(within("append to the outbox", allOf(dialect.appendRows(rows)), wakeups.announce)),
  lock: (keys) => {
    const query = dialect.lockKeys(keys)
    return query === undefined ? Effect.void : Effect.asVoid(within("lock keys of the outbox", rowsOf(query)))
  },
  read: ({ parts, limit }) =>
    Effect.map(quiet("read the outbox", dialect.readRows(parts, limit)), (rows) => rows.map(dialect.storedRow)),
  remove: ({ owner, leases, rows }) =>
    leases.length === 0
      ? Effect.succeed(0)
      : quiet("remove sent rows from the outbox", dialect.deleteRows(owner, leases, rows)),
  wakeups: wakeups.subscribe,
  counts: Effect.map(
    Effect.suspend(() => within("count outbox rows", rowsOf(dialect.countRows))),
    ([row]) => ({
      waiting: Number(row!.waiting),
      oldestMillis: row!.oldest_millis === null ? undefined : Number(row!.oldest_millis),
      parked: Number(row!.parked),
      scheduled: Number(row!.scheduled)
    })
  ),
  parked: makeParked(sql, dialect, { quiet, within }, wakeups),
  scheduled: makeScheduled(sql, dialect, { quiet, within }, wakeups),
  sent: makeSent(dialect, { quiet, within })
})

const makeScheduled = (
  sql: SqlClient.SqlClient,
  dialect: Dialect,
  { quiet, within }: Runners,
  wakeups: Bell
): MessageStore.ScheduledRows => {
  return {
    add: (rows) => Effect.asVoid(within("schedule events", allOf(dialect.scheduleRows(rows)), wakeups.announce)),
    next: Effect.map(
      Effect.suspend(() => quiet("look for scheduled events", rowsOf(dialect.nextDue))),
      ([row]) => row?.millis === null || row?.millis === undefined ? undefined : Number(row.millis)
    ),
    move: (limit) =>
      Effect.tap(
        quiet("move scheduled events", dialect.moveDue(limit)),
        (rows) => rows === 0 ? Effect.void : sql.afterCommit(wakeups.announce)
      ),
    list: ({ limit, topic }) =>
      Effect.map(
        within("list scheduled events", rowsOf(dialect.listScheduled(topic ?? null, limit))),
        (rows) => rows.map(dialect.scheduledRow)
      ),
    cancel: (messageKey) =>
      Effect.map(within("cancel a scheduled event", dialect.cancelScheduled(messageKey)), (rows) => rows > 0)
  }
}

const firstRow = { part: -1, id: 0n }

const makeParked = (
  sql: SqlClient.SqlClient,
  dialect: Dialect,
  { quiet, within }: Runners,
  wakeups: Bell
): MessageStore.ParkedRows => {
  const waking = (moved: Ran<number>): Ran<number> =>
    Effect.tap(moved, (rows) => rows === 0 ? Effect.void : sql.afterCommit(wakeups.announce))
  return {
    park: ({ leases, owner, rows }) =>
      leases.length === 0
        ? Effect.succeed(0)
        : quiet("park rows of the outbox", dialect.parkRows(owner, leases, rows)),
    keys: (of) =>
      Effect.map(
        quiet("look for parked keys", dialect.parkedKeys(of)),
        (rows) =>
          rows.map((row): MessageStore.ParkedKey => ({
            part: Number(row.part),
            topic: row.topic as string,
            key: row.key as string,
            id: BigInt(row.id as number | bigint)
          }))
      ),
    list: ({ after = firstRow, limit, selection }) =>
      Effect.map(
        within("list parked rows", rowsOf(dialect.listParked(selection, after, limit))),
        (rows) => rows.map(dialect.parkedRow)
      ),
    release: (selection) => waking(within("release parked rows", dialect.releaseParked(selection))),
    free: waking(Effect.suspend(() => quiet("free parked rows", dialect.freeParked))),
    edit: (messageKey, payload) =>
      Effect.map(within("edit a parked row", dialect.editParked(messageKey, payload)), (rows) => rows > 0),
    drop: (selection) => within("drop parked rows", dialect.dropParked(selection))
  }
}

/** Runs a prune statement until it finds no full chunk any more. */
const pruneAll = Effect.fnUntraced(function*(pruneOnce: Ran<number>) {
  let total = 0
  while (true) {
    const gone = yield* pruneOnce
    total += gone
    if (gone < pruneChunk) return total
    yield* Effect.yieldNow
  }
})

const makeSent = (dialect: Dialect, { quiet, within }: Runners): MessageStore.SentRows => ({
  keep: ({ leases, owner, rows }) =>
    leases.length === 0
      ? Effect.succeed(0)
      : quiet("keep sent rows of the outbox", dialect.keepRows(owner, leases, rows)),
  list: ({ after = firstRow, limit, selection }) =>
    Effect.map(
      within("list sent rows", rowsOf(dialect.listSent(selection, after, limit))),
      (rows) => rows.map(dialect.sentRow)
    ),
  prune: (retention) => pruneAll(quiet("prune sent rows", dialect.pruneSent(millis(retention))))
})

/** Dead owners are forgotten an hour later, so there is no need to look for them with every beat. */
const beatsBetweenCleanups = 12

const makeLeases = (dialect: Dialect, { quiet, within }: Runners, wakeups: Bell): MessageStore.Leases => {
  let beats = 0
  return {
    beat: Effect.fnUntraced(function*(owner, ttl) {
      yield* quiet("announce an outbox owner", rowsOf(dialect.announceOwner(owner, millis(ttl))))
      if (beats++ % beatsBetweenCleanups === 0) {
        yield* quiet("forget dead outbox owners", rowsOf(dialect.forgetDeadOwners))
      }
      return countOf(yield* quiet("count outbox owners", rowsOf(dialect.countOwners)))
    }),
    free: Effect.map(
      Effect.suspend(() => quiet("look for free outbox parts", rowsOf(dialect.freeParts))),
      (rows) => rows.map((row) => Number(row.part))
    ),
    hold: Effect.fnUntraced(function*({ owner, ttl, parts }) {
      if (parts.length > 0) {
        yield* quiet("take outbox parts", rowsOf(dialect.takeParts(owner, millis(ttl), parts)))
      }
      const rows = yield* quiet("read outbox leases", rowsOf(dialect.ownedParts(owner)))
      return rows.map((row): MessageStore.Lease => ({
        part: Number(row.part),
        epoch: BigInt(row.epoch as number | bigint)
      }))
    }),
    release: (owner, parts) =>
      parts.length === 0
        ? Effect.void
        : Effect.asVoid(quiet("release outbox parts", rowsOf(dialect.releaseParts(owner, parts)))),
    leave: (owner) => Effect.asVoid(quiet("forget an outbox owner", rowsOf(dialect.forgetOwner(owner)))),
    owners: Effect.map(
      Effect.suspend(() => within("list outbox owners", rowsOf(dialect.partOwners))),
      (rows) =>
        rows.map((row): MessageStore.PartOwner => ({
          part: Number(row.part),
          owner: row.owner === null ? undefined : row.owner as string,
          epoch: BigInt(row.epoch as number | bigint)
        }))
    ),
    announce: wakeups.announce,
    changes: wakeups.subscribe
  }
}

const makeInbox = (sql: SqlClient.SqlClient, dialect: Dialect, { within, quiet }: Runners): MessageStore.Inbox => {
  const consumers = new Map<string, number>()

  return {
    consumer: Effect.fnUntraced(function*(group, handler) {
      const name = JSON.stringify([group, handler])
      const known = consumers.get(name)
      if (known !== undefined) {
        return known
      }
      const found = yield* within("look up a handler", rowsOf(dialect.findConsumer(group, handler)))
      const id = found.length > 0
        ? idOf(found)
        : yield* within("register a handler", dialect.registerConsumer(group, handler))
      // a registration that is rolled back must not be remembered
      yield* sql.afterCommit(Effect.sync(() => consumers.set(name, id)))
      return id
    }),
    claim: (consumer, messageKeys, idleAtMost) =>
      Effect.map(
        within(
          "claim messages in the inbox",
          dialect.claimKeys(consumer, messageKeys.toSorted(), idleAtMost && millis(idleAtMost))
        ),
        (keys) => new Set(keys)
      ),
    prune: (retention) => pruneAll(quiet("prune the inbox", dialect.pruneMarks(millis(retention))))
  }
}

/** @internal */
export const make = (
  sql: SqlClient.SqlClient,
  dialect: Dialect,
  wakeups: Wakeups
): MessageStore.MessageStore["Service"] => {
  const runners = makeRunners(sql, dialect)
  return {
    dialect: dialect.name,
    transaction: Transaction.make(sql, dialect),
    level: Effect.withFiber((fiber) => Effect.succeed(Context.getOrUndefined(fiber.context, sql.transactionService))),
    joins: (client) => client.transactionService === sql.transactionService,
    isConflict: Errors.isConflict,
    isTransactionWide: Errors.isTransactionWide,
    isOutage: Errors.isOutage,
    outbox: makeOutbox(sql, dialect, runners, wakeups.rows),
    leases: makeLeases(dialect, runners, wakeups.leases),
    inbox: makeInbox(sql, dialect, runners)
  }
}

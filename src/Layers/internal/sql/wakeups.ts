/**
 * Who is told that rows were committed, or that leases have changed hands.
 *
 * Owns: the queues of this process, and one LISTEN/NOTIFY channel per set of
 * tables where the client can do that (`@effect/sql-pg`). Invariant: a wake-up
 * is a hint; losing one costs a poll interval, never a row. So nothing here
 * fails a business call, and nothing is sent from inside its transaction,
 * where NOTIFY makes commits wait for each other (measured: 7,100/s to
 * 2,700/s).
 *
 * The first commit notifies at once; what follows within `hold` goes with the
 * next notification. Leases change rarely, and by processes that may end right
 * afterwards: that is sent when it is announced. The listener starts with the first `wakeups`, for it
 * holds a pooled connection; a process that only publishes has none.
 *
 * @internal
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type * as SqlClient from "effect/sql/SqlClient"
import type * as SqlError from "effect/sql/SqlError"

/** How long a notification is held back after the one before. */
const hold = "10 millis"

/** How long a lost listener waits before it listens again. */
const relisten = Schedule.spaced("1 second")

/** With fewer, the listener's connection would be missed. */
const minConnections = 3

/** What is used of `PgClient`, which is an optional peer and never imported. */
interface Notifier extends SqlClient.SqlClient {
  readonly config: { readonly maxConnections?: number | undefined }
  readonly listen: (
    channel: string
  ) => Effect.Effect<
    Queue.Dequeue<{ readonly payload: string }, SqlError.SqlError>,
    SqlError.SqlError,
    Scope.Scope
  >
  readonly notify: (channel: string, payload: string) => Effect.Effect<void, SqlError.SqlError>
}

const isNotifier = (sql: SqlClient.SqlClient): sql is Notifier =>
  Predicate.hasProperty(sql, "~@effect/sql-pg/PgClient") && Predicate.hasProperty(sql, "listen")

/** @internal */
export interface Bell {
  /** Tells everybody. Where it is about rows, call it after the commit. */
  readonly announce: Effect.Effect<void>
  readonly subscribe: Effect.Effect<Queue.Dequeue<void>, never, Scope.Scope>
}

/** @internal */
export interface Wakeups {
  /** Rows were committed. */
  readonly rows: Bell
  /** Leases were given back, or their owners have changed. */
  readonly leases: Bell
}

/** The queues of this process. Hints that nobody has taken yet are one hint. */
const makeQueues = () => {
  const queues = new Set<Queue.Queue<void>>()
  return {
    wake: () => queues.forEach((queue) => Queue.offerUnsafe(queue, undefined)),
    subscribe: Effect.acquireRelease(
      Effect.tap(Queue.dropping<void>(1), (queue) => Effect.sync(() => queues.add(queue))),
      (queue) => {
        queues.delete(queue)
        return Queue.shutdown(queue)
      }
    )
  }
}

/**
 * @param channel tells sets of tables of one database apart, together with `home`.
 * @param home the schema that the tables are in.
 * @internal
 */
export const make = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  channel: string,
  home: string
): Effect.fn.Return<Wakeups, never, Scope.Scope> {
  const scope = yield* Scope.Scope
  const [rows, leases] = [makeQueues(), makeQueues()]
  if (!isNotifier(sql) || (sql.config.maxConnections ?? 10) < minConnections) {
    const alone = ({ subscribe, wake }: typeof rows): Bell => ({ announce: Effect.sync(wake), subscribe })
    return { rows: alone(rows), leases: alone(leases) }
  }

  const self = yield* Effect.sync(() => crypto.randomUUID())
  const [ofRows, ofLeases] = [`${home} ${self}`, `${home} ${self} leases`]
  const notify = (payload: string) => Effect.ignore(sql.notify(channel, payload))
  const due = yield* Queue.dropping<void>(1)
  yield* Queue.take(due).pipe(
    Effect.andThen(notify(ofRows)),
    Effect.andThen(Effect.sleep(hold)),
    Effect.forever,
    outsideOf(sql),
    Effect.forkIn(scope)
  )

  const listen = Effect.scoped(Effect.gen(function*() {
    const heard = yield* sql.listen(channel)
    // whatever happened while nobody listened
    rows.wake()
    leases.wake()
    while (true) {
      const { payload } = yield* Queue.take(heard)
      if (!payload.startsWith(`${home} `) || payload.startsWith(ofRows)) continue
      if (payload.endsWith(" leases")) leases.wake()
      else rows.wake()
    }
  }))
  let listening = false
  const startListening = Effect.suspend(() => {
    if (listening) return Effect.void
    listening = true
    return listen.pipe(Effect.retry(relisten), Effect.ignore, outsideOf(sql), Effect.forkIn(scope))
  })

  return {
    rows: {
      announce: Effect.sync(() => {
        rows.wake()
        Queue.offerUnsafe(due, undefined)
      }),
      subscribe: Effect.tap(rows.subscribe, startListening)
    },
    leases: {
      announce: Effect.andThen(Effect.sync(leases.wake), outsideOf(sql)(notify(ofLeases))),
      subscribe: Effect.tap(leases.subscribe, startListening)
    }
  }
})

/** Background work belongs to no transaction and no trace. */
const outsideOf = (sql: SqlClient.SqlClient) => <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  self.pipe(
    Effect.withTracerEnabled(false),
    Effect.updateContext((context: Context.Context<R>) =>
      Context.omit(sql.transactionService)(context) as Context.Context<R>
    )
  )

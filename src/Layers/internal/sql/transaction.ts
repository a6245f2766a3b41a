/**
 * One transaction, with its own failures told apart from those of what runs
 * inside it.
 *
 * Owns: how a transaction begins, and the translation of failed BEGIN, COMMIT
 * and ROLLBACK into `MessageStoreError`. Invariant: an error or defect of the
 * body leaves untouched, its own SqlErrors too, so that callers can match on
 * them; when ROLLBACK fails as well, that comes second. Insight: the driver
 * reports both through the same channels (and a failed ROLLBACK as a defect), so
 * the body's exit is remembered and whatever SqlError was not in it came from
 * the transaction itself.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as SqlClient from "effect/sql/SqlClient"
import * as SqlError from "effect/sql/SqlError"
import type { MessageStoreError } from "../../../MessageStore.ts"
import type { Dialect, Guard } from "./dialect.ts"
import * as Errors from "./errors.ts"

const operationOf = (body: Exit.Exit<unknown, unknown> | undefined): string =>
  body === undefined
    ? "begin a transaction"
    : Exit.isSuccess(body)
    ? "commit a transaction"
    : "roll back a transaction"

const errorOf = (reason: Cause.Reason<unknown>): unknown =>
  Cause.isFailReason(reason) ? reason.error : Cause.isDieReason(reason) ? reason.defect : undefined

const judge = <A, E>(
  cause: Cause.Cause<E | SqlError.SqlError>,
  body: Exit.Exit<A, E> | undefined
): Cause.Cause<E | MessageStoreError> => {
  const own = body !== undefined && Exit.isFailure(body) ? body.cause.reasons : []
  const ownErrors = new Set(own.map(errorOf))
  const failures = cause.reasons.flatMap((reason) => {
    const error = errorOf(reason)
    return SqlError.isSqlError(error) && !ownErrors.has(error)
      ? [Cause.makeFailReason(Errors.fromSqlError(error, operationOf(body)))]
      : []
  })
  if (failures.length === 0) {
    return cause as Cause.Cause<E>
  }
  // Beside a failed ROLLBACK, the driver has made the body's errors defects; they stay what they were.
  return Cause.fromReasons<E | MessageStoreError>([...own, ...failures])
}

/**
 * Puts what guards a transaction around its body. Nothing interrupts it: a
 * connection must not go back to the pool as `enter` has left it.
 */
const guarding = (sql: SqlClient.SqlClient, { abandon, enter, leave }: Guard) => {
  const run = (text: string) => Effect.asVoid(sql.unsafe(text).unprepared)
  const giveUp = Effect.ignore(run(abandon))
  const end = Effect.catchCause(run(leave), (cause) => Effect.andThen(giveUp, Effect.failCause(cause)))
  return <A, E, R>(body: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError.SqlError, R> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.andThen(
        run(enter),
        Effect.onExitPrimitive(restore(body), (exit) => Exit.isSuccess(exit) ? end : giveUp)
      )
    )
}

/**
 * Begins with `begin`, unless the caller has chosen a `BeginTransaction` of
 * their own. The choice ends with the BEGIN: inside, other clients begin as
 * they always do.
 *
 * @internal
 */
export const make =
  (sql: SqlClient.SqlClient, { begin, guard, synchronous }: Pick<Dialect, "begin" | "guard" | "synchronous">) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | MessageStoreError, R> =>
    Effect.withFiber<A, E | MessageStoreError, R>((fiber) => {
      let body: Exit.Exit<A, E> | undefined
      const observed = Effect.onExit(effect, (exit) => {
        body = exit
        return Effect.void
      })
      const nested = Context.getOrUndefined(fiber.context, sql.transactionService) !== undefined
      const chosen = fiber.getRef(SqlClient.BeginTransaction)
      // Of a transaction that somebody else has begun, only the part that is ours could be guarded.
      const guarded = guard === undefined || nested ? observed : guarding(sql, guard)(observed)
      const transaction = chosen !== undefined || nested
        ? sql.withTransaction(guarded)
        : guarded.pipe(
          Effect.provideService(SqlClient.BeginTransaction, undefined),
          sql.withTransaction,
          Effect.provideService(SqlClient.BeginTransaction, begin)
        )
      const run = synchronous && !nested ? Effect.andThen(Effect.yieldNow, transaction) : transaction
      return Effect.catchCause(run, (cause) => Effect.failCause(judge(cause, body)))
    })

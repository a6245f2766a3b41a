/**
 * Brings the schema up to date, or prints it for those who use another tool.
 *
 * Owns: running a dialect's migrations under Effect's Migrator, in a table of
 * our own. Invariant: any number of instances may start at once; one migrates,
 * the others wait or find it done. Insight: Postgres makes them wait by a
 * table lock; SQLite answers BUSY at once, so there they try again, and every
 * statement is `if not exists`, so a schema applied by hand is adopted.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Migrator from "effect/sql/Migrator"
import * as SqlClient from "effect/sql/SqlClient"
import type { MessageStoreError } from "../../../MessageStore.ts"
import type { Dialect } from "./dialect.ts"
import * as Errors from "./errors.ts"

const operation = "migrate the tables of effect-events"

const whileBusy = Schedule.max([Schedule.jittered(Schedule.spaced("100 millis")), Schedule.recurs(100)])

/** @internal */
export const run = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  dialect: Dialect
): Effect.fn.Return<void, MessageStoreError> {
  const steps = dialect.migrations.map((migration): Migrator.ResolvedMigration => [
    migration.id,
    migration.name,
    Effect.succeed(Effect.forEach(migration.statements, (text) => sql.unsafe(text), { discard: true }))
  ])
  yield* Effect.forEach(dialect.prepare, (text) => sql.unsafe(text), { discard: true }).pipe(
    Effect.andThen(Migrator.make({})({ loader: Effect.succeed(steps), table: dialect.migrationsTable })),
    Effect.mapError((error) => Errors.fromMigrationError(error, operation)),
    Effect.provideService(SqlClient.SqlClient, sql),
    Effect.provideService(SqlClient.BeginTransaction, dialect.begin),
    Effect.retry({ while: Errors.isConflict, schedule: whileBusy })
  )
})

/** @internal */
export const print = (dialect: Dialect) =>
  dialect.migrations.map(({ id, name, statements }) => ({
    id,
    name,
    sql: [...dialect.prepare, ...statements].map((text) => `${text};\n`).join("\n")
  }))

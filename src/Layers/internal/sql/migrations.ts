/**
 * Brings the schema up to date, or prints it for those who use another tool.
 *
 * Owns: running a dialect's migrations under Effect's Migrator, in a table of
 * our own. Invariant: any number of instances may start at once; one migrates,
 * the others wait or find it done. Insight: Postgres makes them wait by a
 * table lock; SQLite answers BUSY at once, so there they try again; MySQL
 * commits whenever a table is created, so there a lock of the connection makes
 * them wait, and a step is recorded after it was made, not before. Every
 * statement is `if not exists`, so a schema applied by hand is adopted.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Migrator from "effect/sql/Migrator"
import * as SqlClient from "effect/sql/SqlClient"
import type * as SqlError from "effect/sql/SqlError"
import * as MessageStore from "../../../MessageStore.ts"
import { countOf, type Dialect, idOf, type MigrationLock, type MigrationScript, type Row } from "./dialect.ts"
import * as Errors from "./errors.ts"

const operation = "migrate the tables of effect-events"

const whileBusy = Schedule.max([Schedule.jittered(Schedule.spaced("100 millis")), Schedule.recurs(100)])

/** @internal */
export const run = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  dialect: Dialect
): Effect.fn.Return<void, MessageStore.MessageStoreError> {
  const { migrationLock, migrations, migrationsTable, prepare } = dialect
  const each = (statements: ReadonlyArray<string>) =>
    Effect.forEach(statements, (text) => sql.unsafe(text), { discard: true })
  const migrate = (
    steps: ReadonlyArray<MigrationScript>,
    make: (step: MigrationScript) => Effect.Effect<void, SqlError.SqlError>
  ) =>
    Migrator.make({})({
      loader: Effect.succeed(steps.map((step): Migrator.ResolvedMigration => [
        step.id,
        step.name,
        Effect.succeed(make(step))
      ])),
      table: migrationsTable
    })
  const underLock = Effect.fnUntraced(function*({ giveBack, take }: MigrationLock) {
    const taken = yield* sql.unsafe<Row>(take.sql, take.params)
    if (countOf(taken) !== 1) {
      return yield* Errors.failure("StoreFailed", operation, "another instance has been at it for a minute")
    }
    yield* Effect.gen(function*() {
      // Creates the Migrator's own table.
      yield* migrate([], () => Effect.void)
      const last = idOf(yield* sql.unsafe<Row>(`select coalesce(max(migration_id), 0) as id from ${migrationsTable}`))
      for (const [i, step] of migrations.entries()) {
        if (step.id <= last) continue
        yield* each(step.statements)
        yield* migrate(migrations.slice(0, i + 1), () => Effect.void)
      }
    }).pipe(Effect.ensuring(Effect.ignore(sql.unsafe(giveBack.sql, giveBack.params))))
  })
  yield* each(prepare).pipe(
    Effect.andThen(
      migrationLock === undefined
        ? migrate(migrations, ({ statements }) => each(statements))
        : sql.withTransaction(underLock(migrationLock))
    ),
    Effect.mapError((error) =>
      MessageStore.isMessageStoreError(error) ? error : Errors.fromMigrationError(error, operation)
    ),
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

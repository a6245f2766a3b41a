/**
 * `MessageStore` on a SQL database: Postgres, MySQL or MariaDB, and SQLite.
 *
 * Rows, leases and inbox marks live beside the business data and commit with
 * it; that is what makes the outbox and `exactlyOnce` exact. The Layer needs
 * an Effect `SqlClient` and nothing else. Business code must use the same
 * client, since a transaction belongs to a connection.
 *
 * Guarantees, each shown by `test/suites/store` on every database: rows appear
 * if and only if their transaction commits, with ids in the order of the
 * calls; a row is removed only by the owner of its part under the current
 * epoch; a message is claimed by one committed transaction. Commit order of
 * two transactions is the database's; see `Outbox` for what a program has to
 * do to keep order per key.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import { MessageStore, type MessageStoreError } from "../MessageStore.ts"
import type { Dialect, Location } from "./internal/sql/dialect.ts"
import * as Errors from "./internal/sql/errors.ts"
import * as Migrations from "./internal/sql/migrations.ts"
import { mysql } from "./internal/sql/mysql.ts"
import { postgres } from "./internal/sql/postgres.ts"
import { sqlite } from "./internal/sql/sqlite.ts"
import * as Store from "./internal/sql/store.ts"
import * as Wakeups from "./internal/sql/wakeups.ts"

const operation = "open the message store"

const defaultPrefix = "effect_events_"

/**
 * Where the tables are, and who creates them.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * The schema of the tables, Postgres only. It is created if it is missing
   * and `migrate` is on. Default: the first of the connection's `search_path`.
   */
  readonly schema?: string | undefined
  /**
   * Begins the name of every table and of the notification channel. Letters,
   * digits and underscores, at most 40. Default: `"effect_events_"`.
   */
  readonly tablePrefix?: string | undefined
  /**
   * Whether the Layer brings the tables up to date when it is built. When
   * `false`, apply `migrations` yourself. Default: `true`.
   */
  readonly migrate?: boolean | undefined
}

/**
 * A database that the store speaks to, by Effect's name for it.
 *
 * @category models
 * @since 0.1.0
 */
export type SupportedDialect = "pg" | "mysql" | "sqlite"

const dialects: { readonly [Name in SupportedDialect]: (location: Location) => Dialect } = {
  pg: postgres,
  mysql,
  sqlite
}

/**
 * What the conformance suite is told about this Layer, per database.
 *
 * - `concurrentTransactions`: two transactions of one process run side by
 *   side; otherwise the second waits for the first to end.
 * - `wakeups`: `"shared"` where a commit of one process wakes the relays of
 *   others, which takes `PgClient` with a pool of at least three connections;
 *   `"exact"` where they find the rows by polling.
 *
 * @category constants
 * @since 0.1.0
 */
export const features = {
  pg: { clock: "live", concurrentTransactions: true, wakeups: "shared" },
  mysql: { clock: "live", concurrentTransactions: true, wakeups: "exact" },
  sqlite: { clock: "live", concurrentTransactions: false, wakeups: "exact" }
} as const

/**
 * One step of the schema. `sql` holds several statements, each ended by a
 * semicolon and an empty line.
 *
 * @category models
 * @since 0.1.0
 */
export interface Migration {
  readonly id: number
  readonly name: string
  readonly sql: string
}

/** Says what is wrong with the names, which become part of the SQL; `undefined` if nothing is. */
const whyIllegal = (dialect: SupportedDialect, { schema, tablePrefix }: Location): string | undefined => {
  if (schema !== undefined && dialect !== "pg") {
    return `${dialect === "sqlite" ? "SQLite" : "MySQL"} has no schemas beside its databases, ` +
      `so leave out "${schema}" or put it into the table prefix`
  }
  if (!/^[A-Za-z_][A-Za-z0-9_]{0,39}$/.test(tablePrefix)) {
    return `"${tablePrefix}" is not a table prefix: use 1 to 40 letters, digits and underscores, no digit first`
  }
  if (schema !== undefined && !/^[A-Za-z_][A-Za-z0-9_]{0,62}$/.test(schema)) {
    return `"${schema}" is not a schema name: use 1 to 63 letters, digits and underscores, no digit first`
  }
}

const locate = (options: Options): Location => ({
  schema: options.schema,
  tablePrefix: options.tablePrefix ?? defaultPrefix
})

const dialectOf = (sql: SqlClient.SqlClient): Effect.Effect<SupportedDialect, MessageStoreError> => {
  const name = sql.onDialectOrElse({
    pg: () => "pg" as const,
    sqlite: () => "sqlite" as const,
    mysql: () => "mysql" as const,
    mssql: () => "mssql" as const,
    orElse: () => "an unknown dialect" as const
  })
  return name === "pg" || name === "mysql" || name === "sqlite"
    ? Effect.succeed(name)
    : Errors.failure(
      "StoreFailed",
      operation,
      `the SqlClient speaks ${name}; provide one that speaks ${Object.keys(dialects).join(", ")}`
    )
}

const findTables = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  dialect: Dialect
): Effect.fn.Return<string, MessageStoreError> {
  const rows = yield* Effect.mapError(
    sql.unsafe<{ readonly name: string; readonly home: string }>(dialect.findTables.sql, dialect.findTables.params),
    (error) => Errors.fromSqlError(error, operation)
  )
  const homes = new Map(rows.map((row) => [row.name, row.home]))
  const missing = dialect.tableNames.filter((name) => !homes.has(name))
  if (missing.length > 0) {
    return yield* Errors.failure("TablesMissing", operation, `found no ${missing.join(", ")}`)
  }
  return homes.get(dialect.tableNames[0]!)!
})

/**
 * Makes a store on the `SqlClient` in context, for programs that build their
 * own Layer. The scope ends its background work.
 *
 * **Details**
 *
 * - A transaction begins READ COMMITTED on Postgres and MySQL, and IMMEDIATE on
 *   SQLite, whatever the database's default is, unless the program has provided
 *   its own `SqlClient.BeginTransaction`. Under a higher level, a claim that
 *   meets a concurrent one on Postgres ends in `Conflict` instead of "not new".
 * - MySQL 8.0.4, MariaDB 10.6, or later, by a client that allows several
 *   statements in one call, as `@effect/sql-mysql2` does. After a deadlock these
 *   servers have rolled back, and commit each further statement by itself. A
 *   transaction of the store begins so that nothing of that stays: it fails with
 *   `Conflict`, also if the deadlock's error was swallowed. A statement that
 *   commits by itself, such as `CREATE TABLE`, fails it in the same way. This
 *   holds for `Outbox.transaction` and `exactlyOnce`, not for an outer
 *   `sql.withTransaction` around them.
 * - SQLite: keep `synchronous = FULL` (its default), else a power loss can take
 *   back a commit whose events were sent. While another process writes, a
 *   transaction fails with `Conflict`; run it again after a pause.
 * - Postgres by `PgClient`: the first use of `outbox.wakeups` takes one
 *   connection of the pool for LISTEN, if the pool allows at least three.
 *
 * Fails with `StoreFailed` for a database that is not supported and for names
 * that are no identifiers, with `TablesMissing`, `StoreUnreachable` and
 * `StoreDenied` as they say.
 *
 * **Example** (Telling from the dialect)
 *
 * ```ts
 * import * as SqlStore from "effect-events/Layers/SqlStore"
 * import * as Effect from "effect/Effect"
 *
 * const dialect = Effect.map(SqlStore.make({ migrate: false }), (store) => store.dialect)
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  options: Options = {}
): Effect.fn.Return<MessageStore["Service"], MessageStoreError, SqlClient.SqlClient | Scope.Scope> {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const name = yield* dialectOf(sql)
  const location = locate(options)
  const illegal = whyIllegal(name, location)
  if (illegal !== undefined) {
    return yield* Errors.failure("StoreFailed", operation, illegal)
  }
  const dialect = dialects[name](location)
  if (options.migrate !== false) {
    yield* Migrations.run(sql, dialect)
  }
  const home = yield* findTables(sql, dialect)
  return Store.make(sql, dialect, yield* Wakeups.make(sql, `${location.tablePrefix}outbox`, home))
})

/**
 * Provides `MessageStore` on the `SqlClient` in context, with options.
 *
 * **Example** (Own schema, migrated by another tool)
 *
 * ```ts
 * import * as SqlStore from "effect-events/Layers/SqlStore"
 *
 * export const Store = SqlStore.layerWith({ schema: "messaging", migrate: false })
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: Options): Layer.Layer<MessageStore, MessageStoreError, SqlClient.SqlClient> =>
  Layer.effect(MessageStore, make(options))

/**
 * Provides `MessageStore` on the `SqlClient` in context: tables
 * `effect_events_*` in the connection's first schema, brought up to date when
 * the Layer is built. Any number of instances may start at once.
 *
 * **Example** (Postgres)
 *
 * ```ts
 * import * as PgClient from "@effect/sql-pg/PgClient"
 * import * as SqlStore from "effect-events/Layers/SqlStore"
 * import * as Layer from "effect/Layer"
 * import * as Redacted from "effect/Redacted"
 *
 * export const Store = SqlStore.layer.pipe(
 *   Layer.provideMerge(PgClient.layer({ url: Redacted.make("postgres://localhost/shop") }))
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<MessageStore, MessageStoreError, SqlClient.SqlClient> = layerWith({})

/**
 * The schema as plain SQL, for those who migrate with another tool: apply the
 * steps in order of `id`, each once, then use `layerWith({ migrate: false })`.
 * Every statement is idempotent, so a database migrated by hand can be given
 * back to the Layer. Throws a `MessageStoreError` when a name is no identifier.
 *
 * **Example** (Printing the schema for Postgres)
 *
 * ```ts
 * import * as SqlStore from "effect-events/Layers/SqlStore"
 *
 * for (const step of SqlStore.migrations("pg", { schema: "messaging" })) {
 *   console.log(`-- ${step.id} ${step.name}\n${step.sql}`)
 * }
 * ```
 *
 * @category migrations
 * @since 0.1.0
 */
export const migrations = (
  dialect: SupportedDialect,
  options: Omit<Options, "migrate"> = {}
): ReadonlyArray<Migration> => {
  const location = locate(options)
  const illegal = whyIllegal(dialect, location)
  if (illegal !== undefined) {
    throw Errors.failure("StoreFailed", "print the migrations", illegal)
  }
  return Migrations.print(dialects[dialect](location))
}

/**
 * Databases of their own for the tests of the SQL store: a Postgres schema, a
 * MySQL database or a SQLite file with a random name, gone when the test's
 * scope ends.
 */
import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import type * as SqlError from "effect/sql/SqlError"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as SqlStore from "../../../src/Layers/SqlStore.ts"
import { MessageStore, type MessageStoreErrorReason, type OutboxRow } from "../../../src/MessageStore.ts"
import { mariadbUrl, mysqlUrl, postgresUrl, requireOrSkip } from "../../support/services.ts"

/** Where the tests' Postgres is; what needs it is skipped by `requireOrSkip("postgres")`. */
export const urlOf = (change: (url: URL) => void = () => {}, from: string | undefined = postgresUrl) => {
  const url = new URL(from ?? "postgres://missing")
  change(url)
  return Redacted.make(url.toString())
}

export const postgres = (config: Partial<PgClient.PgPoolConfig> = {}) => PgClient.layer({ url: urlOf(), ...config })

/** A schema name; whatever it holds is dropped with the scope. */
export const freshSchema: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => `t_${crypto.randomUUID().replaceAll("-", "")}`),
  (schema) =>
    SqlClient.SqlClient.use((sql) => sql`drop schema if exists ${sql(schema)} cascade`).pipe(
      Effect.provide(postgres({ maxConnections: 1 })),
      Effect.orDie
    )
)

/** MySQL or MariaDB: databases on it, and stores in them. */
const mysqlServer = (name: "MySQL" | "MariaDB", service: "mysql" | "mariadb", serverUrl: string | undefined) => {
  /** A client on one of its databases; default: the one in the url. */
  const client = (database?: string, config: Partial<MysqlClient.MysqlClientConfig> = {}) =>
    MysqlClient.layer({
      url: urlOf(
        (url) => database === undefined ? undefined : (url.pathname = database),
        serverUrl ?? "mysql://missing"
      ),
      ...config
    })
  const inDefault = <A>(use: (sql: SqlClient.SqlClient) => Effect.Effect<A, SqlError.SqlError>) =>
    SqlClient.SqlClient.use(use).pipe(Effect.provide(client()), Effect.orDie)
  /** The name of an empty database; whatever it holds is dropped with the scope. */
  const freshDatabase: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
    Effect.suspend(() => {
      const name = `t_${crypto.randomUUID().replaceAll("-", "")}`
      return Effect.as(inDefault((sql) => sql`create database ${sql(name)} character set utf8mb4`), name)
    }),
    (name) => inDefault((sql) => sql`drop database ${sql(name)}`)
  )
  const openInstance = (
    database: string,
    config?: Partial<MysqlClient.MysqlClientConfig>,
    options?: SqlStore.Options
  ) => instance(client(database, config), options)
  return { name, skip: requireOrSkip(service), client, freshDatabase, instance: openInstance }
}

export const mariadb = mysqlServer("MariaDB", "mariadb", mariadbUrl)
/** One dialect for both. */
export const mysqlServers = [mariadb, mysqlServer("MySQL", "mysql", mysqlUrl)]
export type MysqlServer = typeof mariadb

/** The path of a SQLite file in a directory of its own. */
export const freshFile: Effect.Effect<string, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-events-"))),
    (directory) => Effect.sync(() => rmSync(directory, { recursive: true, force: true }))
  ),
  (directory) => join(directory, "test.db")
)

export interface Instance {
  readonly store: MessageStore["Service"]
  readonly sql: SqlClient.SqlClient
}

/** Builds a store with a client of its own, as another process would. */
export const instance = <E>(
  client: Layer.Layer<SqlClient.SqlClient, E>,
  options?: SqlStore.Options
) =>
  Effect.map(
    Layer.build(Layer.fresh(SqlStore.layerWith(options ?? {}).pipe(Layer.provideMerge(Layer.fresh(client))))),
    (context): Instance => ({
      store: Context.get(context, MessageStore),
      sql: Context.get(context, SqlClient.SqlClient)
    })
  )

export const postgresInstance = (
  schema: string,
  config?: Partial<PgClient.PgPoolConfig>,
  options?: SqlStore.Options
) => instance(postgres(config), { schema, ...options })

export const sqliteInstance = (filename: string, options?: SqlStore.Options) =>
  instance(SqliteClient.layer({ filename }), options)

export const row = (overrides: Partial<OutboxRow> = {}): OutboxRow => ({
  part: 0,
  messageKey: crypto.randomUUID(),
  topic: "orders.placed",
  key: "order-1",
  headers: { ce_type: "orders.placed" },
  payload: new Uint8Array([1, 2, 3]),
  ...overrides
})

/** The reason of an effect's `MessageStoreError`; dies if it succeeds or fails with anything else. */
export const reasonOf = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<MessageStoreErrorReason, never, R> =>
  Effect.matchEffect(effect, {
    onSuccess: () => Effect.die(new Error("expected a MessageStoreError, but it succeeded")),
    onFailure: (error) =>
      (error as { readonly _tag?: string })._tag === "MessageStoreError"
        ? Effect.succeed((error as unknown as { readonly reason: MessageStoreErrorReason }).reason)
        : Effect.die(error)
  })

/** The process id of the connection of a transaction. */
export const backendOf = (sql: SqlClient.SqlClient) =>
  Effect.map(sql<{ pid: number }>`select pg_backend_pid() as pid`, ([found]) => found!.pid)

/** Waits until Postgres says that a connection waits for a lock. */
export const untilBlocked = (sql: SqlClient.SqlClient, pid: number) =>
  sql<{ blocked: boolean }>`select cardinality(pg_blocking_pids(${pid})) > 0 as blocked`.pipe(
    Effect.repeat({ until: ([found]) => found!.blocked }),
    Effect.timeoutOrElse({
      duration: "20 seconds",
      orElse: () => Effect.die(new Error(`backend ${pid} never waited for a lock`))
    })
  )

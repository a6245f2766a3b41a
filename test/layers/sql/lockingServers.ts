/** The databases on which one transaction waits for another: how to open them, and to see who waits. */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type * as SqlClient from "effect/sql/SqlClient"
import { requireOrSkip } from "../../support/services.ts"
import {
  backendOf,
  freshSchema,
  type Instance,
  type MysqlServer,
  mysqlServers,
  postgresInstance,
  untilBlocked
} from "./databases.ts"

export interface LockingServer {
  readonly name: string
  readonly skip: boolean
  /** Instances on one new database. */
  readonly open: (count: number) => Effect.Effect<ReadonlyArray<Instance>, unknown, Scope.Scope>
  /** What the server calls the connection of a transaction. */
  readonly backendOf: (sql: SqlClient.SqlClient) => Effect.Effect<number, unknown>
  /** Waits until the server says that a connection waits for a lock. */
  readonly untilBlocked: (sql: SqlClient.SqlClient, backend: number) => Effect.Effect<unknown, unknown>
  /** Lets a connection find a deadlock soon. */
  readonly seesDeadlocksSoon: (sql: SqlClient.SqlClient) => Effect.Effect<unknown, unknown>
  /** Lets a connection wait for a lock no longer than the least that the server knows. */
  readonly impatient: (sql: SqlClient.SqlClient) => Effect.Effect<unknown, unknown>
}

const postgres: LockingServer = {
  name: "Postgres",
  skip: requireOrSkip("postgres"),
  open: (count) =>
    Effect.flatMap(freshSchema, (schema) =>
      Effect.all(Array.from(
        { length: count },
        () => postgresInstance(schema, { startupParameters: { search_path: schema } })
      ))),
  backendOf,
  untilBlocked,
  seesDeadlocksSoon: (sql) => sql`set local deadlock_timeout = '20ms'`,
  impatient: (sql) => sql`set local lock_timeout = '10ms'`
}

const mysql = ({ freshDatabase, instance, name, skip }: MysqlServer): LockingServer => ({
  name,
  skip,
  open: (count) =>
    Effect.flatMap(
      freshDatabase,
      (database) => Effect.all(Array.from({ length: count }, () => instance(database)))
    ),
  backendOf: (sql) =>
    Effect.map(sql<{ id: number | string }>`select connection_id() as id`, ([found]) => Number(found!.id)),
  untilBlocked: (sql, backend) =>
    sql<{ waiting: number | string }>`select count(*) as waiting from information_schema.innodb_trx
where trx_mysql_thread_id = ${backend} and trx_state = 'LOCK WAIT'`.pipe(
      // Whoever asks again within 100 ms gets the same answer.
      Effect.repeat({ until: ([found]) => Number(found!.waiting) > 0, schedule: Schedule.spaced("150 millis") }),
      Effect.timeoutOrElse({
        duration: "20 seconds",
        orElse: () => Effect.die(new Error(`connection ${backend} never waited for a lock`))
      })
    ),
  // It looks at once.
  seesDeadlocksSoon: () => Effect.void,
  impatient: (sql) => sql`set innodb_lock_wait_timeout = 1`
})

export const lockingServers: ReadonlyArray<LockingServer> = [postgres, ...mysqlServers.map(mysql)]

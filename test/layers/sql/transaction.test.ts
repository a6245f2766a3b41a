import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as SqlClient from "effect/sql/SqlClient"
import * as SqlError from "effect/sql/SqlError"
import { isMessageStoreError } from "../../../src/MessageStore.ts"
import { requireOrSkip } from "../../support/services.ts"
import {
  freshFile,
  freshSchema,
  type Instance,
  type MysqlServer,
  mysqlServers,
  postgresInstance,
  reasonOf,
  row,
  sqliteInstance
} from "./databases.ts"

/** One connection, so that whatever a failed transaction leaves behind meets the next one. */
const onPostgres = Effect.gen(function*() {
  const schema = yield* freshSchema
  const { sql, store } = yield* postgresInstance(schema, {
    maxConnections: 1,
    startupParameters: { search_path: schema }
  })
  return { sql, store }
})

const onMysql = ({ freshDatabase, instance }: MysqlServer) =>
  Effect.flatMap(freshDatabase, (database) => instance(database, { maxConnections: 1 }))

const onSqlite = Effect.gen(function*() {
  const { sql, store } = yield* sqliteInstance(yield* freshFile)
  yield* sql`pragma foreign_keys = on`
  return { sql, store }
})

const count = ({ store }: Instance) => Effect.map(store.outbox.read({ parts: [0], limit: 10 }), (rows) => rows.length)

/** Lets inserts into `child` fail at COMMIT, by a foreign key that is checked only then; MySQL has none. */
const withDeferredKey = ({ sql }: Instance) =>
  Effect.andThen(
    sql`create table parent (id integer primary key)`,
    sql`create table child (parent_id integer not null references parent (id) deferrable initially deferred)`
  )

const databases = [
  { name: "Postgres", open: onPostgres, skip: requireOrSkip("postgres"), defersKeys: true },
  ...mysqlServers.map((server) => ({ name: server.name, open: onMysql(server), skip: server.skip, defersKeys: false })),
  { name: "SQLite", open: onSqlite, skip: false, defersKeys: true }
]

for (const { defersKeys, name, open, skip } of databases) {
  describe.skipIf(skip)(`transaction on ${name}`, () => {
    if (defersKeys) {
      it.live(
        "a failed COMMIT is a MessageStoreError, keeps nothing, and leaves the connection usable",
        () =>
          Effect.gen(function*() {
            const db = yield* open
            yield* withDeferredKey(db)
            const orphan = db.store.transaction(
              Effect.andThen(db.store.outbox.append([row()]), db.sql`insert into child (parent_id) values (1)`)
            )
            for (let attempt = 0; attempt < 2; attempt++) {
              const reason = yield* reasonOf(orphan)
              assert.strictEqual(reason._tag, "StoreFailed")
              assert.include(reason.message, "commit a transaction")
              assert.strictEqual(yield* count(db), 0)
            }
            yield* db.store.transaction(db.store.outbox.append([row()]))
            assert.strictEqual(yield* count(db), 1)
          })
      )
    }

    it.live("the body's own SqlError comes out as it is, and its rows are gone", () =>
      Effect.gen(function*() {
        const db = yield* open
        yield* db.sql`create table orders (id integer primary key)`
        const twice = db.store.transaction(Effect.gen(function*() {
          yield* db.store.outbox.append([row()])
          yield* db.sql`insert into orders (id) values (1)`
          yield* db.sql`insert into orders (id) values (1)`
        }))
        const error = yield* Effect.flip(twice)
        assert.isTrue(SqlError.isSqlError(error))
        assert.strictEqual(yield* count(db), 0)
      }))

    it.live("the body's own errors and defects come out as they are", () =>
      Effect.gen(function*() {
        const { store } = yield* open
        assert.strictEqual(yield* Effect.flip(store.transaction(Effect.fail("mine"))), "mine")
        const defect = new SqlError.SqlError({ reason: new SqlError.UnknownError({ cause: "mine too" }) })
        const exit = yield* Effect.exit(store.transaction(Effect.die(defect)))
        assert.isTrue(
          Exit.isFailure(exit) && exit.cause.reasons.some((r) => Cause.isDieReason(r) && r.defect === defect)
        )
      }))

    it.live("an error inside a savepoint undoes that savepoint only", () =>
      Effect.gen(function*() {
        const db = yield* open
        const kept = row()
        yield* db.store.transaction(Effect.gen(function*() {
          yield* db.store.outbox.append([kept])
          yield* Effect.flip(db.store.transaction(Effect.andThen(db.store.outbox.append([row()]), Effect.fail("no"))))
        }))
        const rows = yield* db.store.outbox.read({ parts: [0], limit: 10 })
        assert.deepStrictEqual(rows.map((found) => found.messageKey), [kept.messageKey])
      }))

    it.live("an interrupted transaction rolls back and gives its connection back", () =>
      Effect.gen(function*() {
        const db = yield* open
        const written = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkScoped(
          db.store.transaction(Effect.gen(function*() {
            yield* db.store.outbox.append([row()])
            yield* Deferred.succeed(written, undefined)
            return yield* Effect.never
          }))
        )
        yield* Deferred.await(written)
        yield* Fiber.interrupt(fiber)
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
        assert.strictEqual(yield* count(db), 0)
      }))

    it.live("the way our transaction begins does not reach transactions of other clients inside it", () =>
      Effect.gen(function*() {
        const { store } = yield* open
        const inside = yield* store.transaction(SqlClient.BeginTransaction)
        assert.isUndefined(inside)
      }))

    it.live("a registration that is rolled back is not remembered", () =>
      Effect.gen(function*() {
        const { sql, store } = yield* open
        yield* Effect.flip(
          store.transaction(Effect.andThen(store.inbox.consumer("billing", "invoice"), Effect.fail("no")))
        )
        const id = yield* store.inbox.consumer("billing", "invoice")
        const registered = yield* sql<{ id: number }>`select id from effect_events_consumer`
        assert.deepStrictEqual(registered.map((found) => found.id), [id])
      }))
  })
}

describe.skipIf(requireOrSkip("postgres"))("transaction on Postgres, under its own rules", () => {
  it.live("a swallowed failed statement turns COMMIT into ROLLBACK, and that is an error", () =>
    Effect.gen(function*() {
      const db = yield* onPostgres
      const reason = yield* reasonOf(db.store.transaction(
        Effect.andThen(db.store.outbox.append([row()]), Effect.ignore(db.sql`select * from no_such_table`))
      ))
      assert.strictEqual(reason._tag, "StoreFailed")
      assert.include(reason.message, "commit a transaction")
      assert.strictEqual(yield* count(db), 0)
    }))

  it.live("READ COMMITTED is used whatever the database's default is", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* postgresInstance(yield* freshSchema, {
        startupParameters: { default_transaction_isolation: "serializable" }
      })
      const level = Effect.map(
        sql<{ transaction_isolation: string }>`show transaction_isolation`,
        ([found]) => found!.transaction_isolation
      )
      assert.strictEqual(yield* sql.withTransaction(level), "serializable")
      assert.strictEqual(yield* store.transaction(level), "read committed")
    }))

  it.live("a BeginTransaction that the program chose is kept", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* onPostgres
      const [found] = yield* store.transaction(sql<{ transaction_isolation: string }>`show transaction_isolation`).pipe(
        Effect.provideService(SqlClient.BeginTransaction, "BEGIN ISOLATION LEVEL REPEATABLE READ")
      )
      assert.strictEqual(found?.transaction_isolation, "repeatable read")
    }))

  it.live("a connection that dies inside a transaction is StoreUnreachable, and never hides the body's own error", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* onPostgres
      const die = Effect.ignore(sql`select pg_terminate_backend(pg_backend_pid())`)
      const claiming = yield* reasonOf(store.transaction(Effect.andThen(die, store.inbox.claim(1, [row().messageKey]))))
      assert.strictEqual(claiming._tag, "StoreUnreachable")
      const committing = yield* reasonOf(store.transaction(die))
      assert.strictEqual(committing._tag, "StoreUnreachable")
      const exit = yield* Effect.exit(store.transaction(Effect.andThen(die, Effect.fail("mine"))))
      const errors = Exit.isFailure(exit)
        ? exit.cause.reasons.map((reason) => Cause.isFailReason(reason) ? reason.error : "no failure")
        : []
      assert.strictEqual(errors[0], "mine")
      const [, rollingBack] = errors
      assert.isTrue(isMessageStoreError(rollingBack) && rollingBack.reason._tag === "StoreUnreachable")
      assert.include(String(rollingBack), "roll back")
      assert.lengthOf(yield* store.leases.free, 64)
    }))
})

const rulesOfMysql = (server: MysqlServer): void => {
  const open = Effect.flatMap(server.freshDatabase, (database) => server.instance(database))

  /** Two rows that two transactions lock in opposite order; each notes what it has done. */
  const accounts = Effect.fnUntraced(function*({ sql }: Instance) {
    yield* sql`create table account (name varchar(20) not null primary key, entries int not null)`
    yield* sql`insert into account (name, entries) values ('a', 0), ('b', 0), ('before', 0), ('after', 0)`
    return {
      enter: (name: string) => sql`update account set entries = entries + 1 where name = ${name}`,
      entries: Effect.map(
        sql<{ readonly name: string; readonly entries: number }>`select name, entries from account`,
        (rows) => Object.fromEntries(rows.map(({ entries, name }) => [name, entries]))
      )
    }
  })

  it.live("of a transaction that a deadlock has ended nothing stays, also if its error was swallowed", () =>
    Effect.gen(function*() {
      const db = yield* open
      const { enter, entries } = yield* accounts(db)
      yield* db.sql`create table note (text varchar(20) not null)`
      const held = [yield* Deferred.make<void>(), yield* Deferred.make<void>()] as const
      const swallowed: Array<unknown> = []
      const cross = (mine: 0 | 1) =>
        db.store.transaction(Effect.gen(function*() {
          yield* db.store.outbox.append([row()])
          yield* enter(mine === 0 ? "a" : "b")
          yield* Deferred.succeed(held[mine], undefined)
          yield* Deferred.await(held[1 - mine]!)
          yield* Effect.catch(enter(mine === 0 ? "b" : "a"), (error) => Effect.sync(() => swallowed.push(error)))
          // By itself, it would stay.
          yield* db.sql`insert into note (text) values (${mine})`
        }))
      const ends = yield* Effect.all([Effect.result(cross(0)), Effect.result(cross(1))], { concurrency: 2 })
      assert.lengthOf(swallowed, 1)
      assert.isTrue(db.store.isConflict(swallowed[0]))
      const failed = ends.filter((end) => end._tag === "Failure").map((end) => end.failure)
      assert.lengthOf(failed, 1)
      assert.isTrue(db.store.isConflict(failed[0]))
      assert.include(String(failed[0]), "deadlock whose error was swallowed")
      const after = yield* entries
      assert.deepStrictEqual([after.a, after.b], [1, 1])
      assert.strictEqual(yield* count(db), 1)
      assert.lengthOf(yield* db.sql`select text from note`, 1)
    }))

  it.live("a statement that commits by itself fails the transaction, and what follows it is undone", () =>
    Effect.gen(function*() {
      const db = yield* open
      const { enter, entries } = yield* accounts(db)
      const reason = yield* reasonOf(db.store.transaction(Effect.gen(function*() {
        yield* enter("before")
        yield* db.sql`create table by_itself (id int)`
        yield* enter("after")
        yield* db.store.outbox.append([row()])
      })))
      assert.strictEqual(reason._tag, "Conflict")
      assert.include(reason.message, "CREATE TABLE")
      assert.deepStrictEqual(yield* entries, { a: 0, b: 0, before: 1, after: 0 })
      assert.strictEqual(yield* count(db), 0)
    }))

  it.live("leaves its connection as it was, however it ended", () =>
    Effect.gen(function*() {
      const db = yield* onMysql(server)
      const { enter } = yield* accounts(db)
      const settings = Effect.map(
        db.sql<{ readonly autocommit: number }>`select @@autocommit as autocommit`,
        ([found]) => found!.autocommit
      )
      yield* db.store.transaction(enter("a"))
      assert.strictEqual(yield* settings, 1)
      yield* Effect.flip(db.store.transaction(Effect.andThen(enter("a"), Effect.fail("no"))))
      assert.strictEqual(yield* settings, 1)
      yield* Effect.exit(db.store.transaction(Effect.die("no")))
      assert.strictEqual(yield* settings, 1)
      const within = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkScoped(
        db.store.transaction(Effect.andThen(Deferred.succeed(within, undefined), Effect.never))
      )
      yield* Deferred.await(within)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(yield* settings, 1)
      yield* Effect.flip(db.store.transaction(db.sql`rollback`))
      assert.strictEqual(yield* settings, 1)
      for (let n = 0; n < 50; n++) {
        const soon = yield* Effect.forkScoped(db.store.transaction(enter("a")))
        for (let i = 0; i < n; i++) yield* Effect.yieldNow
        yield* Fiber.interrupt(soon)
      }
      assert.strictEqual(yield* settings, 1)
    }))

  it.live("READ COMMITTED is used whatever the session's default is", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* onMysql(server)
      yield* sql`set session transaction isolation level serializable`
      yield* sql`create table seen (n int)`
      const other = yield* server.instance((yield* sql<{ name: string }>`select database() as name`)[0]!.name)
      const counted = Effect.map(sql`select n from seen`, (rows) => rows.length)
      const [first, second] = yield* store.transaction(Effect.gen(function*() {
        const first = yield* counted
        yield* other.sql`insert into seen (n) values (1)`
        return [first, yield* counted] as const
      }))
      assert.deepStrictEqual([first, second], [0, 1])
    }))

  it.live("a connection that dies inside a transaction is StoreUnreachable, and never hides the body's own error", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* onMysql(server)
      const die = Effect.flatMap(
        sql<{ id: number }>`select connection_id() as id`,
        ([found]) => Effect.ignore(sql.unsafe(`kill ${found!.id}`))
      )
      const claiming = yield* reasonOf(store.transaction(Effect.andThen(die, store.inbox.claim(1, [row().messageKey]))))
      assert.strictEqual(claiming._tag, "StoreUnreachable")
      const committing = yield* reasonOf(store.transaction(die))
      assert.strictEqual(committing._tag, "StoreUnreachable")
      const exit = yield* Effect.exit(store.transaction(Effect.andThen(die, Effect.fail("mine"))))
      const errors = Exit.isFailure(exit)
        ? exit.cause.reasons.map((reason) => Cause.isFailReason(reason) ? reason.error : "no failure")
        : []
      assert.strictEqual(errors[0], "mine")
      assert.lengthOf(yield* store.leases.free, 64)
    }))
}

for (const server of mysqlServers) {
  describe.skipIf(server.skip)(`transaction on ${server.name}, under its own rules`, () => rulesOfMysql(server))
}

describe("transaction on SQLite, under its own rules", () => {
  it.live("the write lock is taken at once, and a lock that another process holds is a Conflict", () =>
    Effect.gen(function*() {
      const file = yield* freshFile
      const one = yield* sqliteInstance(file)
      const other = yield* sqliteInstance(file)
      yield* one.store.transaction(Effect.gen(function*() {
        const reason = yield* reasonOf(other.store.transaction(Effect.die(new Error("the body must not run"))))
        assert.strictEqual(reason._tag, "Conflict")
        assert.include(reason.message, "begin a transaction")
        const error = yield* Effect.flip(other.store.outbox.append([row()]))
        assert.isTrue(other.store.isConflict(error))
        // readers are not held up
        assert.strictEqual(yield* count(other), 0)
      }))
      yield* other.store.transaction(other.store.outbox.append([row()]))
      assert.strictEqual(yield* count(one), 1)
    }))
})

import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as SqlClient from "effect/sql/SqlClient"
import * as Statement from "effect/sql/Statement"
import * as SqlStore from "../../../src/Layers/SqlStore.ts"
import type { MessageStore } from "../../../src/MessageStore.ts"
import { requireOrSkip } from "../../support/services.ts"
import {
  freshFile,
  freshSchema,
  instance,
  type MysqlServer,
  mysqlServers,
  postgresInstance,
  reasonOf,
  row,
  sqliteInstance
} from "./databases.ts"

/** A store works if a row goes through it. */
const works = Effect.fnUntraced(function*(store: MessageStore["Service"]) {
  const written = row()
  yield* store.transaction(store.outbox.append([written]))
  const [read] = yield* store.outbox.read({ parts: [0], limit: 1 })
  assert.strictEqual(read?.messageKey, written.messageKey)
  assert.lengthOf(yield* store.leases.free, 64)
})

/** Runs printed migrations as another tool would: statement by statement. */
const apply = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  migrations: ReturnType<typeof SqlStore.migrations>
) {
  for (const migration of migrations) {
    for (const statement of migration.sql.split(";\n\n")) {
      yield* sql.unsafe(statement)
    }
  }
})

const stepsOf = (dialect: "pg" | "mysql" | "sqlite") => SqlStore.migrations(dialect).length

const evil = "x\"; drop table orders; --"

describe.skipIf(requireOrSkip("postgres"))("migrations on Postgres", () => {
  it.live("eight instances that start at once create the schema and its tables once", () =>
    Effect.gen(function*() {
      const schema = yield* freshSchema
      const instances = yield* Effect.all(
        Array.from({ length: 8 }, () => postgresInstance(schema, { maxConnections: 2 })),
        { concurrency: "unbounded" }
      )
      const { sql, store } = instances[7]!
      yield* works(store)
      assert.lengthOf(yield* sql`select * from ${sql(`${schema}.effect_events_migrations`)}`, stepsOf("pg"))
    }))

  it.live("what migrations() prints can be applied by hand, twice, and given back to the Layer later", () =>
    Effect.gen(function*() {
      const schema = yield* freshSchema
      const { sql } = yield* postgresInstance(yield* freshSchema)
      const printed = SqlStore.migrations("pg", { schema, tablePrefix: "shop_" })
      yield* apply(sql, printed)
      yield* apply(sql, printed)
      const byHand = yield* postgresInstance(schema, {}, { tablePrefix: "shop_", migrate: false })
      yield* works(byHand.store)
      const { store } = yield* postgresInstance(schema, {}, { tablePrefix: "shop_" })
      assert.lengthOf(yield* store.outbox.read({ parts: [0], limit: 10 }), 1)
    }))

  it.live("without tables and without migrating, the Layer fails with TablesMissing, names them and says what to do", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(postgresInstance(yield* freshSchema, {}, { migrate: false }))
      assert.strictEqual(reason._tag, "TablesMissing")
      assert.include(reason.message, "effect_events_outbox")
      assert.include(reason.message, "SqlStore.migrations")
    }))

  it.live("a table that disappears later is TablesMissing too", () =>
    Effect.gen(function*() {
      const schema = yield* freshSchema
      const { sql, store } = yield* postgresInstance(schema)
      yield* sql`drop table ${sql(`${schema}.effect_events_outbox`)}`
      assert.strictEqual((yield* reasonOf(store.outbox.append([row()])))._tag, "TablesMissing")
    }))

  it.live("names that are no identifiers never reach the database", () =>
    Effect.gen(function*() {
      const schema = yield* reasonOf(postgresInstance(evil))
      assert.strictEqual(schema._tag, "StoreFailed")
      assert.include(schema.message, "schema name")
      assert.throws(() => SqlStore.migrations("pg", { schema: evil }), "schema name")
    }))
})

const onMysql = ({ freshDatabase, instance: mysqlInstance }: MysqlServer): void => {
  it.live("eight instances that start at once create the tables once", () =>
    Effect.gen(function*() {
      const database = yield* freshDatabase
      const instances = yield* Effect.all(
        Array.from({ length: 8 }, () => mysqlInstance(database, { maxConnections: 1 })),
        { concurrency: "unbounded" }
      )
      const { sql, store } = instances[7]!
      yield* works(store)
      assert.lengthOf(yield* sql`select * from effect_events_migrations`, stepsOf("mysql"))
    }))

  it.live("what was cut off in the middle is made whole by the next start", () =>
    Effect.gen(function*() {
      const database = yield* freshDatabase
      const { sql } = yield* mysqlInstance(database, {}, { tablePrefix: "other_" })
      for (const text of SqlStore.migrations("mysql")[0]!.sql.split(";\n\n").slice(0, 2)) yield* sql.unsafe(text)
      yield* works((yield* mysqlInstance(database)).store)
    }))

  it.live("what migrations() prints can be applied by hand, twice, and given back to the Layer later", () =>
    Effect.gen(function*() {
      const database = yield* freshDatabase
      const { sql } = yield* mysqlInstance(database)
      const printed = SqlStore.migrations("mysql", { tablePrefix: "shop_" })
      yield* apply(sql, printed)
      yield* apply(sql, printed)
      const byHand = yield* mysqlInstance(database, {}, { tablePrefix: "shop_", migrate: false })
      yield* works(byHand.store)
      const { store } = yield* mysqlInstance(database, {}, { tablePrefix: "shop_" })
      assert.lengthOf(yield* store.outbox.read({ parts: [0], limit: 10 }), 1)
    }))

  it.live("without tables and without migrating, the Layer fails with TablesMissing and names them", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(mysqlInstance(yield* freshDatabase, {}, { migrate: false }))
      assert.strictEqual(reason._tag, "TablesMissing")
      assert.include(reason.message, "effect_events_inbox")
    }))

  it.live("a table that disappears later is TablesMissing too", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* mysqlInstance(yield* freshDatabase)
      yield* sql`drop table effect_events_outbox`
      assert.strictEqual((yield* reasonOf(store.outbox.append([row()])))._tag, "TablesMissing")
    }))

  it.live("a schema on MySQL is refused with a way out", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(mysqlInstance(yield* freshDatabase, {}, { schema: "messaging" }))
      assert.include(reason.message, "put it into the table prefix")
    }))
}

for (const server of mysqlServers) {
  describe.skipIf(server.skip)(`migrations on ${server.name}`, () => onMysql(server))
}

describe("migrations on SQLite", () => {
  it.live("eight instances that start at once create the tables once", () =>
    Effect.gen(function*() {
      const file = yield* freshFile
      const instances = yield* Effect.all(Array.from({ length: 8 }, () => sqliteInstance(file)), {
        concurrency: "unbounded"
      })
      const { sql, store } = instances[7]!
      yield* works(store)
      assert.lengthOf(yield* sql`select * from effect_events_migrations`, stepsOf("sqlite"))
    }))

  it.live("a migration waits while another process writes", () =>
    Effect.gen(function*() {
      const file = yield* freshFile
      const other = yield* sqliteInstance(file, { tablePrefix: "other_" })
      const start = yield* other.store.transaction(Effect.gen(function*() {
        const start = yield* Effect.forkDetach(Effect.scoped(Effect.andThen(sqliteInstance(file), Effect.void)))
        const early = yield* Effect.timeoutOption(Fiber.await(start), "50 millis")
        assert.isTrue(Option.isNone(early))
        return start
      }))
      yield* Fiber.join(start)
      yield* works((yield* sqliteInstance(file, { migrate: false })).store)
    }))

  it.live("what migrations() prints can be applied by hand, twice, and given back to the Layer later", () =>
    Effect.gen(function*() {
      const file = yield* freshFile
      const { sql } = yield* sqliteInstance(file)
      const printed = SqlStore.migrations("sqlite", { tablePrefix: "shop_" })
      yield* apply(sql, printed)
      yield* apply(sql, printed)
      const byHand = yield* sqliteInstance(file, { tablePrefix: "shop_", migrate: false })
      yield* works(byHand.store)
      const { store } = yield* sqliteInstance(file, { tablePrefix: "shop_" })
      assert.lengthOf(yield* store.outbox.read({ parts: [0], limit: 10 }), 1)
    }))

  it.live("what waited in a table of version 0.1.0 is there and in order, and no id is given twice", () =>
    Effect.gen(function*() {
      const file = yield* freshFile
      const { sql } = yield* sqliteInstance(file, { tablePrefix: "other_" })
      yield* apply(sql, SqlStore.migrations("sqlite").slice(0, 3))
      const insert = (part: number, topic: string) =>
        sql`insert into effect_events_outbox (part, message_id, topic, headers) values (${part}, randomblob(16), ${topic}, '{}')`
      for (const [part, topic] of [[3, "a"], [1, "b"], [3, "c"], [1, "sent"]] as const) yield* insert(part, topic)
      yield* sql`delete from effect_events_outbox where topic = 'sent'`
      const { store } = yield* sqliteInstance(file)
      yield* store.transaction(store.outbox.append([row({ topic: "d" }), row({ part: 1, topic: "e" })]))
      const rows = yield* store.outbox.read({ parts: [0, 1, 2, 3], limit: 10 })
      assert.deepStrictEqual(rows.map(({ id, part, topic }) => [part, topic, Number(id)]), [
        [0, "d", 5],
        [1, "b", 2],
        [1, "e", 6],
        [3, "a", 1],
        [3, "c", 3]
      ])
    }))

  it.live("without tables and without migrating, the Layer fails with TablesMissing and names them", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(sqliteInstance(yield* freshFile, { migrate: false }))
      assert.strictEqual(reason._tag, "TablesMissing")
      assert.include(reason.message, "effect_events_inbox")
    }))

  it.live("a table that disappears later is TablesMissing too", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* sqliteInstance(yield* freshFile)
      yield* sql`drop table effect_events_outbox`
      assert.strictEqual((yield* reasonOf(store.outbox.append([row()])))._tag, "TablesMissing")
    }))

  it.live("names that are no identifiers never reach the database", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(sqliteInstance(":memory:", { tablePrefix: evil }))
      assert.include(reason.message, "table prefix")
    }))

  it.live("a schema on SQLite is refused with a way out", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(sqliteInstance(":memory:", { schema: "messaging" }))
      assert.include(reason.message, "put it into the table prefix")
    }))

  it.live("result and query transforms of the client do not reach the store's own statements", () =>
    Effect.gen(function*() {
      const { store } = yield* instance(SqliteClient.layer({
        filename: ":memory:",
        transformQueryNames: (name) => name.toUpperCase(),
        transformResultNames: (name) => name.split("").reverse().join("")
      }))
      yield* works(store)
    }))
})

describe("other databases", () => {
  it.live("a database that is not supported is refused, with those that are", () =>
    Effect.gen(function*() {
      const mssql = Layer.effect(
        SqlClient.SqlClient,
        SqlClient.make({
          acquirer: Effect.die(new Error("no connection should be asked for")),
          compiler: Statement.makeCompiler({
            dialect: "mssql",
            placeholder: () => "?",
            onIdentifier: Statement.defaultEscape("`"),
            onCustom: () => ["", []],
            onRecordUpdate: () => ["", []]
          }),
          driver: "mssql",
          spanAttributes: []
        })
      ).pipe(Layer.provide(Reactivity.layer))
      const reason = yield* reasonOf(instance(mssql))
      assert.strictEqual(reason._tag, "StoreFailed")
      assert.include(reason.message, "mssql")
      assert.include(reason.message, "pg, mysql, sqlite")
    }))
})

import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as SqlError from "effect/sql/SqlError"
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { startPostgres } from "../../../scripts/services/postgres/server.ts"
import { Unavailable } from "../../../scripts/services/unavailable.ts"
import * as Errors from "../../../src/Layers/internal/sql/errors.ts"
import { requireOrSkip } from "../../support/services.ts"
import { freshSchema, postgresInstance, reasonOf, row, urlOf } from "./databases.ts"

/** A server that a test may stop, or give other rules; skips the test where none can be started. */
const ownServer = (context: { readonly skip: (reason: string) => never }) =>
  Effect.acquireRelease(
    Effect.promise(() => startPostgres()).pipe(
      Effect.catchDefect((error) =>
        error instanceof Unavailable && process.env.CI !== "true"
          ? Effect.sync(() => context.skip(error.message))
          : Effect.die(error)
      )
    ),
    (server) => Effect.promise(server.stop)
  )

const withCode = (code: string) =>
  Errors.fromSqlError(
    new SqlError.SqlError({
      reason: new SqlError.UnknownError({
        cause: Object.assign(new Error("it said"), { code }),
        message: "Query failed"
      })
    }),
    "test"
  ).reason

describe.skipIf(requireOrSkip("postgres"))("errors of Postgres", () => {
  it.live("a wrong password is StoreDenied and does not appear in the message", (context) =>
    Effect.gen(function*() {
      const server = yield* ownServer(context)
      const url = (user: string) => urlOf((url) => (url.username = user), server.url)
      const { sql } = yield* postgresInstance("messaging", { url: url("postgres") })
      yield* sql`create role service superuser login password 'right'`
      writeFileSync(
        join(server.folder, "data", "pg_hba.conf"),
        "host all postgres 127.0.0.1/32 trust\nhost all service 127.0.0.1/32 scram-sha-256\n"
      )
      yield* Effect.promise(() => server.kill("SIGINT"))
      yield* Effect.promise(server.start)
      const connect = (password: string) =>
        postgresInstance("messaging", { url: url("service"), password: Redacted.make(password) })
      const reason = yield* reasonOf(connect("wrong-secret"))
      assert.strictEqual(reason._tag, "StoreDenied")
      assert.notInclude(reason.message, "wrong-secret")
      yield* connect("right")
    }))

  it.live("a server that dies is StoreUnreachable, and the store goes on when it is back, with what was committed", (context) =>
    Effect.gen(function*() {
      const server = yield* ownServer(context)
      const { store } = yield* postgresInstance("messaging", { url: urlOf(() => {}, server.url) })
      yield* store.transaction(store.outbox.append([row()]))
      yield* Effect.promise(() => server.kill())
      assert.strictEqual((yield* reasonOf(store.transaction(store.outbox.append([row()]))))._tag, "StoreUnreachable")
      assert.strictEqual((yield* reasonOf(store.outbox.read({ parts: [0], limit: 1 })))._tag, "StoreUnreachable")
      yield* Effect.promise(server.start)
      assert.lengthOf(yield* store.outbox.read({ parts: [0], limit: 10 }), 1)
    }))

  it.live("a role that does not exist is StoreDenied", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(
        postgresInstance(yield* freshSchema, { url: urlOf((url) => (url.username = "nobody_of_that_name")) })
      )
      assert.strictEqual(reason._tag, "StoreDenied")
    }))

  it.live("missing rights are StoreDenied", () =>
    Effect.gen(function*() {
      const schema = yield* freshSchema
      const { sql } = yield* postgresInstance(schema)
      const role = `role_${schema}`
      yield* Effect.acquireRelease(sql`create role ${sql(role)} login`, () => Effect.orDie(sql`drop role ${sql(role)}`))
      yield* Effect.acquireRelease(
        sql`grant usage on schema ${sql(schema)} to ${sql(role)}`,
        () => Effect.orDie(sql`revoke usage on schema ${sql(schema)} from ${sql(role)}`)
      )
      const { store } = yield* postgresInstance(schema, { url: urlOf((url) => (url.username = role)) }, {
        migrate: false
      })
      assert.strictEqual((yield* reasonOf(store.outbox.read({ parts: [0], limit: 1 })))._tag, "StoreDenied")
    }))

  it.live("an address where nobody listens is StoreUnreachable", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(postgresInstance("messaging", { url: urlOf((url) => (url.port = "1")) }))
      assert.strictEqual(reason._tag, "StoreUnreachable")
      assert.include(reason.message, "ECONNREFUSED")
    }))

  it.live("a database that does not exist is StoreUnreachable", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(
        postgresInstance("messaging", { url: urlOf((url) => (url.pathname = "/no_such_database")) })
      )
      assert.strictEqual(reason._tag, "StoreUnreachable")
      assert.include(reason.message, "no_such_database")
    }))
})

describe("errors of the SQL store", () => {
  it("codes that Effect's drivers do not classify have their reason too", () => {
    for (const code of ["57P01", "57P02", "57P03", "08006", "25P03", "53300", "25006"]) {
      assert.strictEqual(withCode(code)._tag, "StoreUnreachable", code)
    }
    for (const code of ["40001", "40P01", "55P03"]) {
      assert.strictEqual(withCode(code)._tag, "Conflict", code)
    }
    assert.strictEqual(withCode("53100")._tag, "StoreFull")
    for (const code of ["57014", "22P02", "23505"]) {
      assert.strictEqual(withCode(code)._tag, "StoreFailed", code)
    }
    assert.include(withCode("57P01").message, "it said (57P01)")
  })
})

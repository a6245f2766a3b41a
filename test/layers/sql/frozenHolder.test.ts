/** A transaction that stands still, as that of a frozen process does, holds what it has claimed for a bounded time. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { requireOrSkip } from "../../support/services.ts"
import { freshSchema, type Instance, mysqlServers, postgresInstance, reasonOf, row } from "./databases.ts"

const setting = "idle_in_transaction_session_timeout"

/** Its messages go to another, and its connection is replaced. */
const loses = Effect.fnUntraced(function*(frozen: Instance, other: Instance) {
  const key = row().messageKey
  const claimed = yield* Deferred.make<void>()
  const awake = yield* Deferred.make<void>()
  const holder = yield* Effect.forkScoped(reasonOf(frozen.store.transaction(
    frozen.store.inbox.claim(1, [key], Duration.millis(300)).pipe(
      Effect.andThen(Deferred.succeed(claimed, undefined)),
      Effect.andThen(Deferred.await(awake))
    )
  )))
  yield* Deferred.await(claimed)
  const fresh = yield* other.store.transaction(other.store.inbox.claim(1, [key], Duration.minutes(5)))
  assert.deepStrictEqual([...fresh], [key])
  yield* Deferred.succeed(awake, undefined)
  assert.strictEqual((yield* Fiber.join(holder))._tag, "StoreUnreachable")
  // The pool goes on with another connection.
  assert.strictEqual((yield* frozen.store.transaction(frozen.store.inbox.claim(1, [key]))).size, 0)
})

describe.skipIf(requireOrSkip("postgres"))(
  "a transaction on Postgres that has claimed messages and stands still",
  () => {
    it.live("is ended by the server, and who waits for its messages gets them", () =>
      Effect.gen(function*() {
        const schema = yield* freshSchema
        yield* loses(yield* postgresInstance(schema), yield* postgresInstance(schema))
      }))

    it.live("has the time of the program's own setting, and the setting ends with the transaction", () =>
      Effect.gen(function*() {
        const schema = yield* freshSchema
        const set = yield* postgresInstance(schema, { startupParameters: { [setting]: "1234" }, maxConnections: 1 })
        const unset = yield* postgresInstance(schema, { maxConnections: 1 })
        const told = (instance: typeof set) =>
          Effect.map(
            instance.sql<{ value: string }>`select current_setting(${setting}) as value`,
            ([found]) => found!.value
          )
        const inside = (instance: typeof set) =>
          instance.store.transaction(Effect.andThen(
            instance.store.inbox.claim(1, [row().messageKey], Duration.seconds(30)),
            told(instance)
          ))
        assert.deepStrictEqual([yield* inside(set), yield* told(set)], ["1234ms", "1234ms"])
        assert.deepStrictEqual([yield* inside(unset), yield* told(unset)], ["30s", "0"])
        yield* unset.store.transaction(unset.store.inbox.claim(1, [row().messageKey], Duration.infinity))
      }))
  }
)

for (const server of mysqlServers) {
  describe.skipIf(server.skip)(`a transaction on ${server.name} that has claimed messages and stands still`, () => {
    it.live("is ended by the server, and who waits for its messages gets them", () =>
      Effect.gen(function*() {
        const database = yield* server.freshDatabase
        yield* loses(yield* server.instance(database), yield* server.instance(database))
      }))

    it.live("has the time of the program's own setting, and the setting ends with the transaction", () =>
      Effect.gen(function*() {
        const { sql, store } = yield* server.instance(yield* server.freshDatabase, { maxConnections: 1 })
        const told = Effect.map(
          sql<{ value: number }>`select @@session.wait_timeout as value`,
          ([found]) => found!.value
        )
        const inside = (idleAtMost: Duration.Duration) =>
          store.transaction(Effect.andThen(store.inbox.claim(1, [row().messageKey], idleAtMost), told))
        const before = yield* told
        assert.isAbove(before, 30)
        assert.deepStrictEqual([yield* inside(Duration.seconds(30)), yield* told], [30, before])
        yield* Effect.ignore(store.transaction(Effect.andThen(inside(Duration.seconds(30)), Effect.fail("no"))))
        assert.strictEqual(yield* told, before)
        yield* sql`set session wait_timeout = 12`
        assert.deepStrictEqual([yield* inside(Duration.infinity), yield* told], [12, 12])
      }))
  })
}

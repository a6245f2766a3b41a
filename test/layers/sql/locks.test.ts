/** What waits for what, between connections of one server. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as SqlClient from "effect/sql/SqlClient"
import { reasonOf, row } from "./databases.ts"
import { type LockingServer, lockingServers } from "./lockingServers.ts"

const minute = Duration.minutes(1)

const locks = (server: LockingServer): void => {
  const { backendOf, impatient, seesDeadlocksSoon, untilBlocked } = server
  const open = Effect.map(server.open(1), (instances) => instances[0]!)
  /** Ends the lease of the first part. */
  const expire = (sql: SqlClient.SqlClient) =>
    sql`update effect_events_lease set expires_at = '1970-01-02' where part = 0`

  it.live("a take-over waits for a fenced removal, and the old owner removes nothing afterwards", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* open
      yield* store.transaction(store.outbox.append([row(), row()]))
      const rows = yield* store.outbox.read({ parts: [0], limit: 10 })
      const leases = yield* store.leases.hold({ owner: "old", ttl: minute, parts: [0] })
      yield* expire(sql)

      const removed = yield* Deferred.make<number>()
      const finish = yield* Deferred.make<void>()
      const removal = yield* Effect.forkScoped(store.transaction(Effect.gen(function*() {
        yield* Deferred.succeed(removed, yield* store.outbox.remove({ owner: "old", leases, rows: [rows[0]!] }))
        yield* Deferred.await(finish)
      })))
      assert.strictEqual(yield* Deferred.await(removed), 1)

      const backend = yield* Deferred.make<number>()
      const takeOver = yield* Effect.forkScoped(store.transaction(Effect.gen(function*() {
        yield* Deferred.succeed(backend, yield* backendOf(sql))
        return yield* store.leases.hold({ owner: "new", ttl: minute, parts: [0] })
      })))
      yield* untilBlocked(sql, yield* Deferred.await(backend))
      yield* Deferred.succeed(finish, undefined)
      yield* Fiber.join(removal)

      const [taken] = yield* Fiber.join(takeOver)
      assert.strictEqual(taken?.epoch, leases[0]!.epoch + 1n)
      assert.strictEqual(yield* store.outbox.remove({ owner: "old", leases, rows: [rows[1]!] }), 0)
      assert.lengthOf(yield* store.outbox.read({ parts: [0], limit: 10 }), 1)
    }))

  it.live("a removal that waited behind a take-over removes nothing", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* open
      yield* store.transaction(store.outbox.append([row()]))
      const rows = yield* store.outbox.read({ parts: [0], limit: 10 })
      const leases = yield* store.leases.hold({ owner: "old", ttl: minute, parts: [0] })
      yield* expire(sql)

      const taken = yield* Deferred.make<void>()
      const finish = yield* Deferred.make<void>()
      const takeOver = yield* Effect.forkScoped(store.transaction(Effect.gen(function*() {
        yield* store.leases.hold({ owner: "new", ttl: minute, parts: [0] })
        yield* Deferred.succeed(taken, undefined)
        yield* Deferred.await(finish)
      })))
      yield* Deferred.await(taken)
      const backend = yield* Deferred.make<number>()
      const removal = yield* Effect.forkScoped(store.transaction(Effect.gen(function*() {
        yield* Deferred.succeed(backend, yield* backendOf(sql))
        return yield* store.outbox.remove({ owner: "old", leases, rows: [rows[0]!] })
      })))
      yield* untilBlocked(sql, yield* Deferred.await(backend))
      yield* Deferred.succeed(finish, undefined)
      yield* Fiber.join(takeOver)
      assert.strictEqual(yield* Fiber.join(removal), 0)
      assert.lengthOf(yield* store.outbox.read({ parts: [0], limit: 10 }), 1)
    }))

  for (const outcome of ["commits", "rolls back"] as const) {
    it.live(
      `a claim of the same message waits; when the first ${outcome}, the second ${
        outcome === "commits" ? "does not get it" : "gets it"
      }`,
      () =>
        Effect.gen(function*() {
          const { sql, store } = yield* open
          const key = row().messageKey
          const claimed = yield* Deferred.make<ReadonlySet<string>>()
          const finish = yield* Deferred.make<void>()
          const first = yield* Effect.forkScoped(Effect.exit(store.transaction(Effect.gen(function*() {
            yield* Deferred.succeed(claimed, yield* store.inbox.claim(1, [key]))
            yield* Deferred.await(finish)
            return outcome === "commits" ? undefined : yield* Effect.fail("no")
          }))))
          assert.deepStrictEqual([...yield* Deferred.await(claimed)], [key])

          const backend = yield* Deferred.make<number>()
          const second = yield* Effect.forkScoped(store.transaction(Effect.gen(function*() {
            yield* Deferred.succeed(backend, yield* backendOf(sql))
            return yield* store.inbox.claim(1, [key])
          })))
          yield* untilBlocked(sql, yield* Deferred.await(backend))
          yield* Deferred.succeed(finish, undefined)
          yield* Fiber.join(first)
          assert.deepStrictEqual([...yield* Fiber.join(second)], outcome === "commits" ? [] : [key])
        })
    )
  }

  it.live("claims that share keys in opposite order do not deadlock", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* open
      const [low, middle, high] = Array.from({ length: 3 }, () => row().messageKey).sort() as [string, string, string]
      const release = yield* Deferred.make<void>()
      const held = yield* Deferred.make<void>()
      // holds the key in the middle until each claim has what comes first for it
      const blocker = yield* Effect.forkScoped(Effect.exit(store.transaction(Effect.gen(function*() {
        yield* store.inbox.claim(1, [middle])
        yield* Deferred.succeed(held, undefined)
        yield* Deferred.await(release)
        return yield* Effect.fail("no")
      }))))
      yield* Deferred.await(held)
      const claim = Effect.fnUntraced(function*(keys: readonly [string, ...Array<string>]) {
        const backend = yield* Deferred.make<number>()
        const fiber = yield* Effect.forkScoped(store.transaction(Effect.gen(function*() {
          yield* Deferred.succeed(backend, yield* backendOf(sql))
          return yield* store.inbox.claim(1, keys)
        })))
        yield* untilBlocked(sql, yield* Deferred.await(backend))
        return fiber
      })
      const upwards = yield* claim([low, middle, high])
      const downwards = yield* claim([high, middle, low])
      yield* Deferred.succeed(release, undefined)
      yield* Fiber.join(blocker)
      const sizes = [(yield* Fiber.join(upwards)).size, (yield* Fiber.join(downwards)).size]
      assert.deepStrictEqual(sizes, [3, 0])
    }))

  it.live("a deadlock is a Conflict, also as the SqlError of the body's own statement", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* open
      const keys = [row().messageKey, row().messageKey] as const
      const held = [yield* Deferred.make<void>(), yield* Deferred.make<void>()] as const
      const cross = (mine: 0 | 1) =>
        store.transaction(Effect.gen(function*() {
          yield* seesDeadlocksSoon(sql)
          yield* store.inbox.claim(1, [keys[mine]])
          yield* Deferred.succeed(held[mine], undefined)
          yield* Deferred.await(held[1 - mine]!)
          yield* store.inbox.claim(1, [keys[1 - mine]!])
        }))
      const ends = yield* Effect.all([Effect.result(cross(0)), Effect.result(cross(1))], { concurrency: 2 })
      const failed = ends.filter((end) => end._tag === "Failure").map((end) => end.failure)
      assert.lengthOf(failed, 1)
      assert.isTrue(store.isConflict(failed[0]))
      assert.isFalse(store.isConflict(yield* Effect.flip(sql`select * from no_such_table`)))
      assert.isFalse(store.isConflict("something else"))
    }))

  it.live("a claim that waits too long for a lock is a Conflict", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* open
      const key = row().messageKey
      yield* store.transaction(Effect.gen(function*() {
        yield* store.inbox.claim(1, [key])
        // in a fiber outside of this transaction, on another connection
        const other = yield* Effect.forkDetach(
          reasonOf(store.transaction(
            Effect.andThen(impatient(sql), store.inbox.claim(1, [key]))
          )).pipe(Effect.setContext(Context.empty()))
        )
        assert.strictEqual((yield* Fiber.join(other))._tag, "Conflict")
      }))
    }))

  it.live("stores that register the same handler at once get the same number", () =>
    Effect.gen(function*() {
      const instances = yield* server.open(6)
      const ids = yield* Effect.forEach(
        instances,
        ({ store }) => store.transaction(store.inbox.consumer("billing", "invoice")),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(ids).size, 1)
    }))

  it.live("prune works through more marks than one statement deletes, oldest first, of every consumer", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* open
      const keys = (count: number) =>
        Array.from({ length: count }, () => row().messageKey) as [string, ...Array<string>]
      for (const consumer of [0, 1, 2]) yield* store.inbox.claim(consumer, keys(4_000 + consumer))
      yield* sql`update effect_events_inbox set processed_at = '2020-01-01'`
      for (const consumer of [0, 1, 2]) yield* store.inbox.claim(consumer, keys(7))
      assert.strictEqual(yield* store.inbox.prune(Duration.hours(1)), 12_003)
      assert.lengthOf(yield* sql`select 1 from effect_events_inbox`, 21)
    }))
}

for (const server of lockingServers) describe.skipIf(server.skip)(`locks on ${server.name}`, () => locks(server))

/** What waits for what, between connections of Postgres. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { requireOrSkip } from "../../support/services.ts"
import { backendOf, freshSchema, postgresInstance, reasonOf, row, untilBlocked } from "./databases.ts"

const open = Effect.gen(function*() {
  const schema = yield* freshSchema
  return yield* postgresInstance(schema, { startupParameters: { search_path: schema } })
})

const minute = Duration.minutes(1)

describe.skipIf(requireOrSkip("postgres"))("locks on Postgres", () => {
  it.live("a take-over waits for a fenced removal, and the old owner removes nothing afterwards", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* open
      yield* store.transaction(store.outbox.append([row(), row()]))
      const rows = yield* store.outbox.read({ parts: [0], limit: 10 })
      const leases = yield* store.leases.hold({ owner: "old", ttl: minute, parts: [0] })
      yield* sql`update effect_events_lease set expires_at = clock_timestamp() - interval '1 second' where part = 0`

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
      yield* sql`update effect_events_lease set expires_at = clock_timestamp() - interval '1 second' where part = 0`

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
          yield* sql`set local deadlock_timeout = '20ms'`
          yield* store.inbox.claim(1, [keys[mine]])
          yield* Deferred.succeed(held[mine], undefined)
          yield* Deferred.await(held[1 - mine]!)
          yield* store.inbox.claim(1, [keys[1 - mine]!])
        }))
      const ends = yield* Effect.all([Effect.result(cross(0)), Effect.result(cross(1))], { concurrency: 2 })
      const failed = ends.filter((end) => end._tag === "Failure").map((end) => end.failure)
      assert.lengthOf(failed, 1)
      assert.isTrue(store.isConflict(failed[0]))

      const raw = yield* Effect.flip(sql`do $$ begin raise exception 'lost' using errcode = '40001'; end $$`)
      assert.isTrue(store.isConflict(raw))
      assert.isFalse(store.isConflict(yield* Effect.flip(sql`select * from no_such_table`)))
      assert.isFalse(store.isConflict("something else"))
    }))

  it.live("a claim that runs into lock_timeout is a Conflict", () =>
    Effect.gen(function*() {
      const { sql, store } = yield* open
      const key = row().messageKey
      yield* store.transaction(Effect.gen(function*() {
        yield* store.inbox.claim(1, [key])
        // in a fiber outside of this transaction, on another connection
        const other = yield* Effect.forkDetach(
          reasonOf(store.transaction(
            Effect.andThen(sql`set local lock_timeout = '10ms'`, store.inbox.claim(1, [key]))
          )).pipe(Effect.setContext(Context.empty()))
        )
        assert.strictEqual((yield* Fiber.join(other))._tag, "Conflict")
      }))
    }))

  it.live("stores that register the same handler at once get the same number", () =>
    Effect.gen(function*() {
      const schema = yield* freshSchema
      const instances = yield* Effect.all(
        Array.from({ length: 6 }, () => postgresInstance(schema, { maxConnections: 2 }))
      )
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
      yield* sql`insert into effect_events_inbox (consumer, message_key, processed_at)
        select n % 3, gen_random_uuid(), now() - interval '2 hours' from generate_series(1, 12001) n`
      yield* sql`insert into effect_events_inbox (consumer, message_key) select n, gen_random_uuid() from generate_series(1, 7) n`
      assert.strictEqual(yield* store.inbox.prune(Duration.hours(1)), 12_001)
      assert.lengthOf(yield* sql`select 1 from effect_events_inbox`, 7)
    }))
})

import type * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as SqlError from "effect/sql/SqlError"
import * as TestClock from "effect/testing/TestClock"
import * as Wakeups from "../../../src/Layers/internal/sql/wakeups.ts"
import { requireOrSkip } from "../../support/services.ts"
import { freshSchema, type Instance, postgresInstance, row, sqliteInstance } from "./databases.ts"

const channel = "effect_events_outbox"

/** A client that can listen and notify, with both ends in the test's hand. */
const fakeNotifier = Effect.gen(function*() {
  const { sql } = yield* sqliteInstance(":memory:")
  const sent: Array<string> = []
  const heard = yield* Queue.unbounded<{ readonly payload: string }, SqlError.SqlError>()
  const client = Object.assign(sql.withoutTransforms(), {
    "~@effect/sql-pg/PgClient": true,
    config: {},
    listen: () => Effect.succeed(heard),
    notify: (_: string, payload: string) => Effect.sync(() => void sent.push(payload))
  })
  return { client, sent, hear: (payload: string) => Queue.offer(heard, { payload }) }
})

const settle = Effect.repeat(Effect.yieldNow, { times: 20 })

describe("wake-ups", () => {
  it.effect("the first commit notifies at once, those of the next 10 ms together with one notification", () =>
    Effect.gen(function*() {
      const { client, sent } = yield* fakeNotifier
      const { announce } = (yield* Wakeups.make(client, channel, "here")).rows
      yield* announce
      yield* settle
      assert.lengthOf(sent, 1)
      for (let commit = 0; commit < 50; commit++) {
        yield* announce
        yield* settle
      }
      assert.lengthOf(sent, 1)
      yield* TestClock.adjust("10 millis")
      yield* settle
      assert.lengthOf(sent, 2)
      yield* TestClock.adjust("1 minute")
      assert.lengthOf(sent, 2)
    }))

  it.effect("notifications wake, save one's own and those of the same tables in another schema", () =>
    Effect.gen(function*() {
      const { client, hear, sent } = yield* fakeNotifier
      const { announce, subscribe } = (yield* Wakeups.make(client, channel, "here")).rows
      const queue = yield* subscribe
      yield* settle
      yield* Queue.takeAll(queue)

      yield* announce
      yield* settle
      yield* Queue.takeAll(queue)
      yield* hear(sent[0]!)
      yield* hear("elsewhere 123")
      yield* hear("here-too 123")
      yield* settle
      assert.strictEqual(yield* Queue.size(queue), 0)

      yield* hear("here 123")
      yield* settle
      assert.strictEqual(yield* Queue.size(queue), 1)
    }))

  it.effect("what is said of leases is sent at once, and does not wake those who wait for rows, nor the other way", () =>
    Effect.gen(function*() {
      const { client, hear, sent } = yield* fakeNotifier
      const { leases, rows } = yield* Wakeups.make(client, channel, "here")
      const [ofRows, ofLeases] = [yield* rows.subscribe, yield* leases.subscribe]
      yield* settle
      yield* Effect.all([Queue.takeAll(ofRows), Queue.takeAll(ofLeases)])
      yield* Effect.repeat(leases.announce, { times: 2 })
      assert.lengthOf(sent, 3)
      yield* Queue.takeAll(ofLeases)

      yield* hear(sent[0]!)
      yield* hear("here 123")
      yield* settle
      assert.deepStrictEqual([yield* Queue.size(ofRows), yield* Queue.size(ofLeases)], [1, 0])
      yield* Queue.takeAll(ofRows)
      yield* hear("here 123 leases")
      yield* settle
      assert.deepStrictEqual([yield* Queue.size(ofRows), yield* Queue.size(ofLeases)], [0, 1])
    }))

  it.effect("hints that nobody has taken yet are one hint", () =>
    Effect.gen(function*() {
      const { sql } = yield* sqliteInstance(":memory:")
      const { announce, subscribe } = (yield* Wakeups.make(sql, channel, "main")).rows
      const queue = yield* subscribe
      yield* Effect.repeat(announce, { times: 1_000 })
      assert.lengthOf(yield* Queue.takeAll(queue), 1)
    }))
})

const heard = <A, E>(queue: Queue.Dequeue<A, E>) =>
  Queue.take(queue).pipe(
    Effect.timeoutOrElse({ duration: "20 seconds", orElse: () => Effect.die(new Error("no wake-up came")) })
  )

const listeners = ({ sql }: Instance, application: string) =>
  sql<
    { pid: number }
  >`select pid from pg_stat_activity where application_name = ${application} and query like 'LISTEN%'`

describe.skipIf(requireOrSkip("postgres"))("wake-ups on Postgres", () => {
  it.live("a commit wakes the relay of another process by one notification; a rolled back one sends none", () =>
    Effect.gen(function*() {
      const schema = yield* freshSchema
      const relay = yield* postgresInstance(schema)
      const publisher = yield* postgresInstance(schema)
      const wire = yield* (relay.sql as PgClient.PgClient).listen(channel)
      const wakeups = yield* relay.store.outbox.wakeups
      // said once the listener stands, for what was committed before
      yield* heard(wakeups)

      const append = publisher.store.outbox.append([row()])
      yield* Effect.flip(publisher.store.transaction(Effect.andThen(append, Effect.fail("no"))))
      yield* publisher.store.transaction(append)
      yield* heard(wakeups)

      // notifications arrive in the order of their commits, so whatever was sent is there before the end mark
      yield* publisher.sql`select pg_notify(${channel}, ${`${schema} end`})`
      const payloads: Array<string> = []
      while (payloads.at(-1) !== `${schema} end`) {
        payloads.push((yield* heard(wire)).payload)
      }
      assert.lengthOf(payloads.filter((payload) => payload.startsWith(`${schema} `)), 2)
    }))

  it.live("a listener that lost its connection comes back, and says so", () =>
    Effect.gen(function*() {
      const schema = yield* freshSchema
      const relay = yield* postgresInstance(schema, { applicationName: schema })
      const wakeups = yield* relay.store.outbox.wakeups
      yield* heard(wakeups)
      const killed = yield* relay.sql`select pg_terminate_backend(pid) from pg_stat_activity
        where application_name = ${schema} and query like 'LISTEN%'`
      assert.lengthOf(killed, 1)
      yield* heard(wakeups)
      assert.lengthOf(yield* listeners(relay, schema), 1)
    }))

  it.live("a small pool keeps its connections, and wakes its own relay only", () =>
    Effect.gen(function*() {
      const schema = yield* freshSchema
      const small = yield* postgresInstance(schema, { maxConnections: 1, applicationName: schema })
      const wakeups = yield* small.store.outbox.wakeups
      yield* small.store.transaction(small.store.outbox.append([row()]))
      yield* heard(wakeups)
      assert.lengthOf(yield* listeners(small, schema), 0)
    }))
})

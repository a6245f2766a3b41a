/** Handlers whose transactions lose races on Postgres: run again at once, and no attempt of theirs. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import * as Consumer from "../../../src/Consumer.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import * as SqlStore from "../../../src/Layers/SqlStore.ts"
import * as Publisher from "../../../src/Publisher.ts"
import {
  ascending,
  deadLetters,
  freshGroup,
  freshTopic,
  Item,
  keyFor,
  makeLog,
  markNumber,
  member,
  publishAll,
  publishMarks,
  retries,
  savingAtOnce,
  silent
} from "../../suites/consumer/support.ts"
import { askUntil } from "../../suites/features.ts"
import { requireOrSkip } from "../../support/services.ts"
import { backendOf, freshSchema, postgres } from "./databases.ts"

const services = Layer.unwrap(
  Effect.map(freshSchema, (schema) =>
    Layer.mergeAll(
      SqlStore.layerWith({ schema }).pipe(
        Layer.provideMerge(postgres({ startupParameters: { search_path: schema, deadlock_timeout: "50ms" } }))
      ),
      Memory.layerBroker,
      silent
    ))
)

/** Two rows, and how often each was raised. */
const accounts = SqlClient.SqlClient.use((sql) =>
  Effect.andThen(
    sql`create table account (id int primary key, balance int not null)`,
    sql`insert into account values (0, 0), (1, 0)`
  )
)
const raise = (id: number) =>
  SqlClient.SqlClient.use((sql) => sql`update account set balance = balance + 1 where id = ${id}`)
const balances = SqlClient.SqlClient.use((sql) =>
  Effect.map(
    sql<{ balance: number }>`select balance from account order by id`,
    (rows) => rows.map((row) => row.balance)
  )
)

/** Two events in two partitions, so that their handlers run side by side. */
const twoEvents = [new Item({ key: keyFor(0, 2), n: 0 }), new Item({ key: keyFor(1, 2), n: 1 })]

type Form = "exactlyOnce" | "exactlyOnceBatch"
const forms: ReadonlyArray<Form> = ["exactlyOnce", "exactlyOnceBatch"]

/** A consumer that gives up at the first failure that counts. */
const consumerOf = <E, R>(
  form: Form,
  topic: Effect.Success<ReturnType<typeof freshTopic>>,
  handle: (n: number, attempt: number) => Effect.Effect<unknown, E, R>
) =>
  form === "exactlyOnce"
    ? Consumer.exactlyOnce(topic, (event) => handle(event.payload.n, event.attempt), { onFailure: savingAtOnce })
    : Consumer.exactlyOnceBatch(
      topic,
      (events) => Effect.forEach(events, (event) => handle(event.payload.n, event.attempt), { discard: true }),
      { onFailure: savingAtOnce, batch: { maxSize: 1 } }
    )

describe.skipIf(requireOrSkip("postgres"))("handlers on Postgres", () => {
  for (const form of forms) {
    it.live(
      `${form}: a real deadlock of two handlers: both are applied once, and neither lost an attempt`,
      () =>
        Effect.gen(function*() {
          yield* accounts
          const [topic, group] = [yield* freshTopic(2), yield* freshGroup]
          const runs = makeLog<readonly [n: number, attempt: number]>()
          const done = makeLog<number>()
          const held = [yield* Deferred.make<void>(), yield* Deferred.make<void>()] as const
          const running = yield* member(group, [
            consumerOf(form, topic, (n, attempt) =>
              Effect.gen(function*() {
                yield* runs.add([n, attempt])
                yield* raise(n)
                // Each holds its row and waits for the other's: one of them is the victim.
                yield* Deferred.succeed(held[n as 0 | 1], undefined)
                yield* Deferred.await(held[1 - n as 0 | 1])
                yield* raise(1 - n)
                yield* done.add(n)
              }))
          ])
          yield* publishAll(topic, twoEvents)
          yield* done.untilCount(2)
          yield* running.stop
          assert.deepStrictEqual(yield* balances, [2, 2])
          // One run more, that of the victim, and it is no attempt. There may be further ones: Postgres lets the victim
          // have its row again before the other, which waits for that row, has woken up.
          assert.isAtLeast(runs.all.length, 3)
          assert.isTrue(runs.all.every(([, attempt]) => attempt === 1))
          assert.deepStrictEqual(ascending(done.all), [0, 1])
          assert.deepStrictEqual(yield* deadLetters(topic, group), [])
        }).pipe(Effect.provide(services)),
      180_000
    )

    it.live(
      `${form}: a real serialization failure: the handler runs again on the new state, as the same attempt`,
      () =>
        Effect.gen(function*() {
          yield* accounts
          const sql = yield* SqlClient.SqlClient
          const [topic, group] = [yield* freshTopic(2), yield* freshGroup]
          const found = makeLog<readonly [balance: number, attempt: number]>()
          const done = makeLog<number>()
          const read = yield* Deferred.make<void>()
          const changed = yield* Deferred.make<void>()
          const running = yield* member(group, [
            consumerOf(form, topic, (n, attempt) =>
              Effect.gen(function*() {
                const [row] = yield* sql<{ balance: number }>`select balance from account where id = 0`
                yield* found.add([row!.balance, attempt])
                yield* Deferred.succeed(read, undefined)
                yield* Deferred.await(changed)
                yield* sql`update account set balance = ${row!.balance + 1} where id = 0`
                yield* done.add(n)
              }))
          ]).pipe(Effect.provideService(SqlClient.BeginTransaction, "BEGIN ISOLATION LEVEL SERIALIZABLE"))
          yield* publishAll(topic, [twoEvents[0]!])
          yield* Deferred.await(read)
          yield* sql`update account set balance = 10 where id = 0`
          yield* Deferred.succeed(changed, undefined)
          yield* done.untilCount(1)
          yield* running.stop
          assert.deepStrictEqual(found.all, [[0, 1], [10, 1]])
          assert.deepStrictEqual(yield* balances, [11, 0])
          assert.deepStrictEqual(yield* deadLetters(topic, group), [])
        }).pipe(Effect.provide(services)),
      180_000
    )
  }

  for (const outcome of ["commits", "fails"] as const) {
    it.live(
      `the same message at the same time on two instances has one effect: the second waits, and when the first ${outcome} it ${
        outcome === "commits" ? "does nothing" : "is applied"
      }`,
      () =>
        Effect.gen(function*() {
          yield* accounts
          const sql = yield* SqlClient.SqlClient
          const [topic, group] = [yield* freshTopic(2), yield* freshGroup]
          const runs = makeLog<string>()
          const backend = yield* Deferred.make<number>()
          const decided = yield* Deferred.make<void>()
          const owners = new Map<number, string>()
          const consume = (instance: string) =>
            Consumer.exactlyOnce(topic, (event) =>
              Effect.gen(function*() {
                owners.set(event.partition, instance)
                if (event.payload.n === markNumber) return
                yield* runs.add(instance)
                yield* raise(0)
                if (runs.all.length > 1) return
                yield* Deferred.succeed(backend, yield* backendOf(sql))
                yield* Deferred.await(decided)
                if (outcome === "fails") return yield* Effect.fail("once")
              }), { onFailure: { ...savingAtOnce, retry: retries(3) } })
          const instances = [yield* member(group, [consume("a")]), yield* member(group, [consume("b")])]
          const published = Effect.as(publishMarks(topic), owners)
          const bothHaveOne = () => new Set(owners.values()).size === 2
          yield* askUntil({ clock: "live" }, "each instance has one of the partitions", published, bothHaveOne)
          // The two copies lie in two partitions, and so with the two instances.
          for (const { key, n } of twoEvents) yield* Publisher.publish(topic, { key, n }, { id: "one message" })
          const first = yield* Deferred.await(backend)
          const waiting = sql`select 1 from pg_stat_activity where ${first} = any(pg_blocking_pids(pid))`
          yield* askUntil({ clock: "live" }, "the other copy waits for the first", waiting, (rows) => rows.length === 1)
          assert.strictEqual(runs.all.length, 1)
          yield* Deferred.succeed(decided, undefined)
          if (outcome === "fails") yield* runs.untilCount(2)
          for (const { stop } of instances) yield* stop
          assert.deepStrictEqual(yield* balances, [1, 0])
          // Who runs it after a failure is open: Postgres may let the first in again before the second has woken up.
          assert.strictEqual(runs.all.length, outcome === "fails" ? 2 : 1)
          assert.deepStrictEqual(yield* deadLetters(topic, group), [])
        }).pipe(Effect.provide(services)),
      180_000
    )
  }
})

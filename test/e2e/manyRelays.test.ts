/**
 * Writers that change the same entities, and three relays in processes of
 * their own, for a minute: on real Kafka, Postgres and MariaDB.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as SqlClient from "effect/sql/SqlClient"
import { Broker } from "../../src/Broker.ts"
import * as Outbox from "../../src/Outbox.ts"
import { recordsOf, upTo } from "../suites/consumer/support.ts"
import { askUntil } from "../suites/features.ts"
import { requireOrSkip } from "../support/services.ts"
import { inversionsOf } from "./crash/account.ts"
import { start } from "./processes.ts"
import { type Item, Items } from "./programs/services.ts"
import { freshMariadb, freshPostgres, freshSettingsOn, services } from "./stage.ts"

const live = { clock: "live" } as const
const writers = 24
const entities = 8
const relays = 3
const forMillis = 60_000

const tables = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`create table entity (name varchar(40) primary key, n int not null)`
  yield* sql`create table elsewhere (writer int not null, turn int not null)`
  for (const i of upTo(entities)) yield* sql`insert into entity ${sql.insert({ name: `entity-${i}`, n: 0 })}`
})

class ChangedMind extends Data.TaggedError("ChangedMind")<{}> {}

/** The counter of an entity is the number of its next event: what is rolled back takes no number. */
const change = (writer: number, turn: number) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const name = `entity-${writer % entities}`
    // Begins before others that lock the entity first.
    if (turn % 2 === 0) yield* sql`insert into elsewhere ${sql.insert({ writer, turn })}`
    if (turn % 20 === 6) yield* Effect.sleep("250 millis")
    yield* sql`update entity set n = n + 1 where name = ${name}`
    const [entity] = yield* sql<{ readonly n: number }>`select n from entity where name = ${name}`
    yield* Outbox.publish(Items, { key: name, n: entity!.n - 1 })
    if (turn % 20 === 17) yield* Effect.sleep("250 millis")
    if (turn % 10 === 3) return yield* new ChangedMind()
  }).pipe(Outbox.transaction, Effect.catchTag("ChangedMind", () => Effect.void))

const counts = SqlClient.SqlClient.use((sql) =>
  sql<{ readonly name: string; readonly n: number }>`select * from entity`
)

const databases = [["Postgres", freshPostgres], ["MariaDB", freshMariadb]] as const

describe.skipIf(requireOrSkip("kafka", "postgres", "mariadb"))("three relays in processes of their own", () => {
  for (const [name, freshDatabase] of databases) {
    it.live(
      `send what 24 writers commit to the same entities of ${name}, each event once, and each entity's in order`,
      () =>
        Effect.gen(function*() {
          const settings = yield* freshSettingsOn<Effect.Services<typeof freshDatabase>>(freshDatabase)
          yield* Effect.gen(function*() {
            yield* Broker.use((broker) => broker.ensureTopics([Items]))
            yield* tables
            const running = yield* Effect.forEach(upTo(relays), () =>
              start("relay", { ...settings, leaseMillis: 15_000 }))
            yield* askUntil(live, "they share the parts", Outbox.state, ({ parts }) => {
              const owners = parts.map(({ owner }) =>
                owner
              )
              return !owners.includes(undefined) && new Set(owners).size === relays
            })

            const end = (yield* Clock.currentTimeMillis) + forMillis
            yield* Effect.forEach(upTo(writers), (writer) =>
              Effect.gen(function*() {
                for (let turn = writer; (yield* Clock.currentTimeMillis) < end; turn++) yield* change(writer, turn)
              }), { concurrency: "unbounded", discard: true })
            yield* askUntil(live, "the outbox is empty", Outbox.state, ({ waiting }) => waiting === 0)
            assert.strictEqual((yield* Outbox.state).parked, 0)
            yield* Effect.forEach(running, ({ stop }) => stop)

            const log = (yield* recordsOf(Items.name, 3)).map((record) =>
              JSON.parse(Buffer.from(record.value!).toString()) as Item
            )
            const committed = (yield* counts).flatMap(({ n, name: key }) => upTo(n).map((n): Item => ({ key, n })))
            const names = (items: ReadonlyArray<Item>) => items.map(({ key, n }) => `${key}/${n}`).sort()
            assert.isAbove(committed.length, writers * 100)
            assert.deepStrictEqual(names(log), names(committed))
            assert.strictEqual(inversionsOf(log), 0)
            process.stderr.write(`three relays on ${name}: ${log.length} events\n`)
          }).pipe(Effect.provide(services({ ...settings, connections: writers + 2 })))
        }),
      240_000
    )
  }
})

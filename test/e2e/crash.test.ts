/**
 * A process is killed (SIGKILL) at a named step and started again: nothing is
 * lost, and nothing has an effect twice. On real Kafka and Postgres.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import { MessageStore } from "../../src/MessageStore.ts"
import * as Outbox from "../../src/Outbox.ts"
import * as Publisher from "../../src/Publisher.ts"
import { freshSchema } from "../layers/sql/databases.ts"
import { freshPrefix } from "../suites/consumer/kafka.ts"
import { freshGroup, headerText, keyFor, recordsOf, upTo } from "../suites/consumer/support.ts"
import { askUntil } from "../suites/features.ts"
import { kafkaBrokers, postgresUrl, requireOrSkip } from "../support/services.ts"
import { start } from "./processes.ts"
import { Items, kafka, type Settings, silent, store } from "./programs/services.ts"

/** A schema, a topic prefix and a group of its own, with the table that the programs write to. */
const freshSettings = Effect.gen(function*() {
  const settings: Settings = {
    brokers: kafkaBrokers!,
    topicPrefix: yield* freshPrefix,
    postgresUrl: postgresUrl!,
    schema: yield* freshSchema,
    group: yield* freshGroup,
    hold: true
  }
  return settings
})

const services = (settings: Settings) =>
  Layer.effectDiscard(
    SqlClient.SqlClient.use((sql) =>
      sql`create table applied (id bigint generated always as identity, n int not null, message text not null)`
    )
  ).pipe(Layer.provideMerge(Layer.mergeAll(kafka(settings), store(settings), silent)))

const live = { clock: "live" } as const

const applied = SqlClient.SqlClient.use((sql) =>
  Effect.map(sql<{ readonly n: number }>`select n from applied order by n`, (rows) => rows.map((row) => row.n))
)

const items = (count: number, from = 0) => upTo(count).map((index) => ({ key: `key-${index % 20}`, n: from + index }))

const isMark = (n: number): boolean => n >= 1_000

const numbersOf = (said: ReadonlyArray<{ readonly word: string; readonly n: number }>, word: string) =>
  said.filter((line) => line.word === word).map((line) => line.n).toSorted((a, b) => a - b)

describe.skipIf(requireOrSkip("kafka", "postgres"))("a process that is killed", () => {
  it.live(
    "between the database's commit and the broker's: on restart all is recognised, none is lost",
    () =>
      Effect.gen(function*() {
        const settings = yield* freshSettings
        yield* Effect.gen(function*() {
          const killed = yield* start("consume", settings)
          yield* Publisher.publishAll(Items, items(200)).pipe(
            Effect.retry({
              while: (error) => error._tag === "BrokerError" && error.reason._tag === "UnknownTopic",
              times: 200
            })
          )
          yield* killed.said.until("all are applied", (said) => numbersOf(said, "apply").length >= 200)
          yield* killed.said.until("it is about to commit", (said) => numbersOf(said, "commit").length >= 1)
          yield* askUntil(live, "all have committed in the database", applied, (all) => all.length >= 200)
          yield* killed.kill
          assert.deepStrictEqual(yield* applied, upTo(200))

          const began = yield* Clock.currentTimeMillis
          const restarted = yield* start("consume", { ...settings, hold: false })
          yield* Publisher.publishAll(Items, items(50, 200))
          yield* restarted.said.until(
            "all are delivered again, and the new ones",
            (said) => numbersOf(said, "see").length >= 250
          )
          // The session of the dead, and the start of a process.
          assert.isBelow((yield* Clock.currentTimeMillis) - began, 20_000)
          yield* askUntil(live, "the new ones have committed", applied, (all) => all.length >= 250)
          assert.deepStrictEqual(yield* applied, upTo(250))
          assert.deepStrictEqual(numbersOf(restarted.said.all, "apply"), upTo(50).map((n) => 200 + n))
          assert.deepStrictEqual(numbersOf(restarted.said.all, "see"), upTo(250))
        }).pipe(Effect.provide(services(settings)))
      }),
    60_000
  )

  it.live(
    "between acknowledgement and delete: its batch is sent again with the same ids, and applied once",
    () =>
      Effect.gen(function*() {
        const settings = yield* freshSettings
        yield* Effect.gen(function*() {
          const consumer = yield* start("consume", { ...settings, hold: false })
          const ids = yield* Outbox.publishAll(Items, items(120)).pipe(Outbox.transaction)
          const killed = yield* start("relay", settings)
          yield* killed.said.until("the broker has a batch", (said) => numbersOf(said, "acknowledged").length >= 1)
          yield* killed.kill
          const [batch] = numbersOf(killed.said.all, "acknowledged")
          assert.isAtMost(batch!, 50)

          const began = yield* Clock.currentTimeMillis
          yield* start("relay", { ...settings, hold: false })
          const waiting = MessageStore.use((store) =>
            store.outbox.read({ parts: upTo(64) as unknown as readonly [number, ...Array<number>], limit: 1 })
          )
          yield* askUntil(live, "the outbox is empty", waiting, (rows) => rows.length === 0)
          // Two leases, and the start of a process.
          assert.isBelow((yield* Clock.currentTimeMillis) - began, 12_000)
          const marks = upTo(3).map((partition) => ({ key: keyFor(partition, 3), n: 1_000 + partition }))
          yield* Publisher.publishAll(Items, marks)
          yield* askUntil(live, "everything before the marks is applied", applied, (all) =>
            all.filter(isMark).length === 3)
          yield* consumer.said.until("the marks", (said) =>
            numbersOf(said, "see").filter(isMark).length === 3)
          yield* consumer.kill
          assert.deepStrictEqual(
            (yield* applied).filter((n) =>
              !isMark(n)
            ),
            upTo(120)
          )
          assert.strictEqual(numbersOf(consumer.said.all, "see").length, 120 + batch! + 3)
          const records = (yield* recordsOf(Items.name, 3)).map((record) => headerText(record, "ce_id")!)
          const sent = records.filter((id) => ids.includes(id))
          assert.strictEqual(sent.length, 120 + batch!)
          assert.sameMembers([...new Set(sent)], ids)
          const times = new Map<string, number>()
          for (const id of sent) times.set(id, (times.get(id) ?? 0) + 1)
          assert.strictEqual(Math.max(...times.values()), 2)
        }).pipe(Effect.provide(services(settings)))
      }),
    60_000
  )
})

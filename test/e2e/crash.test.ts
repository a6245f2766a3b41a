/**
 * A process is killed (SIGKILL) at a named step and started again: nothing is
 * lost, and nothing has an effect twice. On real Kafka and Postgres.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { MessageStore } from "../../src/MessageStore.ts"
import * as Outbox from "../../src/Outbox.ts"
import * as Publisher from "../../src/Publisher.ts"
import { headerText, keyFor, recordsOf, upTo } from "../suites/consumer/support.ts"
import { askUntil } from "../suites/features.ts"
import { requireOrSkip } from "../support/services.ts"
import { start } from "./processes.ts"
import { Items } from "./programs/services.ts"
import { applied as appliedInOrder, freshSettings, servicesWithTable } from "./stage.ts"

const live = { clock: "live" } as const

/** Without their order, which no case here asks for. */
const applied = Effect.map(appliedInOrder, (all) => all.toSorted((a, b) => a - b))

const items = (count: number, from = 0) => upTo(count).map((index) => ({ key: `key-${index % 20}`, n: from + index }))

const isMark = (n: number): boolean => n >= 1_000

const numbersOf = (said: ReadonlyArray<{ readonly word: string; readonly n: number }>, word: string) =>
  said.filter((line) => line.word === word).map((line) => line.n).toSorted((a, b) => a - b)

describe.skipIf(requireOrSkip("kafka", "postgres"))("a process that is killed", () => {
  it.live(
    "between the database's commit and the broker's: on restart all is recognised, none is lost",
    () =>
      Effect.gen(function*() {
        const settings = { ...(yield* freshSettings), hold: true }
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

          const restarted = yield* start("consume", { ...settings, hold: false })
          yield* restarted.said.until("it runs", (said) => numbersOf(said, "ready").length === 1)
          const began = yield* Clock.currentTimeMillis
          yield* Publisher.publishAll(Items, items(50, 200))
          yield* restarted.said.until(
            "all are delivered again, and the new ones",
            (said) => numbersOf(said, "see").length >= 250
          )
          // The session of the dead, a rebalance, and 250 events.
          assert.isBelow((yield* Clock.currentTimeMillis) - began, 20_000)
          yield* askUntil(live, "the new ones have committed", applied, (all) => all.length >= 250)
          assert.deepStrictEqual(yield* applied, upTo(250))
          assert.deepStrictEqual(numbersOf(restarted.said.all, "apply"), upTo(50).map((n) => 200 + n))
          assert.deepStrictEqual(numbersOf(restarted.said.all, "see"), upTo(250))
        }).pipe(Effect.provide(servicesWithTable(settings)))
      }),
    180_000
  )

  it.live(
    "between acknowledgement and delete: what was under way is sent again with the same ids, and applied once",
    () =>
      Effect.gen(function*() {
        const settings = { ...(yield* freshSettings), hold: true }
        yield* Effect.gen(function*() {
          const consumer = yield* start("consume", { ...settings, hold: false })
          const ids = yield* Outbox.publishAll(Items, items(120)).pipe(Outbox.transaction)
          const killed = yield* start("relay", settings)
          yield* killed.said.until("the broker has a batch", (said) => numbersOf(said, "acknowledged").length >= 1)
          yield* killed.kill
          const [batch] = numbersOf(killed.said.all, "acknowledged")
          assert.isAtMost(batch!, 50)

          const next = yield* start("relay", { ...settings, hold: false })
          yield* next.said.until("it runs", (said) => numbersOf(said, "ready").length === 1)
          const began = yield* Clock.currentTimeMillis
          const waiting = MessageStore.use((store) =>
            store.outbox.read({ parts: upTo(64) as unknown as readonly [number, ...Array<number>], limit: 1 })
          )
          yield* askUntil(live, "the outbox is empty", waiting, (rows) => rows.length === 0)
          // Two leases, and what sending 120 rows takes.
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
          const records = (yield* recordsOf(Items.name, 3)).map((record) => headerText(record, "ce_id")!)
          const sent = records.filter((id) => ids.includes(id))
          // Other batches may have been acknowledged by then, too.
          assert.isAtLeast(sent.length, 120 + batch!)
          assert.strictEqual(numbersOf(consumer.said.all, "see").length, sent.length + 3)
          assert.sameMembers([...new Set(sent)], ids)
          const times = new Map<string, number>()
          for (const id of sent) times.set(id, (times.get(id) ?? 0) + 1)
          assert.strictEqual(Math.max(...times.values()), 2)
        }).pipe(Effect.provide(servicesWithTable(settings)))
      }),
    180_000
  )
})

/**
 * A relay is frozen (SIGSTOP) past its leases, another takes over, and it wakes
 * up as if no time had passed. On real Kafka and Postgres.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Broker } from "../../src/Broker.ts"
import * as Outbox from "../../src/Outbox.ts"
import { headerText, recordsOf, upTo } from "../suites/consumer/support.ts"
import { askUntil } from "../suites/features.ts"
import { requireOrSkip } from "../support/services.ts"
import { start } from "./processes.ts"
import { Items } from "./programs/services.ts"
import { freshSettings, services } from "./stage.ts"

const live = { clock: "live" } as const
const keys = 24
const keyOf = (n: number) => `key-${n % keys}`

/** Of the program `relay`. */
const batchSize = 50

describe.skipIf(requireOrSkip("kafka", "postgres"))("a relay that is frozen past its leases", () => {
  it.live(
    "deletes and parks nothing when it wakes, and no event overtakes another of its key",
    () =>
      Effect.gen(function*() {
        const settings = yield* freshSettings
        yield* Effect.gen(function*() {
          yield* Broker.use((broker) => broker.ensureTopics([Items]))
          const ids: Array<string> = []
          const enough = yield* Deferred.make<void>()
          const publishing = yield* Effect.forkScoped(Effect.gen(function*() {
            while (!Deferred.isDoneUnsafe(enough)) {
              const from = ids.length
              ids.push(
                ...yield* Outbox.transaction(
                  Outbox.publishAll(Items, upTo(keys).map((i) => ({ key: keyOf(from + i), n: from + i })))
                )
              )
              yield* Effect.sleep("20 millis")
            }
          }))
          const ownersOf = ({ parts }: Outbox.State) => new Set(parts.flatMap(({ owner }) => owner ?? []))
          const frozen = yield* start("relay", settings)
          const before = yield* askUntil(
            live,
            "it sends",
            Outbox.state,
            (state) => ownersOf(state).size === 1 && ids.length >= 500
          )
          const [first] = ownersOf(before)

          yield* frozen.freeze
          const other = yield* start("relay", settings)
          yield* askUntil(
            live,
            "the other has all parts",
            Outbox.state,
            ({ parts }) => parts.every(({ owner }) => owner !== undefined && owner !== first)
          )
          const then = ids.length
          yield* askUntil(live, "the other sends", Outbox.state, () => ids.length >= then + 500)
          yield* frozen.thaw
          yield* askUntil(
            live,
            "they share again",
            Outbox.state,
            (state) => ownersOf(state).has(first!) && ownersOf(state).size === 2
          )
          const later = ids.length
          yield* askUntil(live, "both send", Outbox.state, () => ids.length >= later + 500)
          yield* Deferred.succeed(enough, undefined)
          yield* Fiber.join(publishing)
          yield* askUntil(live, "the outbox is empty", Outbox.state, ({ waiting }) => waiting === 0)
          yield* Effect.all([frozen.stop, other.stop])

          assert.strictEqual((yield* Outbox.state).parked, 0)
          const numberOf = new Map(ids.map((id, n) => [id, n]))
          const log = (yield* recordsOf(Items.name, 3)).map((record) => numberOf.get(headerText(record, "ce_id")!)!)
          const seen = new Set<number>()
          const highest = new Map<string, number>()
          let again = 0
          for (const n of log) {
            if (seen.has(n)) again++
            else {
              assert.isAbove(n, highest.get(keyOf(n)) ?? -1, `${n} was overtaken`)
              highest.set(keyOf(n), n)
            }
            seen.add(n)
          }
          assert.strictEqual(seen.size, ids.length)
          // What it had sent and not deleted, and what had left when it froze.
          assert.isAtMost(again, 4 * batchSize)
          process.stderr.write(`a frozen relay: ${ids.length} events, ${again} sent again\n`)
        }).pipe(Effect.provide(services(settings)))
      }),
    180_000
  )
})

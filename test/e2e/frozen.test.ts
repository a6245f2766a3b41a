/**
 * A member is frozen (SIGSTOP) past its session, others take over, and it
 * wakes up as if no time had passed. On real Kafka and Postgres.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import * as Publisher from "../../src/Publisher.ts"
import { upTo } from "../suites/consumer/support.ts"
import { within } from "../suites/features.ts"
import { requireOrSkip } from "../support/services.ts"
import { type Said, start } from "./processes.ts"
import { Items } from "./programs/services.ts"
import { applied, freshSettings, servicesWithTable } from "./stage.ts"

const keys = 24
const keyOf = (n: number) => `key-${n % keys}`

const numbers = (said: ReadonlyArray<Said>, word: string) =>
  said.filter((line) => line.word === word).map((line) => line.n)

/** Numbers that come behind a higher one of their key. */
const inversions = (all: ReadonlyArray<number>): ReadonlyArray<number> => {
  const highest = new Map<string, number>()
  return all.filter((n) => {
    const before = highest.get(keyOf(n)) ?? -1
    highest.set(keyOf(n), Math.max(before, n))
    return n < before
  })
}

describe.skipIf(requireOrSkip("kafka", "postgres"))("a member that is frozen past its session", () => {
  it.live(
    "applies nothing a second time with exactlyOnce, and with idempotent at most what was running",
    () =>
      Effect.gen(function*() {
        const settings = yield* freshSettings
        yield* Effect.gen(function*() {
          const frozen = yield* start("slow", settings)
          yield* frozen.said.until("it has begun", () => true)
          const published = yield* Deferred.make<number>()
          const burst = yield* Deferred.make<void>()
          const piledUp = { from: Infinity }
          const enough = yield* Deferred.make<void>()
          // A few at a time, so that both members always have something waiting.
          const publishing = yield* Effect.forkScoped(Effect.gen(function*() {
            let next = 0
            while (!Deferred.isDoneUnsafe(enough)) {
              const many = Deferred.isDoneUnsafe(burst) && piledUp.from === Infinity
              if (many) piledUp.from = next
              const count = many ? 20 * keys : keys
              yield* Publisher.publishAll(Items, upTo(count).map((i) => ({ key: keyOf(next + i), n: next + i }))).pipe(
                Effect.retry({
                  while: (error) => error._tag === "BrokerError" && error.reason._tag === "UnknownTopic",
                  times: 200
                })
              )
              next += count
              yield* Effect.sleep("100 millis")
            }
            yield* Deferred.succeed(published, next)
          }))
          yield* frozen.said.until("it is at work", (said) => numbers(said, "end").length >= 100)
          const other = yield* start("slow", settings)
          yield* other.said.until("both are at work", (said) => numbers(said, "end").length >= 100)

          // Every lane holds several events that have not begun: they must not begin when it wakes up.
          yield* Deferred.succeed(burst, undefined)
          yield* frozen.said.until(
            "both have begun with what piled up",
            (said) => numbers(said, "begin").some((n) => n >= piledUp.from + 2 * keys)
          )
          yield* frozen.freeze
          const taken = new Set(numbers(frozen.said.all, "begin"))
          yield* other.said.until(
            "the other one repeats what the frozen one had begun",
            (said) => said.at(-1)?.word === "end" && taken.has(said.at(-1)!.n)
          )
          const takenOver = other.said.all.length
          yield* other.said.until("and goes on", (said) => said.length >= takenOver + 10 * keys)
          // By now everything that it said before has been read.
          const atThaw = frozen.said.all.length
          yield* frozen.thaw
          const ahead = Math.max(...numbers(other.said.all, "begin")) + 10 * keys
          yield* frozen.said.until("it works again", (said) => said.at(-1)!.word === "end" && said.at(-1)!.n > ahead)
          yield* Deferred.succeed(enough, undefined)
          const all = upTo(yield* Deferred.await(published))
          yield* Fiber.join(publishing)
          yield* within(
            Effect.repeat(applied, {
              schedule: Schedule.spaced("100 millis"),
              until: (rows) => new Set(rows).size >= all.length
            }),
            180_000,
            () => `${all.length} are applied`
          )
          yield* Effect.all([frozen.stop, other.stop], { concurrency: 2 })

          const rows = yield* applied
          assert.deepStrictEqual(rows.toSorted((a, b) => a - b), all)
          assert.deepStrictEqual(inversions(rows), [])

          const before = frozen.said.all.slice(0, atThaw)
          const ended = new Set(numbers(before, "end"))
          const running = numbers(before, "begin").filter((n) => !ended.has(n))
          const after = frozen.said.all.slice(atThaw)
          const byOther = new Set(numbers(other.said.all, "begin"))
          // What it did after it woke up, although the other one had done it.
          const repeated = numbers(after, "end").filter((n) => byOther.has(n))
          assert.deepStrictEqual(repeated.filter((n) => !running.includes(n)), [])
          assert.deepStrictEqual(numbers(after, "begin").filter((n) => byOther.has(n)), [])
          const seen = new Set([...ended, ...numbers(after, "end"), ...numbers(other.said.all, "end")])
          assert.deepStrictEqual(all.filter((n) => !seen.has(n)), [])
        }).pipe(Effect.provide(servicesWithTable(settings)))
      }),
    360_000
  )
})

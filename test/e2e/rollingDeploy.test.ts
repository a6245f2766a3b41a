/** Processes of one group are replaced one by one by a version that reads one more topic. On real Kafka. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Broker } from "../../src/Broker.ts"
import * as Publisher from "../../src/Publisher.ts"
import { upTo } from "../suites/consumer/support.ts"
import { requireOrSkip } from "../support/services.ts"
import { type Process, type Said, start } from "./processes.ts"
import { Extras, Items } from "./programs/services.ts"
import { freshSettings, servicesWithTable } from "./stage.ts"

const numbersOf = (said: ReadonlyArray<Said>, word: string) =>
  said.filter((line) => line.word === word).map((line) => line.n)

const ascending = (all: ReadonlyArray<number>) => all.toSorted((a, b) => a - b)

describe.skipIf(requireOrSkip("kafka", "postgres"))("a rolling deploy", () => {
  it.live(
    "that adds a topic loses and repeats nothing, and the old processes never get the new topic",
    () =>
      Effect.gen(function*() {
        const settings = yield* freshSettings
        yield* Effect.gen(function*() {
          yield* Broker.use((broker) => broker.ensureTopics([Items, Extras]))
          const processes: Array<Process> = []
          const launch = (version: 1 | 2) =>
            Effect.gen(function*() {
              const process = yield* start("deploy", { ...settings, version })
              processes.push(process)
              yield* process.said.until("it runs", (said) => numbersOf(said, "ready").length === 1)
              return process
            })
          const seen = (word: string) => processes.flatMap(({ said }) => numbersOf(said.all, word))
          let published = 0
          const publish = Effect.gen(function*() {
            const events = upTo(30).map((index) => ({ key: `key-${index}`, n: published + index }))
            published += events.length
            yield* Publisher.publishAll(Items, events)
            yield* Publisher.publishAll(Extras, events)
          })

          const old = [yield* launch(1), yield* launch(1)]
          yield* publish
          for (const leaving of old) {
            yield* launch(2)
            yield* publish
            yield* leaving.stop
            yield* publish
          }
          const current = processes.slice(old.length)
          const allSeen = () => seen("item").length >= published && seen("extra").length >= published
          yield* Effect.raceAll(current.map(({ said }) => said.until("all is seen", allSeen)))
          yield* Effect.forEach(current, ({ stop }) => stop, { concurrency: 2 })

          assert.deepStrictEqual(ascending(seen("item")), upTo(published))
          assert.deepStrictEqual(ascending(seen("extra")), upTo(published))
          assert.deepStrictEqual(old.flatMap(({ said }) => numbersOf(said.all, "extra")), [])
        }).pipe(Effect.provide(servicesWithTable(settings)))
      }),
    180_000
  )
})

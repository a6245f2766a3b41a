/** Flow control: one call at a time, pause and resume. */
import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { Broker } from "../../../src/Broker.ts"
import { cases } from "../features.ts"
import type { BrokerFeatures, It } from "../features.ts"
import * as Journal from "./journal.ts"
import { freshGroup, freshTopic, meanwhile, send, upTo } from "./support.ts"

export const flow = <R>(it: It<Broker | R>, features: BrokerFeatures<R>): void => {
  const { check } = cases(it, features)

  check(
    "while onSignal works on a chunk the next one waits; afterwards everything arrives, once and in order",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const journal = yield* Journal.make
        const began = yield* Deferred.make<void>()
        const release = yield* Deferred.make<void>()
        yield* send(topic, 0, ["v-0"])
        yield* journal.member("a", {
          group: yield* freshGroup,
          topics: [topic],
          hook: (signal) =>
            signal._tag === "Records"
              ? Effect.andThen(Deferred.succeed(began, undefined), Deferred.await(release))
              : Effect.void
        })
        yield* Deferred.await(began)
        const held = journal.signals("a", "Records").length
        yield* send(topic, 0, upTo(1_500).slice(1).map((n) => `v-${n}`))
        yield* meanwhile
        assert.strictEqual(journal.signals("a", "Records").length, held)
        yield* Deferred.succeed(release, undefined)
        yield* journal.until("1,500 records", () => journal.deliveries().length >= 1_500)
        assert.deepStrictEqual(journal.texts(), upTo(1_500).map((n) => `v-${n}`))
      })
  )

  check(
    "a paused partition gives at most the chunk on its way, the others go on; resume goes on without a gap",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const journal = yield* Journal.make
        const member = yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
        yield* journal.until("assigned", () => journal.held("a").length === 2)
        const chunksOfPaused = () =>
          journal.signals("a", "Records").filter(({ assignment, records }) =>
            assignment.partition === 0 && records.length > 0
          ).length
        yield* member.pause([{ topic, partition: 0 }])
        for (const n of upTo(5)) {
          yield* send(topic, 0, [`paused-${n}`])
          yield* send(topic, 1, [`flows-${n}`])
          yield* journal.until(
            "the other partition flows",
            () => journal.deliveries().filter(({ partition }) => partition === 1).length === n + 1
          )
        }
        assert.isAtMost(chunksOfPaused(), 1)
        yield* member.resume([{ topic, partition: 0 }])
        yield* journal.until("ten records", () => journal.deliveries().length >= 10)
        const paused = journal.deliveries().filter(({ partition }) => partition === 0)
        assert.deepStrictEqual(paused.map(({ text }) => text), upTo(5).map((n) => `paused-${n}`))
      })
  )

  check("pausing inside onSignal takes effect with the next chunk", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const journal = yield* Journal.make
      const pauseOnce = yield* Deferred.make<Effect.Effect<void>>()
      let pausedAlready = false
      yield* send(topic, 0, ["v-0"])
      const member = yield* journal.member("a", {
        group: yield* freshGroup,
        topics: [topic],
        hook: (signal) =>
          Effect.suspend(() => {
            if (signal._tag !== "Records" || pausedAlready) {
              return Effect.void
            }
            pausedAlready = true
            return Effect.flatten(Deferred.await(pauseOnce))
          })
      })
      yield* Deferred.succeed(pauseOnce, member.pause([{ topic, partition: 0 }]))
      yield* journal.until("the first chunk is done", () =>
        journal.entries.some(({ at, signal }) => at === "end" && signal._tag === "Records"))
      yield* send(topic, 0, ["v-1"])
      yield* meanwhile
      yield* send(topic, 0, ["v-2"])
      yield* meanwhile
      assert.isAtMost(
        journal.signals("a", "Records").filter(({ records }) =>
          records.length > 0
        ).length,
        2
      )
      yield* member.resume([{ topic, partition: 0 }])
      yield* journal.until("three records", () => journal.deliveries().length >= 3)
      assert.deepStrictEqual(journal.texts(), ["v-0", "v-1", "v-2"])
    }))

  check("pausing a partition that is not assigned does nothing", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const other = yield* freshTopic(1)
      const journal = yield* Journal.make
      const member = yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
      yield* journal.until("assigned", () => journal.held("a").length === 1)
      yield* member.pause([{ topic: other, partition: 0 }, { topic, partition: 7 }])
      yield* member.resume([{ topic: other, partition: 0 }])
      yield* send(topic, 0, ["flows"])
      yield* journal.until("the record", () => journal.deliveries().length >= 1)
      assert.deepStrictEqual(journal.texts(), ["flows"])
    }))

  check("a pause ends with its assignment", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const group = yield* freshGroup
      const journal = yield* Journal.make
      const stays = yield* journal.member("stays", { group, topics: [topic] })
      yield* journal.until("both held", () => journal.held("stays").length === 2)
      yield* stays.pause(journal.held("stays"))
      const moved = yield* Effect.scoped(Effect.gen(function*() {
        yield* journal.member("passes", { group, topics: [topic] })
        yield* journal.until(
          "one each",
          () => journal.held("stays").length === 1 && journal.held("passes").length === 1
        )
        return journal.held("passes")[0]!
      }))
      yield* journal.until("both are back", () => journal.held("stays").length === 2)
      yield* send(topic, moved.partition, ["flows again"])
      yield* journal.until("the record", () => journal.deliveries("stays").length >= 1)
      assert.deepStrictEqual(journal.texts("stays"), ["flows again"])
    }))
}

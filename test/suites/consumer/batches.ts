/** Batches: how events gather, what a poison event costs, and which batches run side by side. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Batching from "../../../src/Batching.ts"
import * as Consumer from "../../../src/Consumer.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import { cases, type It } from "../features.ts"
import {
  ascending,
  blocking,
  deadLetters,
  freshGroup,
  freshPage,
  freshTopic,
  type FrontFeatures,
  headerText,
  items,
  Ledger,
  makeLog,
  member,
  publishAll,
  savingAtOnce,
  type Services,
  text,
  upTo
} from "./support.ts"

export const batches = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  check(
    "what gathers while the slots are busy goes together: everything arrives once, in batches of 1 to maxSize",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const group = yield* freshGroup
        const log = makeLog<ReadonlyArray<number>>()
        const arrived = Latch.makeUnsafe(false)
        yield* member(group, [
          Consumer.idempotentBatch(
            topic,
            (events) => Effect.andThen(arrived.await, log.add(events.map((event) => event.payload.n))),
            {
              batch: { maxSize: 30 },
              concurrency: 1,
              onFailure: blocking
            }
          )
        ])
        yield* publishAll(topic, items(200, 100))
        yield* arrived.open
        yield* log.until("200 events", (all) => all.flat().length >= 200)
        const sizes = log.all.map((batch) => batch.length)
        assert.deepStrictEqual(ascending(log.all.flat()), upTo(200))
        assert.isAbove(Math.max(...sizes), 1)
        assert.isAtMost(Math.max(...sizes), 30)
        assert.isAtLeast(Math.min(...sizes), 1)
      })
  )

  check("a single event is handled at once, alone, while the slots are free", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const group = yield* freshGroup
      const log = makeLog<number>()
      yield* member(group, [
        Consumer.idempotentBatch(topic, (events) => log.add(events.length), { onFailure: blocking })
      ])
      for (const n of upTo(3)) {
        yield* publishAll(topic, items(1, 1, n))
        yield* log.untilCount(n + 1)
      }
      assert.deepStrictEqual(log.all, [1, 1, 1])
    }))

  check(
    "two batches that run at the same time never hold the same key, and each key stays in order",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(3)
        const group = yield* freshGroup
        const log = makeLog<readonly [string, number]>()
        const running = new Map<string, number>()
        const shared: Array<string> = []
        let batch = 0
        yield* member(group, [
          Consumer.idempotentBatch(topic, (events) =>
            Effect.gen(function*() {
              const own = batch++
              const keys = new Set(events.map((event) => event.key!))
              for (const key of keys) {
                if (running.has(key)) shared.push(`${key} in batches ${running.get(key)} and ${own}`)
                running.set(key, own)
              }
              yield* Effect.yieldNow
              for (const event of events) yield* log.add([event.key!, event.payload.n])
              for (const key of keys) running.delete(key)
            }), { batch: { maxSize: 20 }, concurrency: 4, onFailure: blocking })
        ])
        yield* Effect.forEach(upTo(30), (round) => publishAll(topic, items(20, 12, round * 20)), { discard: true })
        yield* log.untilCount(600)
        assert.deepStrictEqual(shared, [])
        for (const key of upTo(12)) {
          const own = log.all.filter(([of]) => of === `key-${key}`).map(([, n]) => n)
          assert.deepStrictEqual(own, upTo(600).filter((n) => n % 12 === key))
        }
      })
  )

  check("maxBytes bounds a batch, and an event that is larger goes alone", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const log = makeLog<ReadonlyArray<number>>()
      const arrived = Latch.makeUnsafe(false)
      yield* member(group, [
        Consumer.idempotentBatch(topic, (events) =>
          Effect.andThen(arrived.await, log.add(events.map((event) => event.payload.n))), {
          // A value takes 22 to 24 bytes.
          batch: { maxBytes: 75 },
          concurrency: 1,
          onFailure: blocking
        })
      ])
      yield* publishAll(topic, items(90, 90))
      yield* arrived.open
      yield* log.until("90 events", (all) =>
        all.flat().length >= 90)
      assert.deepStrictEqual(ascending(log.all.flat()), upTo(90))
      assert.isAtMost(
        Math.max(...log.all.map((batch) =>
          batch.length
        )),
        3
      )
    }))

  for (const mode of ["idempotentBatch", "exactlyOnceBatch"] as const) {
    check(
      `one poison event among 100 (${mode}) costs a logarithmic number of attempts; the others are applied`,
      () =>
        Effect.gen(function*() {
          const topic = yield* freshTopic(1)
          const group = yield* freshGroup
          const page = yield* freshPage
          const ledger = yield* Ledger
          const attempts = makeLog<ReadonlyArray<number>>()
          const arrived = Latch.makeUnsafe(false)
          const running = yield* member(group, [
            Consumer[mode](topic, (events) =>
              Effect.gen(function*() {
                yield* arrived.await
                yield* attempts.add(events.map((event) => event.payload.n))
                // First the writes, then the failure: what is rolled back was there.
                if (mode === "exactlyOnceBatch") {
                  yield* Effect.forEach(events, (event) => ledger.write(page, String(event.payload.n)), {
                    discard: true
                  })
                }
                if (events.some((event) => event.payload.n === 57)) return yield* Effect.fail("poison")
                if (mode === "idempotentBatch") {
                  yield* Effect.forEach(events, (event) => ledger.write(page, String(event.payload.n)), {
                    discard: true
                  })
                }
              }), { concurrency: 1, onFailure: savingAtOnce })
          ])
          yield* publishAll(topic, items(100, 100))
          yield* arrived.open
          yield* attempts.until("the poison alone", (all) => all.some((batch) => batch.length === 1 && batch[0] === 57))
          yield* publishAll(topic, items(1, 1, 100))
          yield* attempts.until("what came later", (all) => all.some((batch) => batch.includes(100)))
          yield* running.stop
          assert.deepStrictEqual(ascending((yield* ledger.read(page)).map(Number)), upTo(101).filter((n) => n !== 57))
          const withPoison = attempts.all.filter((batch) => batch.includes(57))
          const whole = withPoison.reduce((largest, batch) => batch.length > largest.length ? batch : largest)
          const halves = attempts.all.filter((batch) => batch.every((n) => whole.includes(n)))
          assert.isAtMost(halves.length, 2 * Math.ceil(Math.log2(whole.length)) + 1)
          const letters = yield* deadLetters(topic, group)
          assert.strictEqual(letters.length, 1)
          assert.strictEqual(JSON.parse(text(letters[0]!.value)!).n, 57)
          assert.strictEqual(headerText(letters[0]!, "dl_attempts"), "1")
        })
    )
  }

  for (const mode of ["idempotentBatch", "exactlyOnceBatch"] as const) {
    check(
      `the events that a batch handler names (${mode}) are given up on, and no other runs again for long or is lost`,
      () =>
        Effect.gen(function*() {
          const topic = yield* freshTopic(1)
          const group = yield* freshGroup
          const page = yield* freshPage
          const ledger = yield* Ledger
          const attempts = makeLog<ReadonlyArray<number>>()
          const arrived = Latch.makeUnsafe(false)
          const isPoison = (n: number) => n === 13 || n === 57
          const running = yield* member(group, [
            Consumer[mode](topic, (events) =>
              Effect.gen(function*() {
                yield* arrived.await
                yield* attempts.add(events.map((event) => event.payload.n))
                const culprits = events.filter((event) => isPoison(event.payload.n))
                for (const event of events) {
                  if (!isPoison(event.payload.n)) yield* ledger.write(page, String(event.payload.n))
                }
                if (culprits.length > 0) return yield* Effect.fail(Batching.failed(culprits, "poison"))
              }), { concurrency: 1, onFailure: savingAtOnce })
          ])
          yield* publishAll(topic, items(100, 100))
          yield* arrived.open
          yield* attempts.until("both", (all) => all.flat().includes(13) && all.flat().includes(57))
          yield* publishAll(topic, items(1, 1, 100))
          yield* attempts.until("what came later", (all) => all.flat().includes(100))
          yield* running.stop
          assert.deepStrictEqual(
            ascending((yield* ledger.read(page)).map(Number)),
            upTo(101).filter((n) => !isPoison(n))
          )
          for (const n of [13, 57]) {
            assert.strictEqual(
              attempts.all.filter((batch) => batch.includes(n)).length,
              1,
              "a named event is judged alone"
            )
          }
          const letters = yield* deadLetters(topic, group)
          assert.sameMembers(letters.map((letter) => JSON.parse(text(letter.value)!).n), [13, 57])
        })
    )
  }

  check("a batch waits for minSize events, and a stop waits for none of them", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const log = makeLog<string>()
      const running = yield* member(group, [
        Consumer.idempotentBatch(
          topic,
          (events) => Effect.flatMap(Batching.Closed, (closed) => log.add(`${events.length} ${closed}`)),
          { batch: { minSize: 5, maxSize: 5, maxWait: "1 hour" }, concurrency: 1, onFailure: blocking }
        )
      ])
      yield* publishAll(topic, items(3, 3))
      yield* publishAll(topic, items(2, 2, 3))
      yield* log.untilCount(1)
      yield* publishAll(topic, items(2, 2, 5))
      yield* running.stop
      assert.deepStrictEqual(log.all, ["5 size"])
    }))

  check("a batch that fails as a whole and then succeeds is applied once per event", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const page = yield* freshPage
      const ledger = yield* Ledger
      const log = makeLog<number>()
      let failures = 3
      const running = yield* member(group, [
        Consumer.exactlyOnceBatch(topic, (events) =>
          Effect.gen(function*() {
            for (const event of events) yield* ledger.write(page, String(event.payload.n))
            if (failures-- > 0) return yield* Effect.fail("not yet")
            for (const event of events) yield* log.add(event.payload.n)
          }), { concurrency: 1, onFailure: { ...FailurePolicy.block(), retry: blocking.retry } })
      ])
      yield* publishAll(topic, items(40, 40))
      yield* log.untilCount(40)
      yield* running.stop
      assert.deepStrictEqual(ascending((yield* ledger.read(page)).map(Number)), upTo(40))
    }))
}

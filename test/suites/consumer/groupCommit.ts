/** Group commit: while all slots are busy, events that piled up share a transaction. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Consumer from "../../../src/Consumer.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import { MessageStore } from "../../../src/MessageStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import { cases, type It } from "../features.ts"
import {
  alphabetical,
  deadLetters,
  freshGroup,
  freshPage,
  freshTopic,
  type FrontFeatures,
  items,
  Ledger,
  makeLog,
  member,
  publishAll,
  retries,
  savingAtOnce,
  type Services,
  upTo
} from "./support.ts"

const count = 120
const keys = 12

export const groupCommit = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  const pageOf = (page: string) => Ledger.use((ledger) => ledger.read(page))
  /** The last event of a transaction is handled a moment before all of them are there to read. */
  const until = <A, E, R>(read: Effect.Effect<ReadonlyArray<A>, E, R>, atLeast: number) =>
    Effect.repeat(read, { until: (all) => all.length >= atLeast, schedule: Schedule.spaced("20 millis") })
  const write = (page: string, n: number) => Ledger.use((ledger) => ledger.write(page, String(n)))

  /** What each key's events were applied as, in the order of the page. */
  const assertOrdered = (applied: ReadonlyArray<string>) => {
    for (const key of upTo(keys)) {
      const own = applied.map(Number).filter((n) => n % keys === key)
      assert.deepStrictEqual(own, own.toSorted((a, b) => a - b))
    }
  }

  const applying = (commit: "group" | "event" | undefined) =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const [group, page] = [yield* freshGroup, yield* freshPage]
      const handled = makeLog<number>()
      const transactions = new Set<object | undefined>()
      yield* publishAll(topic, items(count, keys))
      yield* member(group, [
        Consumer.exactlyOnce(topic, (event) =>
          Effect.gen(function*() {
            transactions.add(yield* (yield* MessageStore).level)
            yield* write(page, event.payload.n)
            yield* handled.add(event.payload.n)
          }), { concurrency: 1, commit })
      ])
      yield* handled.untilCount(count)
      return { applied: yield* until(pageOf(page), count), transactions }
    })

  check(
    "events that pile up share transactions, each is applied once, in the order of its key",
    () =>
      Effect.gen(function*() {
        const { applied, transactions } = yield* applying(undefined)
        assert.deepStrictEqual(alphabetical(applied), alphabetical(upTo(count).map(String)))
        assertOrdered(applied)
        assert.isBelow(transactions.size, count / 2)
      })
  )

  check("with commit \"event\" each event has a transaction of its own", () =>
    Effect.gen(function*() {
      const { applied, transactions } = yield* applying("event")
      assert.deepStrictEqual(alphabetical(applied), alphabetical(upTo(count).map(String)))
      assert.strictEqual(transactions.size, count)
    }))

  check(
    "an event that fails is tried again by its policy, and the others of its transaction are applied once",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const [group, page] = [yield* freshGroup, yield* freshPage]
        const attempts = makeLog<number>()
        const handled = makeLog<number>()
        yield* publishAll(topic, items(count, keys))
        yield* member(group, [
          Consumer.exactlyOnce(topic, (event) =>
            Effect.gen(function*() {
              const { n } = event.payload
              yield* write(page, n)
              if (n === 50) yield* attempts.add(event.attempt)
              if (n === 50 && event.attempt < 3) return yield* Effect.fail("not yet")
              yield* handled.add(n)
            }), { concurrency: 1, onFailure: { ...FailurePolicy.save(), retry: retries(5) } })
        ])
        yield* attempts.until("the third attempt", (all) => all.includes(3))
        const applied = yield* until(pageOf(page), count)
        assert.deepStrictEqual(alphabetical(applied), alphabetical(upTo(count).map(String)))
        assertOrdered(applied)
        // Runs of the others are no attempts of this one.
        assert.deepStrictEqual([...new Set(attempts.all)], [1, 2, 3])
        assert.strictEqual((yield* deadLetters(topic, group)).length, 0)
      })
  )

  check(
    "of many that fail for good each is a dead letter once, and what they wrote and published is gone",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const next = yield* freshTopic(1)
        const [group, page] = [yield* freshGroup, yield* freshPage]
        const handled = makeLog<number>()
        const bad = (n: number) => n % 10 === 3
        yield* publishAll(topic, items(count, keys))
        yield* member(group, [
          Consumer.exactlyOnce(topic, (event) =>
            Effect.gen(function*() {
              const { key, n } = event.payload
              yield* write(page, n)
              yield* Outbox.publish(next, { key, n })
              if (bad(n)) return yield* Effect.fail("never")
              yield* handled.add(n)
            }), { concurrency: 1, onFailure: savingAtOnce })
        ])
        const good = upTo(count).filter((n) => !bad(n)).map(String)
        const applied = yield* until(pageOf(page), good.length)
        assert.deepStrictEqual(alphabetical(applied), alphabetical(good))
        const letters = yield* until(deadLetters(topic, group), count - good.length)
        assert.strictEqual(letters.length, count - good.length)
        assert.deepStrictEqual(alphabetical(yield* pageOf(page)), alphabetical(good))
      })
  )
}

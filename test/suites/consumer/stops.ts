/** Stops in every mode and form: what comes again, counted event by event. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import { cases, type It } from "../features.ts"
import { amidFlow } from "./flow.ts"
import { exactlyOnceForms, type Form, idempotentForms } from "./forms.ts"
import {
  ascending,
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
  type Services,
  upTo
} from "./support.ts"

/** `idempotent` and its batches. */
export const stops = (it: It<Services>, features: FrontFeatures): void => eachForm(it, features, idempotentForms, false)

/** `exactlyOnce`, with and without group commit, and its batches. */
export const stopsOnce = (it: It<Services>, features: FrontFeatures): void =>
  eachForm(it, features, exactlyOnceForms, true)

const eachForm = (
  it: It<Services>,
  features: FrontFeatures,
  forms: { readonly [name: string]: Form },
  once: boolean
): void => {
  const { check } = cases(it, features)

  for (const [name, form] of Object.entries(forms)) {
    check(
      `${name}: closed while events hang, the next member goes on: only what was unfinished comes again`,
      () =>
        Effect.gen(function*() {
          const topic = yield* freshTopic(1)
          const [group, page] = [yield* freshGroup, yield* freshPage]
          const ledger = yield* Ledger
          const [done, begun] = [makeLog<number>(), makeLog<number>()]
          const options = { ordering: "partition", concurrency: 1, batch: { maxSize: 7 } } as const
          const handling = (hangsFrom: number) =>
            form(topic, (events) =>
              Effect.gen(function*() {
                for (const { payload } of events) yield* ledger.write(page, String(payload.n))
                if (events.some(({ payload }) => payload.n >= hangsFrom)) {
                  yield* begun.add(events[0]!.payload.n)
                  return yield* Effect.never
                }
                for (const { payload } of events) yield* done.add(payload.n)
              }), options)
          yield* publishAll(topic, items(100, 20))
          const first = yield* member(group, [handling(40)], { shutdownTimeout: "100 millis" })
          yield* begun.untilCount(1)
          yield* first.stop
          const applied = (yield* ledger.read(page)).map(Number)
          const finished = done.all.length
          // Handled as a batch or in one transaction, all of it is undone; and of what was done nothing is.
          if (once) assert.deepStrictEqual(applied, upTo(applied.length))
          else assert.deepStrictEqual(done.all, upTo(finished))
          const second = yield* member(group, [handling(Infinity)])
          yield* done.until("the last", (all) => all.includes(99))
          yield* second.stop
          if (once) assert.deepStrictEqual((yield* ledger.read(page)).map(Number), upTo(100))
          else assert.deepStrictEqual(done.all, upTo(100))
          // What the second handled is exactly what the first had not finished.
          const again = done.all.slice(finished)
          assert.deepStrictEqual(again, upTo(100).slice(once ? applied.length : finished))
          assert.deepStrictEqual(yield* deadLetters(topic, group), [])
        })
    )

    check(
      `${name}: members that stop cleanly one after another amid a flow: no event is handled twice`,
      () =>
        Effect.gen(function*() {
          const topic = yield* freshTopic(3)
          const [group, page] = [yield* freshGroup, yield* freshPage]
          const ledger = yield* Ledger
          const seen = makeLog<number>()
          const consume = form(topic, (events) =>
            Effect.gen(function*() {
              for (const { payload } of events) yield* ledger.write(page, String(payload.n))
              yield* Effect.yieldNow
              for (const { payload } of events) yield* seen.add(payload.n)
            }))
          const first = yield* member(group, [consume])
          const relay = Effect.gen(function*() {
            let current = first
            for (const _ of upTo(4)) {
              yield* current.stop
              const before = seen.all.length
              current = yield* member(group, [consume])
              yield* seen.untilCount(before + 20)
            }
            return current
          })
          const { count, result: last } = yield* amidFlow({ topic, keys: 30, atLeast: 400, seen }, relay)
          yield* seen.until("all", (all) => all.length >= count)
          yield* last.stop
          assert.deepStrictEqual(ascending(seen.all), upTo(count))
          assert.deepStrictEqual(ascending((yield* ledger.read(page)).map(Number)), upTo(count))
          assert.deepStrictEqual(yield* deadLetters(topic, group), [])
        })
    )

    check(
      `${name}: a stop while an event backs off: it is no dead letter, its key waits for the next member`,
      () =>
        Effect.gen(function*() {
          const topic = yield* freshTopic(1)
          const [group, page] = [yield* freshGroup, yield* freshPage]
          const ledger = yield* Ledger
          const done = makeLog<number>()
          const failed = makeLog<number>()
          let healed = false
          const consume = form(topic, (events) =>
            Effect.gen(function*() {
              if (!healed && events.some(({ payload }) => payload.n === 11)) {
                if (events.length === 1) yield* failed.add(events[0]!.attempt)
                return yield* Effect.fail("not yet")
              }
              for (const { payload } of events) yield* ledger.write(page, String(payload.n))
              for (const { payload } of events) yield* done.add(payload.n)
            }), { onFailure: { ...FailurePolicy.save(), retry: Schedule.spaced("1 hour") } })
          yield* publishAll(topic, items(30, 10))
          const first = yield* member(group, [consume])
          const others = upTo(30).filter((n) => n !== 11 && n !== 21)
          yield* done.until("all but two", (all) => new Set(all).size >= others.length)
          yield* failed.untilCount(1)
          yield* first.stop
          assert.deepStrictEqual(ascending([...new Set(done.all)]), others)
          healed = true
          const before = done.all.length
          const second = yield* member(group, [consume])
          yield* done.until("both", (all) => all.slice(before).includes(11) && all.slice(before).includes(21))
          yield* second.stop
          const applied = (yield* ledger.read(page)).map(Number)
          // Runs whose transaction was rolled back are no effects.
          assert.deepStrictEqual((once ? applied : done.all).filter((n) => n % 10 === 1), [1, 11, 21])
          // What follows the hole in the partition comes again; the inbox knows it.
          if (once) assert.deepStrictEqual(ascending(applied), upTo(30))
          else assert.isTrue(done.all.slice(before).every((n) => n >= 11))
          assert.deepStrictEqual(yield* deadLetters(topic, group), [])
        })
    )
  }
}

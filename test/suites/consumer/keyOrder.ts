/** Order per key in every mode and form, while members come and go. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { cases, type It } from "../features.ts"
import { amidFlow } from "./flow.ts"
import { exactlyOnceForms, type Form, idempotentForms } from "./forms.ts"
import {
  ascending,
  freshGroup,
  freshPage,
  freshTopic,
  type FrontFeatures,
  Ledger,
  makeLog,
  markNumber,
  type Member,
  member,
  publishMarks,
  type Services,
  upTo
} from "./support.ts"

const keys = 16
const partitions = 12

/** `idempotent` and its batches. */
export const keyOrder = (it: It<Services>, features: FrontFeatures): void => eachForm(it, features, idempotentForms)

/** `exactlyOnce`, with and without group commit, and its batches. */
export const keyOrderOnce = (it: It<Services>, features: FrontFeatures): void =>
  eachForm(it, features, exactlyOnceForms)

const eachForm = (it: It<Services>, features: FrontFeatures, forms: { readonly [name: string]: Form }): void => {
  const { check } = cases(it, features)
  for (const [name, form] of Object.entries(forms)) {
    check(
      `${name}: 10 members that come and go, 16 keys, 16 slots: each key's events once, in order, one at a time`,
      () =>
        Effect.gen(function*() {
          const topic = yield* freshTopic(partitions)
          const [group, page] = [yield* freshGroup, yield* freshPage]
          const ledger = yield* Ledger
          const running = new Set<string>()
          const overlaps: Array<string> = []
          const seen = makeLog<number>()
          const consume = form(topic, (events) => {
            const own = new Set(events.map(({ key }) => key!))
            return Effect.gen(function*() {
              for (const key of own) if (running.has(key)) overlaps.push(`${key} at ${events[0]?.payload.n}`)
              for (const key of own) running.add(key)
              yield* Effect.yieldNow
              for (const { key, payload } of events) yield* ledger.write(page, `${key} ${payload.n}`)
              for (const { payload } of events) yield* seen.add(payload.n)
            }).pipe(Effect.ensuring(Effect.sync(() => {
              for (const key of own) running.delete(key)
            })))
          })
          const join = Effect.forEach(upTo(5), () => member(group, [consume]), { concurrency: "unbounded" })
          const leave = (members: ReadonlyArray<Member>) =>
            Effect.forEach(members, ({ stop }) => stop, { concurrency: "unbounded", discard: true })
          const five = yield* join
          const { count, result: others } = yield* amidFlow(
            { topic, keys, atLeast: 1_000, seen },
            Effect.map(Effect.all([join, leave(five.slice(0, 3))], { concurrency: 2 }), ([joined]) => joined)
          )
          yield* seen.until("all", (all) => all.length >= count)
          yield* seen.until("all different", (all) => new Set(all).size >= count)
          yield* publishMarks(topic)
          yield* seen.until("the marks", (all) => all.filter((n) => n === markNumber).length >= partitions)
          yield* leave([...five, ...others])
          assert.deepStrictEqual(overlaps, [])
          const lines = (yield* ledger.read(page)).map((line) => line.split(" ") as [string, string])
          for (const key of upTo(keys)) {
            const own = lines.filter(([of]) => of === `key-${key}`).map(([, n]) => Number(n))
            assert.deepStrictEqual(own, upTo(count).filter((n) => n % keys === key))
          }
          const applied = lines.map(([, n]) => Number(n)).filter((n) => n !== markNumber)
          assert.deepStrictEqual(ascending(applied), upTo(count))
        })
    )
  }
}

/** Back-pressure: a consumer that is slower than its topic takes in no more than it may hold. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Consumer from "../../../src/Consumer.ts"
import { collectGarbage } from "../../support/collectGarbage.ts"
import { nonEmpty, record, sendRecords } from "../broker/support.ts"
import { cases, type It } from "../features.ts"
import {
  freshGroup,
  freshTopic,
  type FrontFeatures,
  makeLog,
  member,
  savingAtOnce,
  type Services,
  upTo
} from "./support.ts"

export const backPressure = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)
  if (features.flood === undefined) return
  const count = features.flood
  /** Megabytes. */
  const most = 10

  for (const form of ["idempotent", "idempotentBatch"] as const) {
    check(
      `${form}: ${count} events that lie ready and a slow handler: all arrive, and memory stays flat`,
      () =>
        Effect.gen(function*() {
          const topic = yield* freshTopic(4)
          const group = yield* freshGroup
          const used: Array<number> = []
          const finished = makeLog<number>()
          let handled = 0
          // The broker's log is in memory as well: it is complete before the first sample.
          for (const partition of upTo(4)) {
            const own = upTo(count / 4).map((n) => record(JSON.stringify({ key: "", n }), `key-${n % 1_000}`))
            yield* sendRecords(topic.name, partition, nonEmpty(own))
          }
          collectGarbage()
          const before = process.memoryUsage().heapUsed
          const handle = (size: number) =>
            Effect.suspend(() => {
              const last = handled
              handled += size
              if (Math.floor(last / (count / 10)) < Math.floor(handled / (count / 10))) {
                collectGarbage()
                used.push(process.memoryUsage().heapUsed)
              }
              // Slow: others run before it goes on.
              return Effect.andThen(Effect.yieldNow, handled >= count ? finished.add(handled) : Effect.void)
            })
          yield* member(group, [
            form === "idempotent"
              ? Consumer.idempotent(topic, () => handle(1), { onFailure: savingAtOnce })
              : Consumer.idempotentBatch(topic, (events) => handle(events.length), { onFailure: savingAtOnce })
          ])
          yield* finished.untilCount(1)
          assert.strictEqual(handled, count)
          assert.strictEqual(used.length, 10)
          // What may wait takes 3 MB; all of it would take 18.
          const held = used.map((bytes) => Math.round((bytes - before) / 1e6))
          assert.isBelow(Math.max(...held), most, `MB held after each tenth: ${held.join(", ")}`)
        })
    )
  }
}

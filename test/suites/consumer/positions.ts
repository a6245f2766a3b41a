/** Positions: what is committed at each moment, and offsets without a record. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Consumer from "../../../src/Consumer.ts"
import { askUntil, cases, type It } from "../features.ts"
import { Outside } from "./outside.ts"
import {
  ascending,
  type Call,
  callOf,
  freshGroup,
  freshTopic,
  type FrontFeatures,
  items,
  makeLog,
  member,
  numbers,
  publishAll,
  savingAtOnce,
  type Services,
  upTo
} from "./support.ts"

export const positions = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  check(
    "event 5 hangs and 6 to 5,000 finish: the position stays at 5, and one commit covers all when it ends",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const at = { topic: topic.name, partition: 0 }
        const outside = yield* Outside
        const log = makeLog<Call>()
        const release = Latch.makeUnsafe(false)
        const count = 5_001
        yield* publishAll(topic, items(count, count))
        yield* member(group, [
          Consumer.idempotent(
            topic,
            (event) => Effect.andThen(event.payload.n === 5 ? release.await : Effect.void, log.add(callOf(event))),
            { onFailure: savingAtOnce }
          )
        ])
        const committed = outside.committed(group, at)
        yield* log.untilCount(count - 1)
        yield* askUntil(features, "0 to 4 are committed", committed, (offset) => offset === 5n)
        assert.deepStrictEqual(ascending(numbers(log.all)), upTo(count).filter((n) => n !== 5))
        // Every commit so far was made with all of them finished or before.
        assert.strictEqual(yield* committed, 5n)
        yield* release.open
        const next = yield* askUntil(features, "more than 5 is committed", committed, (offset) => offset !== 5n)
        assert.strictEqual(next, BigInt(count))
        assert.deepStrictEqual(ascending(numbers(log.all)), upTo(count))
      })
  )

  check(
    "offsets without a record, in the middle and at the end, hold nothing back: the lag reaches 0",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const at = { topic: topic.name, partition: 0 }
        const outside = yield* Outside
        const log = makeLog<Call>()
        const consume = Consumer.idempotent(topic, (event) => log.add(callOf(event)), { onFailure: savingAtOnce })
        const caughtUp = Effect.flatMap(
          outside.end(at),
          (end) =>
            askUntil(features, `the position is ${end}`, outside.committed(group, at), (offset) => offset === end)
        )
        for (const round of upTo(3)) {
          yield* publishAll(topic, items(10, 10, round * 10))
          yield* outside.skipOffsets(at)
        }
        const first = yield* member(group, [consume])
        yield* log.untilCount(30)
        yield* caughtUp
        // While it runs, with nothing but such offsets to come.
        yield* outside.skipOffsets(at)
        yield* caughtUp
        yield* first.stop
        yield* outside.skipOffsets(at)
        yield* publishAll(topic, items(10, 10, 30))
        yield* member(group, [consume])
        yield* log.untilCount(40)
        yield* caughtUp
        assert.deepStrictEqual(ascending(numbers(log.all)), upTo(40))
      })
  )
}

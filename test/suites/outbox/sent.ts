/** What was sent, where the relay keeps it. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import * as Outbox from "../../../src/Outbox.ts"
import { freshTopic, type FrontFeatures, items, type ItemTopic, relay, type Services } from "../consumer/support.ts"
import { askUntil, cases, type It } from "../features.ts"

export const sent = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  const sentOf = (topic: ItemTopic, key?: string) => Stream.runCollect(Outbox.sent({ topic: topic.name, key }))

  const publish = (topic: ItemTopic) => Outbox.transaction(Outbox.publishAll(topic, items(6, 2)))

  check(
    "a relay that is to keep what it sends does so, until it is old enough; others keep nothing",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const forgetful = yield* relay()
        yield* publish(topic)
        yield* askUntil(features, "all to be sent", Outbox.state, ({ waiting }) => waiting === 0)
        yield* forgetful.stop
        const keeping = yield* relay({ keep: "1 hour" })
        const ids = yield* publish(topic)
        const kept = yield* askUntil(features, "6 to be kept", sentOf(topic), (rows) => rows.length >= 6)
        assert.deepStrictEqual(kept.map(({ id }) => id).sort(), ids.toSorted())
        const [{ key }] = [kept[0]!]
        const ofKey = yield* sentOf(topic, key!)
        assert.deepStrictEqual(ofKey.map(({ id }) => id), ids.filter((_, n) => items(6, 2)[n]!.key === key))
        yield* keeping.stop
        const brief = yield* relay({ keep: 0 })
        yield* askUntil(features, "all to be forgotten", sentOf(topic), (rows) => rows.length === 0)
        yield* brief.stop
      })
  )
}

/** Rows that were sent and are kept for a while. */
import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { MessageStore } from "../../../src/MessageStore.ts"
import { askUntil, cases } from "../features.ts"
import type { It, StoreFeatures } from "../features.ts"
import { append, cleanOutbox, freshOwner, holding, nonEmpty, stored, storedTexts, textOf } from "./support.ts"

const list = (topic: string) =>
  MessageStore.use((store) => store.outbox.sent.list({ selection: { topic }, limit: 1_000 }))

const keptTexts = (topic: string) => Effect.map(list(topic), (rows) => rows.map(textOf))

export const sent = <R>(it: It<MessageStore | R>, features: StoreFeatures<R>): void => {
  const { check } = cases(it, features)

  check("a row that is kept leaves the outbox whole, and is listed, page by page", () =>
    Effect.gen(function*() {
      const store = yield* MessageStore
      const topic = yield* cleanOutbox
      yield* append(topic, 10, ["a", "b", "c"])
      yield* append(topic, 11, ["d"])
      const before = yield* stored(topic)
      const { leases, owner } = yield* holding([10, 11])
      const rows = nonEmpty(before.filter((row) => textOf(row) !== "c"))
      assert.strictEqual(yield* store.outbox.sent.keep({ owner, leases, rows }), 3)
      assert.strictEqual(yield* store.outbox.sent.keep({ owner, leases, rows }), 0)
      assert.deepStrictEqual(yield* storedTexts(topic), ["c"])
      const kept = yield* list(topic)
      assert.deepStrictEqual(
        kept.map(({ payload, sentAt: _, ...row }) => ({ ...row, payload: Array.from(payload!) })),
        rows.map(({ payload, ...row }) => ({ ...row, payload: Array.from(payload!) }))
      )
      for (const { sentAt } of kept) assert.isFalse(Number.isNaN(sentAt.getTime()))
      const page = yield* store.outbox.sent.list({ selection: { topic }, after: kept[0], limit: 1 })
      assert.deepStrictEqual(page.map(textOf), ["b"])
      const one = yield* store.outbox.sent.list({ selection: { messageKey: kept[2]!.messageKey }, limit: 10 })
      assert.deepStrictEqual(one.map(textOf), ["d"])
    }))

  check("who does not hold the part keeps nothing", () =>
    Effect.gen(function*() {
      const store = yield* MessageStore
      const topic = yield* cleanOutbox
      yield* append(topic, 12, ["a"])
      const frozen = yield* holding([12], Duration.millis(300))
      const rows = nonEmpty(yield* stored(topic))
      const stranger = yield* freshOwner
      assert.strictEqual(yield* store.outbox.sent.keep({ owner: stranger, leases: frozen.leases, rows }), 0)
      assert.strictEqual(yield* store.outbox.sent.keep({ owner: frozen.owner, leases: [], rows }), 0)
      yield* askUntil(features, "part 12 to be free", store.leases.free, (free) => free.includes(12))
      const next = yield* holding([12])
      assert.strictEqual(yield* store.outbox.sent.keep({ ...frozen, rows }), 0)
      assert.strictEqual(yield* store.outbox.sent.keep({ ...next, leases: frozen.leases, rows }), 0)
      assert.deepStrictEqual(yield* storedTexts(topic), ["a"])
      assert.deepStrictEqual(yield* keptTexts(topic), [])
    }))

  check("what is kept is forgotten when it is old enough, and no sooner", () =>
    Effect.gen(function*() {
      const store = yield* MessageStore
      const topic = yield* cleanOutbox
      yield* append(topic, 13, ["a", "b"])
      const { leases, owner } = yield* holding([13])
      yield* store.outbox.sent.keep({ owner, leases, rows: nonEmpty(yield* stored(topic)) })
      yield* store.outbox.sent.prune(Duration.hours(1))
      assert.deepStrictEqual(yield* keptTexts(topic), ["a", "b"])
      assert.isAtLeast(yield* store.outbox.sent.prune(Duration.zero), 2)
      assert.deepStrictEqual(yield* keptTexts(topic), [])
    }))
}

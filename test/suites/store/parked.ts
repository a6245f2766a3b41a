/** Parked rows: taken out of the outbox, and put back where they were. */
import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type { OutboxRow, RowKey } from "../../../src/MessageStore.ts"
import { MessageStore } from "../../../src/MessageStore.ts"
import { askUntil, cases, within } from "../features.ts"
import type { It, StoreFeatures } from "../features.ts"
import { cleanOutbox, freshMessageKey, freshOwner, holding, nonEmpty, stored, storedTexts, textOf } from "./support.ts"

const encoder = new TextEncoder()

/** A topic without rows, parked ones included when the case ends. */
const cleanTopic = Effect.gen(function*() {
  const store = yield* MessageStore
  const topic = yield* cleanOutbox
  yield* Effect.addFinalizer(() => Effect.orDie(store.outbox.parked.drop({ topic })))
  return topic
})

/** Appends a row per text, of the key that is its first letter; `-` is none. */
const append = Effect.fnUntraced(function*(topic: string, part: number, ...texts: ReadonlyArray<string>) {
  const store = yield* MessageStore
  const rows = yield* Effect.forEach(texts, (text) =>
    Effect.map(freshMessageKey, (messageKey): OutboxRow => ({
      part,
      messageKey,
      topic,
      key: text[0] === "-" ? null : text[0]!,
      headers: { text },
      payload: encoder.encode(text)
    })))
  yield* store.outbox.append(nonEmpty(rows))
})

const refusal = "It is too large: \"quoted\", ünïcode, \n a second line"

/** Parks the rows with these texts; those that end in "?" are refused, others wait behind. */
const park = Effect.fnUntraced(function*(topic: string, part: number, ...texts: ReadonlyArray<string>) {
  const store = yield* MessageStore
  const { leases, owner } = yield* holding([part])
  const all = yield* stored(topic)
  const rows = all.filter((row) => texts.includes(textOf(row)!)).map((row) => ({
    part: row.part,
    id: row.id,
    reason: textOf(row)!.endsWith("?") ? refusal : null
  }))
  const count = yield* store.outbox.parked.park({ owner, leases, rows: nonEmpty(rows) })
  yield* store.leases.release(owner, [part])
  return count
})

const list = (topic: string) =>
  MessageStore.use((store) => store.outbox.parked.list({ selection: { topic }, limit: 1_000 }))

const parkedTexts = (topic: string) => Effect.map(list(topic), (rows) => rows.map(textOf))

export const parked = <R>(it: It<MessageStore | R>, features: StoreFeatures<R>): void => {
  const { check } = cases(it, features)

  check("a parked row leaves the outbox whole, and is listed with its reason", () =>
    Effect.gen(function*() {
      const topic = yield* cleanTopic
      yield* append(topic, 3, "a1?", "a2", "b1", "-")
      const before = yield* stored(topic)
      assert.strictEqual(yield* park(topic, 3, "a1?", "a2"), 2)
      assert.deepStrictEqual(yield* storedTexts(topic), ["b1", "-"])
      const rows = yield* list(topic)
      assert.deepStrictEqual(
        rows.map(({ parkedAt: _, payload, reason: __, ...row }) => ({ ...row, payload: Array.from(payload!) })),
        before.slice(0, 2).map(({ payload, ...row }) => ({ ...row, payload: Array.from(payload!) }))
      )
      assert.deepStrictEqual(rows.map(({ reason }) => reason), [refusal, null])
      for (const { parkedAt } of rows) assert.isFalse(Number.isNaN(parkedAt.getTime()))
    }))

  check("who does not hold the part parks nothing", () =>
    Effect.gen(function*() {
      const topic = yield* cleanTopic
      const store = yield* MessageStore
      yield* append(topic, 4, "a1?")
      const frozen = yield* holding([4], Duration.millis(300))
      const rows = nonEmpty((yield* stored(topic)).map(({ id, part }) => ({ id, part, reason: refusal })))
      const stranger = yield* freshOwner
      assert.strictEqual(yield* store.outbox.parked.park({ owner: stranger, leases: frozen.leases, rows }), 0)
      assert.strictEqual(yield* store.outbox.parked.park({ owner: frozen.owner, leases: [], rows }), 0)
      yield* askUntil(features, "part 4 to be free", store.leases.free, (free) => free.includes(4))
      const next = yield* holding([4])
      assert.strictEqual(yield* store.outbox.parked.park({ ...frozen, rows }), 0)
      assert.strictEqual(yield* store.outbox.parked.park({ ...next, leases: frozen.leases, rows }), 0)
      assert.deepStrictEqual(yield* storedTexts(topic), ["a1?"])
      assert.deepStrictEqual(yield* parkedTexts(topic), [])
      assert.strictEqual(yield* store.outbox.parked.park({ ...next, rows }), 1)
    }))

  check("the first parked row of each key is told, of those that have one", () =>
    Effect.gen(function*() {
      const topic = yield* cleanTopic
      const store = yield* MessageStore
      yield* append(topic, 5, "a1?", "a2", "b1?", "-?")
      yield* append(topic, 6, "c1?")
      const ids = new Map((yield* stored(topic)).map((row) => [textOf(row)!, row.id]))
      yield* park(topic, 5, "a1?", "a2", "b1?", "-?")
      yield* park(topic, 6, "c1?")
      const keys = (...of: readonly [RowKey, ...Array<RowKey>]) =>
        Effect.map(store.outbox.parked.keys(of), (all) => all.map(({ id, key }) => `${key} ${id}`).sort())
      const [a, b, c] = [{ part: 5, topic, key: "a" }, { part: 5, topic, key: "b" }, { part: 6, topic, key: "c" }]
      assert.deepStrictEqual(yield* keys(a, b, c), [
        `a ${ids.get("a1?")}`,
        `b ${ids.get("b1?")}`,
        `c ${ids.get("c1?")}`
      ])
      assert.deepStrictEqual(yield* keys(b), [`b ${ids.get("b1?")}`])
      const others = [{ ...a, key: "A" }, { ...a, key: "a " }, { ...a, key: "á" }, { ...a, topic: "other" }, {
        ...a,
        part: 6
      }]
      assert.deepStrictEqual(yield* keys(...nonEmpty(others)), [])
      const many = nonEmpty(Array.from({ length: 700 }, (_, n) => ({ ...a, key: `key-${n}` })))
      assert.deepStrictEqual(yield* keys(...many, c), [`c ${ids.get("c1?")}`])
    }))

  check(
    "what is released comes back where it was, and what waited behind it once it is freed",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanTopic
        const store = yield* MessageStore
        yield* append(topic, 8, "a1?", "a2", "b1", "a3?", "a4")
        yield* park(topic, 8, "a1?", "a2", "a3?", "a4")
        yield* append(topic, 8, "a5")
        assert.deepStrictEqual(yield* storedTexts(topic), ["b1", "a5"])
        assert.strictEqual(yield* store.outbox.parked.free, 0)
        const [first] = yield* list(topic)
        assert.strictEqual(yield* store.outbox.parked.release({ messageKey: first!.messageKey }), 1)
        assert.deepStrictEqual(yield* storedTexts(topic), ["a1?", "b1", "a5"])
        // The third is refused by itself, and holds the fourth.
        assert.strictEqual(yield* store.outbox.parked.free, 1)
        assert.deepStrictEqual(yield* storedTexts(topic), ["a1?", "a2", "b1", "a5"])
        assert.deepStrictEqual(yield* parkedTexts(topic), ["a3?", "a4"])
        assert.strictEqual(yield* store.outbox.parked.release({ topic, key: "a" }), 1)
        assert.strictEqual(yield* store.outbox.parked.free, 1)
        assert.deepStrictEqual(yield* storedTexts(topic), ["a1?", "a2", "b1", "a3?", "a4", "a5"])
        assert.deepStrictEqual(yield* list(topic), [])
        assert.strictEqual(yield* store.outbox.parked.release({ topic }), 0)
      })
  )

  check("a selection is met by what agrees with all of it", () =>
    Effect.gen(function*() {
      const topic = yield* cleanTopic
      const store = yield* MessageStore
      yield* append(topic, 9, "a1?", "b1?", "-?")
      yield* park(topic, 9, "a1?", "b1?", "-?")
      const texts = (selection: Parameters<typeof store.outbox.parked.release>[0]) =>
        Effect.map(store.outbox.parked.list({ selection, limit: 10 }), (rows) => rows.map(textOf))
      assert.deepStrictEqual(yield* texts({ topic }), ["a1?", "b1?", "-?"])
      assert.deepStrictEqual(yield* texts({ topic, key: "b" }), ["b1?"])
      assert.deepStrictEqual(yield* texts({ topic, key: "" }), [])
      const [first] = yield* list(topic)
      assert.deepStrictEqual(yield* texts({ messageKey: first!.messageKey, key: "b" }), [])
      assert.deepStrictEqual(yield* texts({ messageKey: first!.messageKey, key: "a", topic }), ["a1?"])
    }))

  check("a long list comes in pieces, in order", () =>
    Effect.gen(function*() {
      const topic = yield* cleanTopic
      const store = yield* MessageStore
      const texts = Array.from({ length: 25 }, (_, n) => `a${n}?`)
      yield* append(topic, 11, ...texts)
      yield* append(topic, 10, "b1?")
      yield* park(topic, 11, ...texts)
      yield* park(topic, 10, "b1?")
      const found: Array<string | null> = []
      for (let after: { readonly part: number; readonly id: bigint } | undefined;;) {
        const rows = yield* store.outbox.parked.list({ selection: { topic }, after, limit: 10 })
        found.push(...rows.map(textOf))
        after = rows.at(-1)
        if (rows.length < 10) break
      }
      assert.deepStrictEqual(found, ["b1?", ...texts])
    }))

  check("an edited row has its new payload, and one that is dropped is gone", () =>
    Effect.gen(function*() {
      const topic = yield* cleanTopic
      const store = yield* MessageStore
      yield* append(topic, 12, "a1?", "a2", "b1?")
      yield* park(topic, 12, "a1?", "a2", "b1?")
      const [a1] = yield* list(topic)
      assert.isTrue(yield* store.outbox.parked.edit(a1!.messageKey, encoder.encode("edited")))
      assert.isTrue(yield* store.outbox.parked.edit(a1!.messageKey, encoder.encode("edited")), "the same once more")
      assert.isFalse(yield* store.outbox.parked.edit(yield* freshMessageKey, null))
      assert.deepStrictEqual(yield* parkedTexts(topic), ["edited", "a2", "b1?"])
      yield* store.outbox.parked.edit(a1!.messageKey, null)
      assert.deepStrictEqual(yield* parkedTexts(topic), [null, "a2", "b1?"])
      assert.strictEqual(yield* store.outbox.parked.drop({ messageKey: a1!.messageKey }), 1)
      assert.strictEqual(yield* store.outbox.parked.free, 1)
      assert.deepStrictEqual(yield* storedTexts(topic), ["a2"])
      assert.deepStrictEqual(yield* parkedTexts(topic), ["b1?"])
    }))

  check("a release belongs to its transaction, and wakes the relays when that commits", () =>
    Effect.gen(function*() {
      const topic = yield* cleanTopic
      const store = yield* MessageStore
      yield* append(topic, 13, "a1?", "a2")
      yield* park(topic, 13, "a1?", "a2")
      const queue = yield* store.outbox.wakeups
      const releasing = Effect.andThen(store.outbox.parked.release({ topic }), store.outbox.parked.free)
      yield* Effect.flip(store.transaction(Effect.andThen(releasing, Effect.fail("no"))))
      assert.deepStrictEqual(yield* parkedTexts(topic), ["a1?", "a2"])
      assert.deepStrictEqual(yield* storedTexts(topic), [])
      yield* store.transaction(releasing)
      yield* within(Queue.take(queue), 10_000, () => "a wake-up after the release")
      assert.deepStrictEqual(yield* storedTexts(topic), ["a1?", "a2"])
    }))
}

/** Outbox rows: what is read back, in which order, and what goes. */
import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type { OutboxRow, StoredRow } from "../../../src/MessageStore.ts"
import { MessageStore } from "../../../src/MessageStore.ts"
import { askUntil, cases, within } from "../features.ts"
import type { It, StoreFeatures } from "../features.ts"
import {
  append,
  cleanOutbox,
  everyPart,
  freshMessageKeys,
  freshOwner,
  holding,
  nonEmpty,
  rows,
  stored,
  storedTexts,
  textOf,
  upTo
} from "./support.ts"

export const outbox = <R>(it: It<MessageStore | R>, features: StoreFeatures<R>): void => {
  const { check } = cases(it, features)

  check(
    "a row comes back as it was appended: binary payload, tombstone, empty key, no key, any text",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanOutbox
        const store = yield* MessageStore
        const keys = yield* freshMessageKeys(4)
        const added: ReadonlyArray<OutboxRow> = [
          { messageKey: keys[0], key: "key", payload: new Uint8Array([0, 255, 254, 10, 39, 92]), headers: { a: "1" } },
          { messageKey: keys[1]!, key: "", payload: null, headers: {} },
          { messageKey: keys[2]!, key: null, payload: new Uint8Array(0), headers: { quote: "'\"\\", empty: "" } },
          { messageKey: keys[3]!, key: "schlüssel 🎉", payload: new Uint8Array([1]), headers: { "ce_subject": "世界" } }
        ].map((row) => ({ ...row, part: 3, topic }))
        yield* store.outbox.append(nonEmpty(added))
        const got = yield* stored(topic)
        assert.deepStrictEqual(got.map(comparable), added.map(comparable))
      })
  )

  check("ids grow in the order of insertion, within a call and from call to call", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const store = yield* MessageStore
      yield* store.transaction(append(topic, 7, ["a", "b", "c"]))
      yield* append(topic, 7, ["d"])
      yield* store.transaction(Effect.andThen(append(topic, 7, ["e"]), append(topic, 7, ["f", "g"])))
      const got = yield* stored(topic)
      assert.deepStrictEqual(got.map(textOf), ["a", "b", "c", "d", "e", "f", "g"])
      assert.isTrue(got.every((row, index) => index === 0 || got[index - 1]!.id < row.id))
    }))

  check("rows are read by part and id, only of the parts asked for, up to the limit", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const store = yield* MessageStore
      yield* append(topic, 9, ["9a", "9b"])
      yield* append(topic, 2, ["2a", "2b"])
      yield* append(topic, 5, ["5a"])
      yield* append(topic, 2, ["2c"])
      const read = (parts: readonly [number, ...Array<number>], limit: number) =>
        Effect.map(store.outbox.read({ parts, limit }), (rows) => rows.map(textOf))
      assert.deepStrictEqual(yield* read([2, 5, 9], 100), ["2a", "2b", "2c", "5a", "9a", "9b"])
      assert.deepStrictEqual(yield* read([9, 2], 100), ["2a", "2b", "2c", "9a", "9b"])
      assert.deepStrictEqual(yield* read([2, 5, 9], 4), ["2a", "2b", "2c", "5a"])
      assert.deepStrictEqual(yield* read([5], 100), ["5a"])
      assert.deepStrictEqual(yield* read([63], 100), [])
    }))

  check("20,000 rows in one transaction all arrive, in order", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const store = yield* MessageStore
      const texts = upTo(20_000).map((n) => `n-${n}`)
      const added = yield* rows(topic, 11, texts)
      yield* store.transaction(store.outbox.append(added))
      assert.deepStrictEqual(yield* storedTexts(topic), texts)
    }))

  check("exactly the rows named are removed, and counted", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const store = yield* MessageStore
      yield* append(topic, 4, ["a", "b", "c", "d"])
      const { leases, owner } = yield* holding([4, 5])
      const [a, b, c] = yield* stored(topic)
      // an id under another part names nothing
      assert.strictEqual(yield* store.outbox.remove({ owner, leases, rows: [{ part: 5, id: b!.id }] }), 0)
      const remove = store.outbox.remove({ owner, leases, rows: [a!, c!] })
      assert.strictEqual(yield* remove, 2)
      assert.deepStrictEqual(yield* storedTexts(topic), ["b", "d"])
      assert.strictEqual(yield* remove, 0)
    }))

  check("many rows of many parts are removed at once", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const store = yield* MessageStore
      yield* Effect.forEach(everyPart, (part) => append(topic, part, upTo(20).map((n) => `${part}-${n}`)))
      const { leases, owner } = yield* holding(everyPart)
      const all = yield* stored(topic)
      assert.strictEqual(all.length, 64 * 20)
      assert.strictEqual(yield* store.outbox.remove({ owner, leases, rows: nonEmpty(all) }), 64 * 20)
      assert.deepStrictEqual(yield* stored(topic), [])
    }))

  check("a row appended while older ones are removed stays", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const store = yield* MessageStore
      yield* append(topic, 4, ["old 1", "old 2"])
      const { leases, owner } = yield* holding([4])
      const old = yield* stored(topic)
      yield* append(topic, 4, ["new"])
      assert.strictEqual(yield* store.outbox.remove({ owner, leases, rows: nonEmpty(old) }), 2)
      yield* append(topic, 4, ["newer"])
      assert.strictEqual(yield* store.outbox.remove({ owner, leases, rows: nonEmpty(old) }), 0)
      assert.deepStrictEqual(yield* storedTexts(topic), ["new", "newer"])
    }))

  check("an id never comes back, even if the outbox was empty in between", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const store = yield* MessageStore
      const { leases, owner } = yield* holding([4])
      yield* append(topic, 4, ["a", "b"])
      const old = nonEmpty(yield* stored(topic))
      assert.strictEqual(yield* store.outbox.remove({ owner, leases, rows: old }), 2)
      yield* append(topic, 4, ["c"])
      const [next] = yield* stored(topic)
      assert.isTrue(next!.id > old[1]!.id)
      // a removal that comes late takes nothing with it
      assert.strictEqual(yield* store.outbox.remove({ owner, leases, rows: old }), 0)
      assert.deepStrictEqual(yield* storedTexts(topic), ["c"])
    }))

  check(
    "what waits, is parked and is scheduled is counted, and for how long the oldest has waited",
    () =>
      Effect.gen(function*() {
        const store = yield* MessageStore
        const topic = yield* cleanOutbox
        assert.deepStrictEqual(yield* store.outbox.counts, {
          waiting: 0,
          oldestMillis: undefined,
          parked: 0,
          scheduled: 0
        })
        yield* append(topic, 3, ["a", "b", "c"])
        yield* askUntil(
          features,
          "the oldest has waited for a while",
          store.outbox.counts,
          ({ oldestMillis }) => oldestMillis! >= 50
        )
        yield* append(topic, 4, ["d"])
        const { leases, owner } = yield* holding(everyPart)
        const [first] = yield* stored(topic)
        yield* store.outbox.parked.park({ owner, leases, rows: [{ part: 3, id: first!.id, reason: "too large" }] })
        const [later] = yield* rows(topic, 3, ["e"])
        const dueMillis = (yield* Clock.currentTimeMillis) + 3_600_000
        yield* store.outbox.scheduled.add([{ ...later, dueMillis }])
        const { oldestMillis, ...counts } = yield* store.outbox.counts
        assert.deepStrictEqual(counts, { waiting: 3, parked: 1, scheduled: 1 })
        assert.isTrue(oldestMillis! >= 50 && oldestMillis! < 60_000, String(oldestMillis))
        yield* store.outbox.parked.drop({ topic })
        yield* store.outbox.scheduled.cancel(later.messageKey)
      })
  )

  check("who does not hold the part removes nothing", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const store = yield* MessageStore
      yield* append(topic, 4, ["four"])
      yield* append(topic, 5, ["five"])
      const { leases, owner } = yield* holding([4])
      const all = nonEmpty(yield* stored(topic))
      const stranger = yield* freshOwner
      assert.strictEqual(yield* store.outbox.remove({ owner: stranger, leases, rows: all }), 0)
      assert.strictEqual(yield* store.outbox.remove({ owner, leases: [], rows: all }), 0)
      assert.strictEqual(yield* store.outbox.remove({ owner, leases, rows: all }), 1)
      assert.deepStrictEqual(yield* storedTexts(topic), ["five"])
    }))

  check("an owner whose lease went to another removes nothing more, under no epoch", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const store = yield* MessageStore
      yield* append(topic, 6, ["a", "b"])
      const frozen = yield* holding([6], Duration.millis(300))
      const all: readonly [StoredRow, ...Array<StoredRow>] = nonEmpty(yield* stored(topic))
      yield* askUntil(features, "part 6 to be free", store.leases.free, (free) => free.includes(6))
      const next = yield* holding([6])
      assert.strictEqual(yield* store.outbox.remove({ ...frozen, rows: all }), 0)
      assert.strictEqual(yield* store.outbox.remove({ owner: frozen.owner, leases: next.leases, rows: all }), 0)
      assert.strictEqual(yield* store.outbox.remove({ owner: next.owner, leases: frozen.leases, rows: all }), 0)
      assert.deepStrictEqual(yield* storedTexts(topic), ["a", "b"])
      assert.strictEqual(yield* store.outbox.remove({ ...next, rows: all }), 2)
    }))

  check(
    "every listener is woken after a commit, and after an append outside of a transaction",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanOutbox
        const store = yield* MessageStore
        const queues = [yield* store.outbox.wakeups, yield* store.outbox.wakeups]
        const woken = (what: string) =>
          Effect.forEach(queues, (queue) => within(Queue.takeAll(queue), 10_000, () => what), { discard: true })
        yield* store.transaction(append(topic, 1, ["a"]))
        yield* woken("a wake-up after a commit")
        yield* append(topic, 1, ["b"])
        yield* woken("a wake-up after an append")
      })
  )

  check(
    "nobody is woken before the commit, nor by a rollback, nor by a savepoint that rolled back",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanOutbox
        const store = yield* MessageStore
        const queue = yield* store.outbox.wakeups
        const quiet = Effect.map(Queue.size(queue), (size) => {
          // hints that come from elsewhere are allowed where they are shared
          if (features.wakeups === "exact") {
            assert.strictEqual(size, 0)
          }
        })
        yield* store.transaction(Effect.andThen(
          Effect.exit(store.transaction(Effect.andThen(append(topic, 1, ["dropped"]), Effect.fail("savepoint")))),
          quiet
        ))
        yield* quiet
        yield* Effect.exit(store.transaction(Effect.andThen(append(topic, 1, ["lost"]), Effect.fail("rollback"))))
        yield* quiet
        yield* store.transaction(Effect.andThen(append(topic, 1, ["kept"]), quiet))
        yield* within(Queue.take(queue), 10_000, () => "a wake-up after the commit")
        assert.deepStrictEqual(yield* storedTexts(topic), ["kept"])
      })
  )
}

const comparable = (row: OutboxRow) => ({
  part: row.part,
  messageKey: row.messageKey.toLowerCase(),
  topic: row.topic,
  key: row.key,
  headers: row.headers,
  payload: row.payload === null ? null : Array.from(row.payload)
})

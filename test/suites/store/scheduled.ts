/** Scheduled rows: they enter the outbox when they are due, in the order in which they are. */
import { assert } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type { ScheduledRow } from "../../../src/MessageStore.ts"
import { MessageStore } from "../../../src/MessageStore.ts"
import { askUntil, cases, within } from "../features.ts"
import type { It, StoreFeatures } from "../features.ts"
import { cleanOutbox, freshMessageKey, nonEmpty, stored, storedTexts, textOf } from "./support.ts"

const encoder = new TextEncoder()

const hour = 3_600_000

/** A topic without rows, scheduled ones included when the case ends. */
const cleanTopic = Effect.gen(function*() {
  const store = yield* MessageStore
  const topic = yield* cleanOutbox
  yield* Effect.addFinalizer(() =>
    Effect.orDie(Effect.flatMap(
      store.outbox.scheduled.list({ topic, limit: 10_000 }),
      (rows) => Effect.forEach(rows, ({ messageKey }) => store.outbox.scheduled.cancel(messageKey), { discard: true })
    ))
  )
  return topic
})

/** Schedules rows by their texts, so many milliseconds from now. */
const schedule = Effect.fnUntraced(function*(topic: string, rows: Readonly<Record<string, number>>) {
  const store = yield* MessageStore
  const now = yield* Clock.currentTimeMillis
  const made = yield* Effect.forEach(
    Object.entries(rows),
    ([text, millis]) =>
      Effect.map(freshMessageKey, (messageKey): ScheduledRow => ({
        part: 3,
        messageKey,
        topic,
        key: "k",
        headers: { text },
        payload: encoder.encode(text),
        dueMillis: now + millis
      }))
  )
  yield* store.outbox.scheduled.add(nonEmpty(made))
  return made
})

const list = (topic: string) => MessageStore.use((store) => store.outbox.scheduled.list({ topic, limit: 10_000 }))

const waiting = (topic: string) => Effect.map(list(topic), (rows) => rows.map(textOf))

/** Moves until nothing is due any more. */
const moveAll = Effect.gen(function*() {
  const store = yield* MessageStore
  let moved = 0
  for (
    let count = yield* store.outbox.scheduled.move(100);
    count > 0;
    count = yield* store.outbox.scheduled.move(100)
  ) {
    moved += count
  }
  return moved
})

export const scheduled = <R>(it: It<MessageStore | R>, features: StoreFeatures<R>): void => {
  const { check } = cases(it, features)

  check("a row waits until it is due, and then enters the outbox as it was", () =>
    Effect.gen(function*() {
      const topic = yield* cleanTopic
      const store = yield* MessageStore
      const [row] = yield* schedule(topic, { later: hour, soon: 300 })
      yield* moveAll
      assert.deepStrictEqual(yield* storedTexts(topic), [])
      yield* askUntil(features, "one to be due", moveAll, (count) => count === 1)
      assert.deepStrictEqual(yield* storedTexts(topic), ["soon"])
      const [left] = yield* list(topic)
      assert.deepStrictEqual(
        { ...left!, payload: Array.from(left!.payload!) },
        { ...row!, payload: Array.from(row!.payload!) }
      )
      assert.isTrue(yield* store.outbox.scheduled.cancel(row!.messageKey))
    }))

  check(
    "those that are due enter in the order in which they are due, and then in which they were added",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanTopic
        yield* schedule(topic, { c: -1_000, a: -3_000, d: -1_000, b: -2_000, z: hour })
        assert.deepStrictEqual(yield* waiting(topic), ["a", "b", "c", "d", "z"])
        assert.strictEqual(yield* moveAll, 4)
        assert.deepStrictEqual(yield* storedTexts(topic), ["a", "b", "c", "d"])
        const ids = (yield* stored(topic)).map(({ id }) => id)
        assert.deepStrictEqual(ids, [...ids].sort((a, b) => a < b ? -1 : 1))
        assert.deepStrictEqual(yield* waiting(topic), ["z"])
      })
  )

  check("many that are due at once all enter, in order, however few go at a time", () =>
    Effect.gen(function*() {
      const topic = yield* cleanTopic
      const texts = Array.from({ length: 1_200 }, (_, n) => `n-${n}`)
      yield* schedule(topic, Object.fromEntries(texts.map((text, n) => [text, n - 100_000])))
      const moves = yield* Effect.all([moveAll, moveAll, moveAll], { concurrency: "unbounded" })
      assert.strictEqual(moves.reduce((sum, moved) => sum + moved, 0), texts.length)
      assert.deepStrictEqual(yield* storedTexts(topic), texts)
    }))

  check("the next one's time is told", () =>
    Effect.gen(function*() {
      const topic = yield* cleanTopic
      const store = yield* MessageStore
      yield* moveAll
      assert.isUndefined(yield* store.outbox.scheduled.next)
      yield* schedule(topic, { later: hour, sooner: hour / 2 })
      const left = (yield* store.outbox.scheduled.next)!
      assert.isTrue(left > hour / 2 - 60_000 && left <= hour / 2, String(left))
      yield* schedule(topic, { overdue: -1_000 })
      assert.isTrue((yield* store.outbox.scheduled.next)! <= -1_000 + 60)
    }))

  check(
    "one that is cancelled never enters; one that is gone, or never was, is not there",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanTopic
        const store = yield* MessageStore
        const [a, b] = yield* schedule(topic, { a: -1_000, b: -1_000 })
        assert.isTrue(yield* store.outbox.scheduled.cancel(a!.messageKey))
        assert.isFalse(yield* store.outbox.scheduled.cancel(a!.messageKey))
        assert.strictEqual(yield* moveAll, 1)
        assert.isFalse(yield* store.outbox.scheduled.cancel(b!.messageKey))
        assert.deepStrictEqual(yield* storedTexts(topic), ["b"])
      })
  )

  check(
    "a schedule and a cancellation belong to their transaction, and wake the relays when it commits",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanTopic
        const store = yield* MessageStore
        const queue = yield* store.outbox.wakeups
        yield* Effect.flip(store.transaction(Effect.andThen(schedule(topic, { lost: hour }), Effect.fail("no"))))
        assert.deepStrictEqual(yield* waiting(topic), [])
        yield* store.transaction(schedule(topic, { kept: hour }))
        yield* within(Queue.take(queue), 10_000, () => "a wake-up after the commit")
        const [kept] = yield* list(topic)
        yield* Effect.flip(
          store.transaction(Effect.andThen(store.outbox.scheduled.cancel(kept!.messageKey), Effect.fail("no")))
        )
        assert.deepStrictEqual(yield* waiting(topic), ["kept"])
      })
  )
}

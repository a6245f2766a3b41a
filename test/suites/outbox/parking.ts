/** What the broker refuses: it is parked, others go on, and it comes back in order. */
import { assert } from "@effect/vitest"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { MessageStore } from "../../../src/MessageStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import * as Topic from "../../../src/Topic.ts"
import { created, type FrontFeatures, items, itemTopic, recordsOf, relay, type Services } from "../consumer/support.ts"
import { askUntil, cases, freshName, type It } from "../features.ts"

const Note = Schema.Struct({ key: Schema.NullOr(Schema.String), text: Schema.String })

const large = "0123456789abcdef".repeat(2_000)

export const parking = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  /** A topic whose broker takes less than its program sends. */
  const notes = Effect.flatMap(freshName("notes"), (name) =>
    created(Topic.make(name, {
      schema: Note,
      key: ({ key }) => key,
      create: { partitions: 1, config: { "max.message.bytes": "16000" } }
    })))

  type Notes = Effect.Success<typeof notes>

  const publish = (topic: Notes, ...texts: ReadonlyArray<readonly [key: string | null, text: string]>) =>
    Outbox.publishAll(topic, texts.map(([key, text]) => ({ key, text }))).pipe(Outbox.transaction)

  const parked = (topic: Topic.Any) => Stream.runCollect(Outbox.parked.list({ topic: topic.name }))

  const untilParked = (topic: Topic.Any, count: number) =>
    askUntil(features, `${count} parked`, parked(topic), (rows) => rows.length === count)

  const outboxOf = (topic: Topic.Any) =>
    MessageStore.use((store) =>
      Effect.map(
        store.outbox.read({ parts: [0, ...Array.from({ length: 63 }, (_, n) => n + 1)], limit: 10_000 }),
        (rows) => rows.filter((row) => row.topic === topic.name)
      )
    )

  const untilSent = (topic: Topic.Any) =>
    askUntil(features, "all to be sent", outboxOf(topic), (rows) => rows.length === 0)

  const textsOf = (topic: Notes) =>
    Effect.map(
      recordsOf(topic.name, 1),
      (records) =>
        records.map(({ value }) => (JSON.parse(Buffer.from(value!).toString()) as { readonly text: string }).text)
    )

  /** Forgets what the case has parked. */
  const forgetting = (topic: Topic.Any) =>
    Effect.addFinalizer(() => Effect.orDie(Outbox.parked.drop({ topic: topic.name })))

  check(
    "an event that is too large for the broker is parked with those behind it; other keys, and none, go on",
    () =>
      Effect.gen(function*() {
        const topic = yield* notes
        yield* forgetting(topic)
        yield* relay()
        const ids = yield* publish(
          topic,
          ["a", "a1"],
          ["b", "b1"],
          ["a", large],
          ["b", "b2"],
          ["a", "a3"],
          [null, "c1"],
          [null, large],
          [null, "c2"]
        )
        yield* untilParked(topic, 3)
        yield* untilSent(topic)
        // Behind it also when it comes later.
        const [a4] = yield* publish(topic, ["a", "a4"])
        yield* publish(topic, ["b", "b3"])
        yield* untilParked(topic, 4)
        yield* untilSent(topic)
        const rows = yield* parked(topic)
        assert.sameDeepMembers(
          rows.map(({ id, key, reason }) => [id, key, reason === null ? "behind" : "refused"]),
          [[ids[2], "a", "refused"], [ids[4], "a", "behind"], [a4, "a", "behind"], [ids[6], null, "refused"]]
        )
        for (const { reason } of rows) if (reason !== null) assert.include(reason, "max.message.bytes")
        const texts = yield* textsOf(topic)
        assert.deepStrictEqual([...texts].sort(), ["a1", "b1", "b2", "b3", "c1", "c2"])
        assert.deepStrictEqual(texts.filter((text) => text.startsWith("b")), ["b1", "b2", "b3"])
      })
  )

  check(
    "one that is made smaller and released goes, and those behind it after it, in order",
    () =>
      Effect.gen(function*() {
        const topic = yield* notes
        yield* forgetting(topic)
        yield* relay()
        const [, refused] = yield* publish(topic, ["a", "a1"], ["a", large], ["a", "a3"], ["a", "a4"])
        yield* untilParked(topic, 3)
        assert.isTrue(yield* Outbox.parked.edit(topic, refused!, { key: "a", text: "a2" }))
        assert.strictEqual(yield* Outbox.parked.release({ id: refused }), 3)
        yield* untilSent(topic)
        yield* untilParked(topic, 0)
        yield* publish(topic, ["a", "a5"])
        yield* untilSent(topic)
        assert.deepStrictEqual(yield* textsOf(topic), ["a1", "a2", "a3", "a4", "a5"])
      })
  )

  check(
    "one that is released as it is, is refused and parked again; nothing overtakes it",
    () =>
      Effect.gen(function*() {
        const topic = yield* notes
        yield* forgetting(topic)
        yield* relay()
        yield* publish(topic, ["a", "a1"], ["a", large], ["a", "a3"])
        yield* untilParked(topic, 2)
        assert.strictEqual(yield* Outbox.parked.release({ topic: topic.name }), 2)
        yield* untilSent(topic)
        yield* untilParked(topic, 2)
        assert.deepStrictEqual(yield* textsOf(topic), ["a1"])
      })
  )

  check("when it is dropped, those behind it go", () =>
    Effect.gen(function*() {
      const topic = yield* notes
      yield* forgetting(topic)
      yield* relay()
      const [refused] = yield* publish(topic, ["a", large], ["a", "a2"], ["a", "a3"])
      yield* untilParked(topic, 3)
      assert.strictEqual(yield* Outbox.parked.drop({ id: refused }), 1)
      yield* untilSent(topic)
      yield* untilParked(topic, 0)
      assert.deepStrictEqual(yield* textsOf(topic), ["a2", "a3"])
    }))

  check(
    "an edit that does not fit the topic is refused, and one of an event that is not there says so",
    () =>
      Effect.gen(function*() {
        const topic = yield* notes
        const tooLarge = yield* Effect.flip(
          Outbox.parked.edit(topic, "no-such-event", { key: "a", text: "x".repeat(2_000_000) })
        )
        assert.strictEqual(tooLarge.reason._tag, "PayloadTooLarge")
        assert.isFalse(yield* Outbox.parked.edit(topic, "no-such-event", { key: "a", text: "x" }))
        assert.strictEqual(yield* Outbox.parked.release({ id: "no-such-event" }), 0)
        assert.strictEqual(yield* Outbox.parked.drop({ id: "no-such-event" }), 0)
      })
  )

  check(
    "events whose topic stays missing are parked when patience ends, and go once it is there",
    () =>
      Effect.gen(function*() {
        const missing = itemTopic(yield* freshName("missing"), 1)
        yield* forgetting(missing)
        yield* relay({ patience: "1 second" })
        yield* Outbox.publishAll(missing, items(4, 2)).pipe(Outbox.transaction)
        const rows = yield* untilParked(missing, 4)
        for (const own of Object.values(Arr.groupBy(rows, ({ key }) => String(key)))) {
          assert.deepStrictEqual(own.map(({ reason }) => reason === null), [false, true])
        }
        assert.include(String(rows[0]!.reason), "does not exist")
        yield* created(missing)
        assert.strictEqual(yield* Outbox.parked.release({ topic: missing.name }), 4)
        yield* untilSent(missing)
        assert.strictEqual((yield* recordsOf(missing.name, 1)).length, 4)
      })
  )

  check("another relay takes over what is parked: it lets nothing overtake it", () =>
    Effect.gen(function*() {
      const topic = yield* notes
      yield* forgetting(topic)
      const first = yield* relay()
      yield* publish(topic, ["a", large], ["a", "a2"])
      yield* untilParked(topic, 2)
      yield* first.stop
      yield* publish(topic, ["a", "a3"], ["b", "b1"])
      yield* relay()
      yield* untilParked(topic, 3)
      yield* untilSent(topic)
      assert.deepStrictEqual(yield* textsOf(topic), ["b1"])
    }))
}

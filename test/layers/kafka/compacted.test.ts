/** A topic of which Kafka has really compacted a part away. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { Broker } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import { freshKafka } from "../../suites/consumer/kafka.ts"
import { Outside } from "../../suites/consumer/outside.ts"
import {
  type Call,
  callOf,
  created,
  freshGroup,
  Item,
  items,
  type ItemTopic,
  itemTopic,
  makeLog,
  member,
  numbers,
  publishAll,
  savingAtOnce,
  silent
} from "../../suites/consumer/support.ts"
import { askUntil, freshName } from "../../suites/features.ts"
import { requireOrSkip } from "../../support/services.ts"

const live = { clock: "live" } as const

/** Kept by key, compacted as soon as the broker comes to it; a segment ends with the next record. */
const config = {
  "cleanup.policy": "compact",
  "segment.ms": "100",
  "min.cleanable.dirty.ratio": "0.001",
  "max.compaction.lag.ms": "1000",
  "delete.retention.ms": "0"
}

const offsetsIn = (topic: ItemTopic) =>
  Effect.map(
    Stream.runCollect(Broker.use((broker) => Effect.succeed(broker.read(topic.name))).pipe(Stream.unwrap)),
    (chunks) => Array.from(chunks).flatMap(({ records }) => records.map(({ offset }) => offset))
  )

describe.skipIf(requireOrSkip("kafka"))("a compacted topic", () => {
  it.live(
    "is read to its end, from its start and from a position that is gone: the lag reaches 0",
    () =>
      Effect.gen(function*() {
        const outside = yield* Outside
        const name = yield* freshName("compacted")
        const topic = yield* created<typeof Item>({ ...itemTopic(name, 1), create: { partitions: 1, config } })
        const at = { topic: topic.name, partition: 0 }
        /** What a member of a group reads until its position is the end of the log. */
        const readToEnd = (group: string) =>
          Effect.gen(function*() {
            const end = yield* outside.end(at)
            const log = makeLog<Call>()
            const committed = outside.committed(group, at)
            yield* member(group, [
              Consumer.idempotent(topic, (event) => log.add(callOf(event)), { onFailure: savingAtOnce })
            ])
            yield* askUntil(live, `the position is ${end}`, committed, (offset) => offset === end)
            return numbers(log.all)
          }).pipe(Effect.scoped)

        const early = yield* freshGroup
        yield* publishAll(topic, items(8, 5))
        assert.strictEqual((yield* readToEnd(early)).length, 8)
        yield* publishAll(topic, items(42, 5, 8))
        // Only what lies in ended segments is compacted.
        const rolled = Effect.andThen(publishAll(topic, [new Item({ key: "last", n: 50 })]), offsetsIn(topic))
        const left = yield* askUntil(live, "most of it is compacted away", rolled, (offsets) => offsets[0]! >= 45n)

        const late = yield* freshGroup
        const [fromStart, fromGone] = [yield* readToEnd(late), yield* readToEnd(early)]
        assert.deepStrictEqual(fromStart.slice(0, 5), [45, 46, 47, 48, 49])
        assert.isAtMost(fromStart.length, left.length)
        assert.deepStrictEqual(fromGone.slice(0, 5), fromStart.slice(0, 5))
        assert.deepStrictEqual(yield* readToEnd(late), [])
      }).pipe(Effect.scoped, Effect.provide(Layer.merge(freshKafka, silent))),
    180_000
  )
})

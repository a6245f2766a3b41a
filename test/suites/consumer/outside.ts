/** What cases do to the broker from outside, as an operator would, and what they see of it. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { TopicPartition } from "../../../src/Broker.ts"
import * as Memory from "../../../src/Layers/Memory.ts"

export class Outside extends Context.Service<Outside, {
  readonly deleteTopic: (topic: string) => Effect.Effect<void>
  /** Raises the number of a topic's partitions to `count`. */
  readonly addPartitions: (topic: string, count: number) => Effect.Effect<void>
  /** Adds offsets without a record to be seen to the end of a partition; at least one. */
  readonly skipOffsets: (at: TopicPartition) => Effect.Effect<void>
  /** Ends the session of the group's only member, as if its heartbeats had stopped; it joins again. */
  readonly expire: (group: string) => Effect.Effect<void>
  /** A group's committed position; `undefined` before the first. */
  readonly committed: (group: string, at: TopicPartition) => Effect.Effect<bigint | undefined>
  /** The offset after the last one of a partition, whether that is a record or not. */
  readonly end: (at: TopicPartition) => Effect.Effect<bigint>
}>()("effect-events/test/Outside") {}

/** The in-memory broker, seen from outside. */
export const memoryOutside = Layer.effect(
  Outside,
  Effect.gen(function*() {
    const broker = yield* Memory.MemoryBroker
    const skipped = new Map<string, number>()
    const nameOf = ({ partition, topic }: TopicPartition) => `${topic}/${partition}`
    return Outside.of({
      deleteTopic: broker.deleteTopic,
      addPartitions: broker.addPartitions,
      skipOffsets: (at) =>
        Effect.suspend(() => {
          skipped.set(nameOf(at), (skipped.get(nameOf(at)) ?? 0) + 2)
          return broker.skipOffsets(at, 2)
        }),
      expire: (group) => broker.expire(group),
      committed: broker.committed,
      end: (at) =>
        Effect.map(
          broker.records(at.topic),
          (records) =>
            BigInt(
              records.filter(({ partition }) => partition === at.partition).length + (skipped.get(nameOf(at)) ?? 0)
            )
        )
    })
  })
)

/**
 * A broker that hands out records which somebody else makes, as fast as they
 * are taken: for what runs too long, or too fast, for the in-memory broker,
 * which keeps every record.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import { Broker, type ConsumerRecord, type TopicPartition } from "../../src/Broker.ts"
import * as Memory from "../../src/Layers/Memory.ts"

export interface Options {
  readonly partitions: number
  /** The records of a partition from an offset on, as many as come in one chunk; none: the partition has ended. */
  readonly next: (partition: number, from: number) => ReadonlyArray<ConsumerRecord>
  readonly onPause?: () => void
}

type Subscribe = Broker["Service"]["subscribe"]

const subscribe = ({ next, onPause, partitions }: Options): Subscribe =>
  Effect.fnUntraced(function*({ onSignal, topics }) {
    const assignments = Array.from({ length: partitions }, (_, partition) => ({
      topic: topics[0]!,
      partition,
      epoch: 1
    }))
    const open = assignments.map(() => Latch.makeUnsafe(true))
    const read = Effect.fnUntraced(function*(partition: number) {
      for (let from = 0;;) {
        yield* open[partition]!.await
        const records = next(partition, from)
        if (records.length === 0) return
        from += records.length
        yield* onSignal({
          _tag: "Records",
          assignment: assignments[partition]!,
          records,
          nextOffset: BigInt(from)
        })
      }
    })
    const each = (f: (latch: Latch.Latch) => void) => (paused: ReadonlyArray<TopicPartition>) =>
      Effect.sync(() => {
        for (const { partition } of paused) f(open[partition]!)
      })
    yield* onSignal({ _tag: "Assigned", assignments })
    yield* Effect.forEach(assignments, ({ partition }) => Effect.forkScoped(read(partition)), { discard: true })
    return {
      pause: (paused) => Effect.tap(each((latch) => latch.closeUnsafe())(paused), () => Effect.sync(() => onPause?.())),
      resume: each((latch) => latch.openUnsafe()),
      failed: Effect.never,
      commit: () => Effect.void
    }
  })

/** One member gets all partitions of the one topic that is subscribed to, from their beginning. */
export const layer = (options: Options): Layer.Layer<Broker> =>
  Layer.effect(Broker, Effect.map(Broker, (memory) => Broker.of({ ...memory, subscribe: subscribe(options) }))).pipe(
    Layer.provide(Memory.layerBroker)
  )

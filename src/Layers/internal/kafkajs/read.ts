/**
 * Owns the reading of a whole topic once, without a group: from the first
 * record of each partition to where it ended at the start.
 *
 * Invariant: each round either moves the position or ends the partition, so a
 * read ends.
 *
 * The insight: the end is the last stable offset, and a fetch that is
 * committed-only never goes beyond it. What compaction and retention take away
 * meanwhile only moves the position; a batch that compaction has emptied comes
 * without a record, and is passed offset by offset.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type * as Broker from "../../../Broker.ts"
import type { Cluster } from "./cluster.ts"
import { KafkaJsFailure, toBrokerError } from "./errors.ts"
import { read as readFetched } from "./fetchAnswer.ts"
import type { FetchedPartition } from "./internals.ts"
import { retryFor } from "./retry.ts"
import { physical, type Settings } from "./settings.ts"

const noPartition = new KafkaJsFailure({
  error: Object.assign(new Error("The topic or partition does not exist"), { type: "UNKNOWN_TOPIC_OR_PARTITION" })
})

interface Extent {
  readonly partition: number
  readonly begin: bigint
  readonly end: bigint
}

/** Reads a topic once; see `Broker.read`. */
export const read = (settings: Settings, cluster: Cluster): Broker.Broker["Service"]["read"] => (topic) => {
  const name = physical(settings, topic)

  const leaderOf = Effect.fnUntraced(function*(partition: number, notBefore: number) {
    const { partitions } = yield* cluster.describe(name, notBefore)
    const found = partitions.find(({ partitionId }) => partitionId === partition)
    if (found === undefined) return yield* noPartition
    return yield* cluster.node(found.leader)
  })

  /** Asks the leader; a failure asks for the leader anew. */
  const atLeader = <A>(
    clock: Clock.Clock,
    partition: number,
    call: (node: Effect.Success<ReturnType<typeof leaderOf>>) => Promise<A>
  ): Effect.Effect<A, KafkaJsFailure> => {
    let notBefore = clock.currentTimeMillisUnsafe() - settings.metadataMaxAge
    return Effect.suspend(() => leaderOf(partition, notBefore)).pipe(
      Effect.flatMap((node) => cluster.request(node, call)),
      Effect.tapError(() =>
        Effect.sync(() => {
          notBefore = clock.currentTimeMillisUnsafe()
        })
      ),
      retryFor(clock, settings)
    )
  }

  const offsetOf = (clock: Clock.Clock, partition: number, timestamp: -1 | -2) =>
    Effect.map(
      atLeader(clock, partition, (node) =>
        node.listOffsets({
          isolationLevel: 1,
          topics: [{ topic: name, partitions: [{ partition, timestamp }] }]
        })),
      (answer) => BigInt(answer.responses[0]!.partitions[0]!.offset)
    )

  const extents = Effect.fnUntraced(function*(clock: Clock.Clock) {
    const { partitions } = yield* retryFor(clock, settings)(
      Effect.suspend(() => cluster.describe(name, clock.currentTimeMillisUnsafe()))
    )
    if (partitions.length === 0) return yield* noPartition
    return yield* Effect.forEach(partitions, ({ partitionId: partition }) =>
      Effect.gen(function*() {
        const end = yield* offsetOf(clock, partition, -1)
        return { partition, begin: yield* offsetOf(clock, partition, -2), end } satisfies Extent
      }))
  })

  const fetch = (clock: Clock.Clock, partition: number, from: bigint) =>
    Effect.map(
      atLeader(clock, partition, (node) =>
        node.fetch({
          isolationLevel: 1,
          maxWaitTime: settings.maxWait,
          minBytes: 1,
          maxBytes: settings.maxBytes,
          rackId: "",
          topics: [{
            topic: name,
            partitions: [{ partition, fetchOffset: from.toString(), maxBytes: settings.maxBytesPerPartition }]
          }]
        })),
      (answer): FetchedPartition | undefined => answer.responses[0]?.partitions[0]
    )

  /** The records from `from` on, and where to go on; `undefined` where nothing was before the end. */
  const next = Effect.fnUntraced(function*(clock: Clock.Clock, { end, partition }: Extent, from: bigint) {
    const fetched = yield* fetch(clock, partition, from).pipe(
      Effect.catchIf((failure) => failure.type === "OFFSET_OUT_OF_RANGE", () => Effect.succeed(undefined))
    )
    if (fetched === undefined) {
      // Retention was faster, or the topic was made anew.
      const begin = yield* offsetOf(clock, partition, -2)
      return { records: [], nextOffset: begin > from ? begin : end }
    }
    const { nextOffset, records } = readFetched(fetched, from)
    return {
      records: records.filter(({ offset }) => offset < end),
      nextOffset: nextOffset > from ? nextOffset : from + 1n
    }
  })

  const readPartition = (clock: Clock.Clock, extent: Extent): Stream.Stream<Broker.Chunk, KafkaJsFailure> =>
    Stream.unfold(extent.begin, (from: bigint) =>
      from >= extent.end
        ? Effect.undefined
        : Effect.map(
          next(clock, extent, from),
          ({ nextOffset, records }) => [{ partition: extent.partition, records }, nextOffset] as const
        ))

  return Stream.unwrap(
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      const all = yield* extents(clock)
      return Stream.flatMap(Stream.fromIterable(all), (extent) => readPartition(clock, extent))
    })
  ).pipe(
    Stream.mapError((failure) =>
      toBrokerError(failure, {
        operation: "read a topic",
        address: settings.address,
        tried: "fetching",
        topic,
        right: "Read"
      })
    )
  )
}

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
import type { Cluster, Node, Place } from "./cluster.ts"
import { type KafkaFailure, protocolFailure, toBrokerError } from "./failure.ts"
import { visible } from "./recordBatch.ts"
import { retryFor } from "./retry.ts"
import { physical, type Settings } from "./settings.ts"

const noPartition = protocolFailure("UNKNOWN_TOPIC_OR_PARTITION", "The topic or partition does not exist", false)

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
    const found = partitions.find((candidate) => candidate.partition === partition)
    if (found === undefined) return yield* noPartition
    return yield* cluster.node(found.leader)
  })

  /** Asks the leader; a failure asks for the leader anew. */
  const atLeader = <A>(
    clock: Clock.Clock,
    partition: number,
    ask: (node: Node) => Effect.Effect<A, KafkaFailure>
  ): Effect.Effect<A, KafkaFailure> => {
    let notBefore = clock.currentTimeMillisUnsafe() - settings.metadataMaxAge
    return Effect.suspend(() => leaderOf(partition, notBefore)).pipe(
      Effect.flatMap(ask),
      Effect.tapError(() =>
        Effect.sync(() => {
          notBefore = clock.currentTimeMillisUnsafe()
        })
      ),
      retryFor(clock, settings)
    )
  }

  const offsetOf = (clock: Clock.Clock, partition: number, place: Place) =>
    atLeader(clock, partition, (node) => node.offsetOf({ topic: name, partition }, place))

  const extents = Effect.fnUntraced(function*(clock: Clock.Clock) {
    const { partitions } = yield* retryFor(clock, settings)(
      Effect.suspend(() => cluster.describe(name, clock.currentTimeMillisUnsafe()))
    )
    if (partitions.length === 0) return yield* noPartition
    return yield* Effect.forEach(partitions, ({ partition }) =>
      Effect.gen(function*() {
        const end = yield* offsetOf(clock, partition, "end")
        return { partition, begin: yield* offsetOf(clock, partition, "begin"), end } satisfies Extent
      }))
  })

  const fetch = (clock: Clock.Clock, partition: number, from: bigint) =>
    Effect.map(
      atLeader(clock, partition, (node) => node.fetch([{ topic: name, partition, offset: from }])),
      ([fetched]) => fetched?.records ?? []
    )

  /** The records from `from` on, and where to go on; `undefined` where nothing was before the end. */
  const next = Effect.fnUntraced(function*(clock: Clock.Clock, { end, partition }: Extent, from: bigint) {
    const fetched = yield* fetch(clock, partition, from).pipe(
      Effect.catchIf((failure) => failure.type === "OFFSET_OUT_OF_RANGE", () => Effect.succeed(undefined))
    )
    if (fetched === undefined) {
      // Retention was faster, or the topic was made anew.
      const begin = yield* offsetOf(clock, partition, "begin")
      return { records: [], nextOffset: begin > from ? begin : end }
    }
    const { nextOffset, records } = visible(fetched, from)
    return {
      records: records.filter(({ offset }) => offset < end),
      nextOffset: nextOffset > from ? nextOffset : from + 1n
    }
  })

  const readPartition = (clock: Clock.Clock, extent: Extent): Stream.Stream<Broker.Chunk, KafkaFailure> =>
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

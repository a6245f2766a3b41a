/**
 * Owns the fetches of a reader: from each broker what it leads, for as long as
 * somebody wants it.
 *
 * Invariant: a partition is in one fetch at a time, and in none while its
 * records are being taken; its position moves only by what was taken.
 *
 * The insights: a broker answers the requests of one connection one after
 * another, and a fetch may wait there for records. So a partition that is
 * wanted again while a fetch without it waits goes with a second one, and a
 * broker that is dead holds up nobody but itself. A leader that has been
 * replaced may answer late what the new one has answered already; such an
 * answer is dropped. A broker fills its answer in the order in which it was
 * asked, so a partition that brought records goes behind the others: else those
 * in front would be all that is read while they have more.
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type * as Broker from "../../../Broker.ts"
import type { Cluster, Fetched } from "./cluster.ts"
import { KafkaFailure } from "./failure.ts"
import { visible } from "./recordBatch.ts"
import { backOff } from "./retry.ts"

/** One partition that is read. */
export interface Position {
  /** Physical name. */
  readonly topic: string
  readonly partition: number
  /** The offset to read from. */
  next: bigint
  /** Below 0: none is known. */
  leader: number
  paused: boolean
  /** A fetch for it is under way, or its records are being taken. */
  busy: boolean
  /** Which turn it had last, as its broker's fetches count them; 0: none yet. */
  turn: number
}

export interface Options<P extends Position> {
  readonly cluster: Cluster
  readonly positions: () => Iterable<P>
  /** Takes what was fetched, and moves the position. Not called when there was nothing. */
  readonly take: (
    position: P,
    records: ReadonlyArray<Broker.ConsumerRecord>,
    nextOffset: bigint
  ) => Effect.Effect<void>
  /** The log has no such offset. The position is not fetched meanwhile. */
  readonly outOfRange: (position: P) => Effect.Effect<void, KafkaFailure>
  /** Looks for the leaders of topics anew, after a failure. */
  readonly refresh: (topics: ReadonlySet<string>, failure: KafkaFailure) => Effect.Effect<void>
}

export interface Fetching {
  /** To call when a position is new, moved, resumed or led by another broker. */
  readonly changed: () => void
}

/** So many fetches may wait at one broker. */
const lanesPerBroker = 2

/** The fetches at one broker. */
interface Lane<P extends Position> {
  readonly options: Options<P>
  readonly leader: number
  /** Counts what was brought, to tell whose turn is next. */
  turns: number
  /** Opens whenever there may be something to fetch here. */
  readonly latch: Latch.Latch
  /** Opens the latches of all lanes: what is free may be led by another broker by now. */
  readonly wake: () => void
  /** Runs beside the fetches. */
  readonly run: (effect: Effect.Effect<void>) => unknown
}

const readable = <P extends Position>({ leader, options }: Lane<P>): Array<P> =>
  Array.from(options.positions())
    .filter((position) => position.leader === leader && !position.paused && !position.busy)
    .sort((a, b) => a.turn - b.turn)

const free = <P extends Position>({ wake }: Lane<P>, positions: ReadonlyArray<P>): void => {
  for (const position of positions) position.busy = false
  wake()
}

/** Hands over what a fetch brought of one partition. */
const handOver = <P extends Position>(lane: Lane<P>, position: P, fetched: Fetched) =>
  Effect.suspend(() => {
    if (position.leader !== lane.leader || position.paused) return Effect.void
    const { nextOffset, records } = visible(fetched.records, position.next)
    if (nextOffset === position.next) return Effect.void
    position.turn = ++lane.turns
    return lane.options.take(position, records, nextOffset)
  }).pipe(Effect.ensuring(Effect.sync(() => free(lane, [position]))))

/** What a fetch of some partitions brought of each: records, or why not. */
const outcomes = <P extends Position>(
  positions: ReadonlyArray<P>,
  result: Result.Result<ReadonlyArray<Fetched>, KafkaFailure>
): ReadonlyArray<readonly [P, Fetched | KafkaFailure | undefined]> => {
  if (Result.isFailure(result)) return positions.map((position) => [position, result.failure])
  const found = new Map(result.success.map((fetched) => [`${fetched.topic}/${fetched.partition}`, fetched]))
  return positions.map((position) => {
    const fetched = found.get(`${position.topic}/${position.partition}`)
    return [position, fetched?.failure ?? fetched]
  })
}

const isOutOfRange = ([{ partition, topic }, { subject, type }]: readonly [Position, KafkaFailure]): boolean =>
  type === "OFFSET_OUT_OF_RANGE" && subject?.partition === partition && subject.topic === topic

/** Where the log has moved on, the position follows, which may take a while; who leads the others is asked anew. */
const recover = Effect.fnUntraced(function*<P extends Position>(
  lane: Lane<P>,
  failed: ReadonlyArray<readonly [P, KafkaFailure]>,
  failures: number
) {
  const { outOfRange, refresh } = lane.options
  const [lost, others] = Arr.partition(failed, (one) => isOutOfRange(one) ? Result.succeed(one) : Result.fail(one))
  for (const [position] of lost) {
    lane.run(Effect.ensuring(Effect.ignore(outOfRange(position)), Effect.sync(() => free(lane, [position]))))
  }
  yield* backOff(failures, 1_000)
  yield* refresh(new Set(failed.map(([{ topic }]) => topic)), failed[0]![1])
  free(lane, others.map(([position]) => position))
})

/** Fetches and hands over; `true` if all of it succeeded. */
const round = Effect.fnUntraced(
  function*<P extends Position>(lane: Lane<P>, positions: ReadonlyArray<P>, failures: number) {
    const wanted = positions.map(({ next, partition, topic }) => ({ topic, partition, offset: next }))
    const result = yield* Effect.result(
      Effect.flatMap(lane.options.cluster.node(lane.leader), (node) => node.fetch(wanted))
    )
    const failed: Array<readonly [P, KafkaFailure]> = []
    for (const [position, outcome] of outcomes(positions, result)) {
      if (outcome === undefined) free(lane, [position])
      else if (outcome instanceof KafkaFailure) failed.push([position, outcome])
      else lane.run(handOver(lane, position, outcome))
    }
    if (failed.length > 0) yield* recover(lane, failed, failures)
    return failed.length === 0
  }
)

const fetchFor = Effect.fnUntraced(function*<P extends Position>(lane: Lane<P>): Effect.fn.Return<never> {
  for (let failures = 0;;) {
    lane.latch.closeUnsafe()
    const positions = readable(lane)
    if (positions.length === 0) {
      yield* lane.latch.await
      // Several partitions are often freed together.
      yield* Effect.yieldNow
      continue
    }
    for (const position of positions) position.busy = true
    failures = (yield* round(lane, positions, failures)) ? 0 : failures + 1
  }
})

/** Fetches until the scope closes. */
export const make = Effect.fnUntraced(function*<P extends Position>(
  options: Options<P>
): Effect.fn.Return<Fetching, never, Scope.Scope> {
  const fetches = yield* FiberSet.make<never>()
  const run = yield* FiberSet.makeRuntime<never, void, never>()
  const start = yield* FiberSet.runtime(fetches)<never>()
  const latches = new Map<number, Latch.Latch>()
  const wake = () => latches.forEach((latch) => latch.openUnsafe())
  const changed = () => {
    for (const { leader } of options.positions()) {
      if (leader < 0 || latches.has(leader)) continue
      const lane: Lane<P> = { options, leader, turns: 0, latch: Latch.makeUnsafe(false), wake, run }
      latches.set(leader, lane.latch)
      for (let i = 0; i < lanesPerBroker; i++) start(fetchFor(lane))
    }
    wake()
  }
  return { changed }
})

/**
 * Owns reading without a group: every partition, from its end on.
 *
 * Invariant: a position moves only by what `onSignal` has taken, and outlives
 * every connection; so nothing is missed or repeated while the tail lives.
 *
 * The insight: a group of one would leave its name and offsets behind, and
 * resolve "latest" anew at each join, past what was published meanwhile. A
 * fetch needs no group.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Iterable from "effect/Iterable"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Broker from "../../../Broker.ts"
import type { Cluster, Place } from "./cluster.ts"
import { brokerError, toBrokerError, unknownTopic } from "./failure.ts"
import * as Fetching from "./fetching.ts"
import { retryFor } from "./retry.ts"
import { logical, physical, type Settings } from "./settings.ts"

/** One partition that is read. */
interface Position extends Fetching.Position {
  assignment: Broker.Assignment
  /** Time of the last record that was taken, else of the start; milliseconds since the epoch. */
  lastTime: number
  /** Its topic no longer exists. */
  gone: boolean
}

interface Reader {
  readonly settings: Settings
  readonly cluster: Cluster
  readonly clock: Clock.Clock
  readonly onSignal: (signal: Broker.Signal) => Effect.Effect<void>
  readonly positions: Map<string, Position>
  readonly mutex: Semaphore.Semaphore
  readonly fetching: Fetching.Fetching
  /** Physical names of the topics that still exist. */
  readonly topics: Set<string>
  epochs: number
}

/** A topic counts as deleted when the brokers have denied it for so long. */
const deletedAfter = 3_000
/** How far the clocks of producers may be apart. */
const clockSkew = 60_000
/** How long handlers may go on with records of a log that is gone. */
const drainWithin = Duration.seconds(30)
const keyOf = (topic: string, partition: number) => `${topic}/${partition}`

/** Where a partition begins or ends, or has its first record of a time or later (-1: none), as its leader says. */
const offsetOf = (reader: Reader, topic: string, partition: number, leader: number, place: Place) =>
  Effect.flatMap(reader.cluster.node(leader), (node) => node.offsetOf({ topic, partition }, place))

/** Takes up what is new in a topic, and where leaders are now. One at a time, so that nothing is taken up twice. */
const takeUp = (reader: Reader, topic: string, where: "begin" | "end", notBefore: number) =>
  reader.mutex.withPermit(takeUpAlone(reader, topic, where, notBefore))

const takeUpAlone = Effect.fnUntraced(function*(
  reader: Reader,
  topic: string,
  where: "begin" | "end",
  notBefore: number
) {
  const { partitions } = yield* reader.cluster.describe(topic, notBefore)
  for (const { leader, partition } of partitions) {
    const known = reader.positions.get(keyOf(topic, partition))
    if (known !== undefined) {
      known.leader = leader
      continue
    }
    const next = yield* offsetOf(reader, topic, partition, leader, where)
    const assignment = {
      topic: logical(reader.settings, topic),
      partition,
      epoch: ++reader.epochs
    }
    yield* reader.onSignal({ _tag: "Assigned", assignments: [assignment] })
    reader.positions.set(keyOf(topic, partition), {
      assignment,
      topic,
      partition,
      next,
      lastTime: reader.clock.currentTimeMillisUnsafe(),
      leader,
      paused: false,
      busy: false,
      turn: 0,
      gone: false
    })
  }
  reader.fetching.changed()
})

/** Hands over what a fetch brought of one partition. */
const take = (
  reader: Reader,
  position: Position,
  records: ReadonlyArray<Broker.ConsumerRecord>,
  nextOffset: bigint
) => {
  const { assignment } = position
  return Effect.map(reader.onSignal({ _tag: "Records", assignment, records, nextOffset }), () => {
    position.next = nextOffset
    position.lastTime = records.at(-1)?.timestamp ?? position.lastTime
  })
}

/**
 * A partition whose records were deleted below its position goes on where it
 * begins now. One that ends below its position was truncated, or its topic was
 * created anew and has been written to since: it goes on by time, and may
 * repeat what is younger than the allowed skew.
 */
const skipDeleted = Effect.fnUntraced(function*(reader: Reader, position: Position) {
  const { leader, partition, topic } = position
  const ask = (place: Place) => offsetOf(reader, topic, partition, leader, place)
  const begin = yield* ask("begin")
  const later = position.next < begin ? begin : yield* ask(position.lastTime - clockSkew)
  const next = later < 0n ? yield* ask("end") : later
  yield* Effect.annotateLogs(Effect.logWarning("Records were deleted before they were read"), {
    topic: position.assignment.topic,
    partition,
    from: position.next.toString(),
    to: next.toString()
  })
  if (next >= position.next) position.next = next
  else yield* grantAnew(reader, position, next)
})

/** Offsets never go back within a grant: the old one is given back first. */
const grantAnew = (reader: Reader, position: Position, next: bigint) =>
  Effect.gen(function*() {
    yield* reader.onSignal({ _tag: "Revoked", assignments: [position.assignment], within: drainWithin })
    position.assignment = { ...position.assignment, epoch: ++reader.epochs }
    position.next = next
    position.paused = false
    yield* reader.onSignal({ _tag: "Assigned", assignments: [position.assignment] })
  })

/** Follows leaders, added partitions and deleted topics; fails when no topic is left. */
const follow = Effect.fnUntraced(function*(reader: Reader) {
  const { clock, settings } = reader
  const deniedSince = new Map<string, number>()
  for (;;) {
    for (const topic of reader.topics) {
      const now = clock.currentTimeMillisUnsafe()
      const result = yield* Effect.result(takeUp(reader, topic, "begin", now - settings.metadataMaxAge))
      const denied = result._tag === "Failure" && unknownTopic(result.failure)
      if (!denied) deniedSince.delete(topic)
      else if (now - (deniedSince.get(topic) ?? now) >= deletedAfter) yield* giveUp(reader, topic)
      else if (!deniedSince.has(topic)) deniedSince.set(topic, now)
    }
    yield* Effect.sleep(deniedSince.size > 0 ? 1_000 : settings.metadataMaxAge)
  }
})

const giveUp = Effect.fnUntraced(function*(reader: Reader, topic: string) {
  reader.topics.delete(topic)
  for (const position of reader.positions.values()) {
    if (position.topic === topic) position.gone = true
  }
  const name = logical(reader.settings, topic)
  if (reader.topics.size === 0) return yield* brokerError(new Broker.UnknownTopic({ topic: name }))
  yield* Effect.annotateLogs(Effect.logError("A topic that is read no longer exists"), { topic: name })
})

/** Reads topics without a group, on a connection of its own; see `Broker.tail`. */
export const tail = (
  settings: Settings,
  connect: Effect.Effect<Cluster, never, Scope.Scope>
): Broker.Broker["Service"]["tail"] =>
  Effect.fnUntraced(function*(options) {
    const clock = yield* Clock.Clock
    const failed = yield* Deferred.make<never, Broker.BrokerError>()
    const cluster = yield* connect
    const positions = new Map<string, Position>()
    const fetching = yield* Fetching.make<Position>({
      cluster,
      positions: () => Iterable.filter(positions.values(), ({ gone }) => !gone),
      take: (position, records, nextOffset) => take(reader, position, records, nextOffset),
      outOfRange: (position) => skipDeleted(reader, position),
      refresh: (topics) => {
        const now = clock.currentTimeMillisUnsafe()
        return Effect.forEach(topics, (topic) => Effect.ignore(takeUp(reader, topic, "begin", now)), { discard: true })
      }
    })
    const reader: Reader = {
      settings,
      cluster,
      clock,
      onSignal: (signal) =>
        Effect.catchCause(options.onSignal(signal), (cause) =>
          Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : Effect.asVoid(Deferred.failCause(failed, cause))),
      positions,
      mutex: Semaphore.makeUnsafe(1),
      fetching,
      topics: new Set(options.topics.map((topic) =>
        physical(settings, topic)
      )),
      epochs: 0
    }
    for (const topic of reader.topics) {
      yield* Effect.suspend(() => takeUp(reader, topic, "end", clock.currentTimeMillisUnsafe() - 1_000)).pipe(
        retryFor(clock, settings),
        Effect.mapError((failure) =>
          toBrokerError(failure, {
            operation: "read a topic",
            address: settings.address,
            tried: "asking where it ends",
            topic: logical(settings, topic)
          })
        )
      )
    }
    const setPaused = (partitions: ReadonlyArray<Broker.TopicPartition>, paused: boolean) =>
      Effect.sync(() => {
        for (const { partition, topic } of partitions) {
          const position = reader.positions.get(keyOf(physical(settings, topic), partition))
          if (position !== undefined) position.paused = paused
        }
        fetching.changed()
      })
    yield* follow(reader).pipe(
      Effect.catchCause((cause) => Deferred.failCause(failed, cause)),
      Effect.forkScoped
    )
    return {
      failed: Deferred.await(failed),
      pause: (partitions) => setPaused(partitions, true),
      resume: (partitions) => setPaused(partitions, false)
    }
  })

/**
 * Owns reading without a group: every partition, from its end on.
 *
 * Invariant: a position moves only by what `onSignal` has taken, and outlives
 * every connection; so nothing is missed or repeated while the tail lives.
 *
 * The insight: a group of one would leave its name and offsets behind, and
 * resolve "latest" anew at each join, past what was published meanwhile. A
 * fetch needs no group. One fiber per broker fetches; a partition whose records
 * are still being taken is left out of the next fetch, so it holds up nobody.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberMap from "effect/FiberMap"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Semaphore from "effect/Semaphore"
import * as Broker from "../../../Broker.ts"
import * as Cluster from "./cluster.ts"
import { brokerError, type KafkaJsFailure, toBrokerError, unknownTopic } from "./errors.ts"
import { read } from "./fetchAnswer.ts"
import type { FetchedPartition, FetchRequest, Node } from "./internals.ts"
import { backOff, retryFor } from "./retry.ts"
import { logical, physical, type Settings } from "./settings.ts"

/** One partition that is read. */
interface Position {
  assignment: Broker.Assignment
  /** Physical name. */
  readonly topic: string
  next: bigint
  /** Time of the last record that was taken, else of the start; milliseconds since the epoch. */
  lastTime: number
  leader: number
  paused: boolean
  /** Its records are with the engine. */
  busy: boolean
  /** Its topic no longer exists. */
  gone: boolean
}

interface Reader {
  readonly settings: Settings
  readonly cluster: Cluster.Cluster
  readonly clock: Clock.Clock
  readonly onSignal: (signal: Broker.Signal) => Effect.Effect<void>
  readonly positions: Map<string, Position>
  readonly mutex: Semaphore.Semaphore
  /** Opens whenever a fetcher without work may have some. */
  readonly changed: Latch.Latch
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
const offsetOf = (reader: Reader, topic: string, partition: number, leader: number, where: "begin" | "end" | number) =>
  Effect.flatMap(reader.cluster.node(leader), (node) =>
    reader.cluster.request(node, (node) =>
      node.listOffsets({
        isolationLevel: 1,
        topics: [{
          topic,
          partitions: [{ partition, timestamp: where === "begin" ? -2 : where === "end" ? -1 : where }]
        }]
      }))).pipe(
      Effect.map((answer) => BigInt(answer.responses[0]!.partitions[0]!.offset))
    )

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
  for (const { leader, partitionId } of partitions) {
    const known = reader.positions.get(keyOf(topic, partitionId))
    if (known !== undefined) {
      known.leader = leader
      continue
    }
    const next = yield* offsetOf(reader, topic, partitionId, leader, where)
    const assignment = {
      topic: logical(reader.settings, topic),
      partition: partitionId,
      epoch: ++reader.epochs
    }
    yield* reader.onSignal({ _tag: "Assigned", assignments: [assignment] })
    const lastTime = reader.clock.currentTimeMillisUnsafe()
    const position = { assignment, topic, next, lastTime, leader, paused: false, busy: false, gone: false }
    reader.positions.set(keyOf(topic, partitionId), position)
  }
  reader.changed.openUnsafe()
})

const readable = (reader: Reader, leader: number): Array<Position> =>
  [...reader.positions.values()].filter((position) =>
    position.leader === leader && !position.paused && !position.busy && !position.gone
  )

const fetchRequest = (settings: Settings, positions: ReadonlyArray<Position>): FetchRequest => {
  const byTopic = new Map<string, Array<{ partition: number; fetchOffset: string; maxBytes: number }>>()
  for (const { assignment, next, topic } of positions) {
    const partitions = byTopic.get(topic) ?? []
    partitions.push({
      partition: assignment.partition,
      fetchOffset: next.toString(),
      maxBytes: settings.maxBytesPerPartition
    })
    byTopic.set(topic, partitions)
  }
  return {
    isolationLevel: 1,
    maxWaitTime: settings.maxWait,
    minBytes: 1,
    maxBytes: settings.maxBytes,
    rackId: "",
    topics: [...byTopic].map(([topic, partitions]) => ({ topic, partitions }))
  }
}

/** Hands over what a fetch brought for one partition. */
const handOver = (reader: Reader, position: Position, fetched: FetchedPartition) =>
  Effect.suspend(() => {
    const { nextOffset, records } = read(fetched, position.next)
    if (nextOffset === position.next || position.paused) return Effect.void
    const { assignment } = position
    return Effect.map(reader.onSignal({ _tag: "Records", assignment, records, nextOffset }), () => {
      position.next = nextOffset
      position.lastTime = records.at(-1)?.timestamp ?? position.lastTime
    })
  }).pipe(Effect.ensuring(Effect.sync(() => {
    position.busy = false
    reader.changed.openUnsafe()
  })))

/**
 * A partition whose records were deleted below its position goes on where it
 * begins now. One that ends below its position was truncated, or its topic was
 * created anew and has been written to since: it goes on by time, and may
 * repeat what is younger than the allowed skew.
 */
const skipDeleted = Effect.fnUntraced(function*(
  reader: Reader,
  failure: KafkaJsFailure,
  run: (effect: Effect.Effect<void>) => unknown
) {
  const subject = failure.subject
  const position = subject === undefined ? undefined : reader.positions.get(keyOf(subject.topic, subject.partition))
  if (position === undefined) return
  const ask = (where: "begin" | "end" | number) =>
    offsetOf(reader, position.topic, position.assignment.partition, position.leader, where)
  const begin = yield* ask("begin")
  const later = position.next < begin ? begin : yield* ask(position.lastTime - clockSkew)
  const next = later < 0n ? yield* ask("end") : later
  yield* Effect.annotateLogs(Effect.logWarning("Records were deleted before they were read"), {
    topic: position.assignment.topic,
    partition: position.assignment.partition,
    from: position.next.toString(),
    to: next.toString()
  })
  if (next >= position.next) {
    position.next = next
    return
  }
  position.busy = true
  run(grantAnew(reader, position, next))
})

/** Offsets never go back within a grant: the old one is given back first. */
const grantAnew = (reader: Reader, position: Position, next: bigint) =>
  Effect.gen(function*() {
    yield* reader.onSignal({ _tag: "Revoked", assignments: [position.assignment], within: drainWithin })
    position.assignment = { ...position.assignment, epoch: ++reader.epochs }
    position.next = next
    position.paused = false
    yield* reader.onSignal({ _tag: "Assigned", assignments: [position.assignment] })
  }).pipe(Effect.ensuring(Effect.sync(() => {
    position.busy = false
    reader.changed.openUnsafe()
  })))

/** Fetches from one broker what it leads, for as long as it leads something. */
const fetchFrom = Effect.fnUntraced(function*(
  reader: Reader,
  leader: number,
  run: (effect: Effect.Effect<void>) => unknown
) {
  const { clock, cluster, settings } = reader
  const once = Effect.fnUntraced(function*(node: Node, positions: ReadonlyArray<Position>) {
    const answer = yield* cluster.request(node, (node) => node.fetch(fetchRequest(settings, positions)))
    for (const { partitions, topicName } of answer.responses) {
      for (const fetched of partitions) {
        const position = reader.positions.get(keyOf(topicName, fetched.partition))
        if (position === undefined || fetched.messages.length === 0) continue
        // A leader that has been replaced may answer late what the new one has answered already.
        if (position.busy || position.leader !== leader) continue
        position.busy = true
        run(handOver(reader, position, fetched))
      }
    }
  })
  for (let failures = 0;;) {
    reader.changed.closeUnsafe()
    const positions = readable(reader, leader)
    if (positions.length === 0) {
      yield* reader.changed.await
      continue
    }
    const result = yield* Effect.result(Effect.flatMap(cluster.node(leader), (node) => once(node, positions)))
    if (result._tag === "Success") {
      failures = 0
      continue
    }
    const failure = result.failure
    if (failure.type === "OFFSET_OUT_OF_RANGE") yield* Effect.ignore(skipDeleted(reader, failure, run))
    yield* backOff(failures++, 1_000)
    const now = clock.currentTimeMillisUnsafe()
    for (const topic of new Set(positions.map((position) => position.topic))) {
      yield* Effect.ignore(takeUp(reader, topic, "begin", now))
    }
  }
})

/** Follows leaders, added partitions and deleted topics; fails when no topic is left. */
const follow = Effect.fnUntraced(function*(
  reader: Reader,
  fetchers: FiberMap.FiberMap<number>,
  run: (effect: Effect.Effect<void>) => unknown
) {
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
    for (const { gone, leader } of reader.positions.values()) {
      if (!gone) yield* FiberMap.run(fetchers, leader, fetchFrom(reader, leader, run), { onlyIfMissing: true })
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

/** Reads topics without a group; see `Broker.tail`. */
export const tail = (settings: Settings): Broker.Broker["Service"]["tail"] =>
  Effect.fnUntraced(function*(options) {
    const clock = yield* Clock.Clock
    const failed = yield* Deferred.make<never, Broker.BrokerError>()
    const reader: Reader = {
      settings,
      cluster: yield* Cluster.make(settings),
      clock,
      onSignal: (signal) =>
        Effect.catchCause(options.onSignal(signal), (cause) =>
          Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : Effect.asVoid(Deferred.failCause(failed, cause))),
      positions: new Map(),
      mutex: Semaphore.makeUnsafe(1),
      changed: Latch.makeUnsafe(false),
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
    const fetchers = yield* FiberMap.make<number>()
    const run = yield* FiberSet.makeRuntime<never, void, never>()
    const setPaused = (partitions: ReadonlyArray<Broker.TopicPartition>, paused: boolean) =>
      Effect.sync(() => {
        for (const { partition, topic } of partitions) {
          const position = reader.positions.get(keyOf(physical(settings, topic), partition))
          if (position !== undefined) position.paused = paused
        }
        reader.changed.openUnsafe()
      })
    yield* follow(reader, fetchers, run).pipe(
      Effect.catchCause((cause) => Deferred.failCause(failed, cause)),
      Effect.forkScoped
    )
    return {
      failed: Deferred.await(failed),
      pause: (partitions) => setPaused(partitions, true),
      resume: (partitions) => setPaused(partitions, false)
    }
  })

/**
 * Owns sending: one lane per partition, each with a producer id and a sequence
 * of its own.
 *
 * Invariant: a sequence number is used for one batch only. A batch that may
 * have reached the broker is sent again unchanged, or the lane gives up its
 * producer id.
 *
 * The insight: clients' own producers lose acknowledged batches. KafkaJS reuses
 * the sequence of a failed batch for the next, different one, and the broker
 * answers "duplicate, fine"; Platformatic does so when several sends are under
 * way, and sends a batch for several partitions again to the leader of the
 * first of them only. So the loop is ours, on the bare request: one partition,
 * the same bytes and the same sequence until there is an answer.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Broker from "../../../Broker.ts"
import type { Cluster, Description, Node, ProducerIdentity } from "./cluster.ts"
import { brokerError, type KafkaFailure, protocolFailure, toBrokerError, unknownTopic } from "./failure.ts"
import { backOff, retryWithin } from "./retry.ts"
import { physical, type Settings } from "./settings.ts"

interface Identity extends ProducerIdentity {
  sequence: number
}

/** A partition's way into the log. `identity` is given up with every failed batch. */
interface Lane {
  readonly mutex: Semaphore.Semaphore
  identity: Identity | undefined
}

/** One call of `send` while it tries. */
interface Batch {
  readonly topic: string
  readonly partition: number
  readonly records: ReadonlyArray<Broker.ProducerRecord>
  /** Where a request of this batch is under way now. */
  at: Node | undefined
  /** An earlier request of this batch may have been written. */
  maybeWritten: boolean
  /** Since when the brokers say that the topic does not exist. */
  unknownSince: number | undefined
}

type Verdict = "Again" | "Written" | "FreshIdentity" | "GiveUp"

const lostSequence = new Set([
  "OUT_OF_ORDER_SEQUENCE_NUMBER",
  "UNKNOWN_PRODUCER_ID",
  "INVALID_PRODUCER_EPOCH",
  "INVALID_PRODUCER_ID_MAPPING"
])

/** A broker that fails to answer, for a reason that it does not know. The same bytes can do no harm. */
const brokerFailed = "UNKNOWN_SERVER_ERROR"

/** What an answer, or its absence, means for a batch. Pure. */
export const judge = (failure: KafkaFailure, maybeWritten: boolean): Verdict => {
  const type = failure.type
  if (type === "DUPLICATE_SEQUENCE_NUMBER") return maybeWritten ? "Written" : "FreshIdentity"
  if (type !== undefined && lostSequence.has(type)) return maybeWritten ? "GiveUp" : "FreshIdentity"
  return failure.transient || type === brokerFailed ? "Again" : "GiveUp"
}

/** Whether a request that ended like this may still have been written. */
const leavesDoubt = (failure: KafkaFailure): boolean =>
  failure.type === undefined && !failure.unsent || failure.type === "REQUEST_TIMED_OUT" ||
  failure.type === "NOT_ENOUGH_REPLICAS_AFTER_APPEND" || failure.type === "NETWORK_EXCEPTION" ||
  failure.type === brokerFailed

const unknownTopicGrace = 2_000
const rangeOfSequences = 2 ** 31

const noSuchTopic = protocolFailure("UNKNOWN_TOPIC_OR_PARTITION", "The topic does not exist", true)
const noLeader = protocolFailure("LEADER_NOT_AVAILABLE", "The partition has no leader", true)

class NoSuchPartition {
  readonly _tag = "NoSuchPartition"
}

interface Sender {
  readonly settings: Settings
  readonly cluster: Cluster
  readonly now: () => number
  readonly lanes: Map<string, Lane>
}

const laneOf = ({ lanes }: Sender, topic: string, partition: number): Lane => {
  const key = `${topic}/${partition}`
  const lane = lanes.get(key) ?? { mutex: Semaphore.makeUnsafe(1), identity: undefined }
  lanes.set(key, lane)
  return lane
}

/** The broker that leads the batch's partition, as of `notBefore`. */
const leaderOf = Effect.fnUntraced(function*({ cluster, now }: Sender, batch: Batch, notBefore: number) {
  const find = (description: Description) =>
    description.partitions.find((candidate) => candidate.partition === batch.partition)
  const started = now()
  const found = find(yield* cluster.describe(batch.topic, notBefore)) ??
    find(yield* cluster.describe(batch.topic, started))
  if (found === undefined) return yield* Effect.fail(new NoSuchPartition())
  if (found.leader < 0) return yield* noLeader
  return yield* cluster.node(found.leader)
})

const identify = (lane: Lane, node: Node): Effect.Effect<Identity, KafkaFailure> =>
  lane.identity !== undefined
    ? Effect.succeed(lane.identity)
    : Effect.map(node.initProducerId, (identity) => lane.identity = { ...identity, sequence: 0 })

/** One request, and the offset that it was answered with. */
const produce = Effect.fnUntraced(function*(sender: Sender, lane: Lane, batch: Batch, node: Node) {
  const { partition, records, topic } = batch
  const identity = yield* identify(lane, node)
  batch.at = node
  return yield* node.produce({
    topic,
    partition,
    identity,
    sequence: identity.sequence,
    records,
    // The broker gives up waiting for replicas before we give up waiting for it.
    timeout: Math.max(1_000, sender.settings.requestTimeout - 2_000)
  })
})

/** The next batch of the lane follows this one. */
const settle = (lane: Lane, batch: Batch): void => {
  batch.at = undefined
  if (lane.identity === undefined) return
  lane.identity.sequence = (lane.identity.sequence + batch.records.length) % rangeOfSequences
}

/** Notes a failure on the batch, and says whether its topic is gone for good. */
const note = (batch: Batch, failure: KafkaFailure, now: number): boolean => {
  if (batch.at !== undefined && leavesDoubt(failure)) batch.maybeWritten = true
  batch.at = undefined
  batch.unknownSince = unknownTopic(failure) ? batch.unknownSince ?? now : undefined
  return batch.unknownSince !== undefined && now - batch.unknownSince >= unknownTopicGrace
}

/** Tries until there is an answer that settles the batch. Ends by success, by refusal, or by interruption. */
const tryUntilSettled = Effect.fnUntraced(function*(sender: Sender, lane: Lane, batch: Batch) {
  let notBefore = sender.now() - sender.settings.metadataMaxAge
  for (let tries = 0;; tries++) {
    const result = yield* Effect.result(
      Effect.flatMap(leaderOf(sender, batch, notBefore), (node) => produce(sender, lane, batch, node))
    )
    if (result._tag === "Success") {
      settle(lane, batch)
      return result.success
    }
    const failure = result.failure
    if (failure instanceof NoSuchPartition) return yield* Effect.fail(failure)
    const verdict = judge(failure, batch.maybeWritten)
    if (note(batch, failure, sender.now())) return yield* failure
    switch (verdict) {
      case "Written":
        settle(lane, batch)
        return -1n
      case "GiveUp":
        return yield* failure
      case "FreshIdentity":
        lane.identity = undefined
        yield* backOff(tries, 1_000)
        break
      case "Again":
        notBefore = sender.now()
        yield* backOff(tries, 1_000)
    }
  }
})

/** No request of the batch leaves any more, and none of its sequence is used again. */
const tearDown = (lane: Lane, batch: Batch) =>
  Effect.suspend(() => {
    lane.identity = undefined
    return batch.at === undefined ? Effect.void : batch.at.hangUp
  })

const send = (sender: Sender): Broker.Producer["send"] => (options) =>
  Effect.suspend(() => {
    const { partition, records, timeout } = options
    const topic = physical(sender.settings, options.topic)
    const lane = laneOf(sender, topic, partition)
    const batch: Batch = { topic, partition, records, at: undefined, maybeWritten: false, unknownSince: undefined }
    return tryUntilSettled(sender, lane, batch).pipe(
      Effect.onError(() => tearDown(lane, batch)),
      Effect.mapError((failure) => reasonOf(sender.settings, options, batch, failure)),
      Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.fail(unknownResult(options, batch)) }),
      Semaphore.withPermit(lane.mutex)
    )
  })

/**
 * The number of partitions of a topic, without a step of a fiber while it was
 * heard of lately. While no broker answers, what was heard before holds; if
 * nothing was, it waits for one: the caller has the deadline.
 */
const partitionsOf = ({ cluster, settings }: Sender, clock: Clock.Clock): Broker.Producer["partitions"] => (topic) => {
  const name = physical(settings, topic)
  const oldest = () => clock.currentTimeMillisUnsafe() - settings.metadataMaxAge
  const lately = cluster.known(name)
  if (lately !== undefined && lately.partitions.length > 0 && lately.at >= oldest()) {
    return Effect.succeed(lately.partitions.length)
  }
  return Effect.suspend(() => cluster.describe(name, oldest())).pipe(
    Effect.catch((failure) => {
      const known = failure.transient && !unknownTopic(failure) ? cluster.known(name) : undefined
      return known === undefined ? Effect.fail(failure) : Effect.succeed(known)
    }),
    Effect.flatMap(({ partitions }) =>
      partitions.length === 0 ? Effect.fail(noSuchTopic) : Effect.succeed(partitions.length)
    ),
    retryWithin(clock, Infinity),
    Effect.mapError((failure) =>
      toBrokerError(failure, { operation: "describe a topic", address: settings.address, tried: "metadata", topic })
    )
  )
}

/** A producer with a connection of its own, closed with the scope. */
export const make = Effect.fnUntraced(function*(
  settings: Settings,
  connect: Effect.Effect<Cluster, never, Scope.Scope>
): Effect.fn.Return<Broker.Producer, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const cluster = yield* connect
  const sender: Sender = { settings, cluster, now: () => clock.currentTimeMillisUnsafe(), lanes: new Map() }
  return { partitions: partitionsOf(sender, clock), send: send(sender) }
})

type Sending = Parameters<Broker.Producer["send"]>[0]

const unknownResult = (options: Sending, batch: Batch): Broker.BrokerError =>
  brokerError(
    new Broker.ResultUnknown({
      topic: options.topic,
      partition: options.partition,
      detail: batch.maybeWritten || batch.at !== undefined
        ? `no answer within ${Duration.format(options.timeout)}`
        : `no broker took it within ${Duration.format(options.timeout)}`
    })
  )

/** Roughly the bytes that a record takes. */
const sizeOf = (record: Broker.ProducerRecord): number => {
  let bytes = (record.key?.length ?? 0) + (record.value?.byteLength ?? 0) + 10
  for (const [name, value] of Object.entries(record.headers)) {
    if (value === undefined) continue
    const values = typeof value === "string" || value instanceof Uint8Array ? [value] : value
    for (const one of values) bytes += name.length + one.length + 2
  }
  return bytes
}

const reasonOf = (
  settings: Settings,
  options: Sending,
  batch: Batch,
  failure: KafkaFailure | NoSuchPartition
): Broker.BrokerError => {
  const { partition, topic } = options
  if (failure instanceof NoSuchPartition) return brokerError(new Broker.UnknownTopic({ topic, partition }))
  const type = failure.type
  if (type === "MESSAGE_TOO_LARGE" || type === "RECORD_LIST_TOO_LARGE") {
    const bytes = options.records.reduce((sum, record) => sum + sizeOf(record), 0)
    return brokerError(new Broker.TooLarge({ topic, bytes, detail: failure.detail }))
  }
  if (unknownTopic(failure)) return brokerError(new Broker.UnknownTopic({ topic }))
  return batch.maybeWritten
    ? brokerError(new Broker.ResultUnknown({ topic, partition, detail: failure.detail }))
    : toBrokerError(failure, { operation: "publish", address: settings.address, tried: "publishing", topic })
}

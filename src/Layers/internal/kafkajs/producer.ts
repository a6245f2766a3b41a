/**
 * Owns sending: one lane per partition, each with a producer id and a sequence
 * of its own.
 *
 * Invariant: a sequence number is used for one batch only. A batch that may
 * have reached the broker is sent again unchanged, or the lane gives up its
 * producer id.
 *
 * The insight: KafkaJS's own producer reuses the sequence of a failed batch
 * for the next, different one, and the broker answers "duplicate, fine": the
 * batch is acknowledged and lost. It also skips brokers that have answered
 * earlier in the same send, and gives up after 65 s behind its lock per
 * broker. So the loop is ours, on `broker.produce`: one partition per request,
 * the same bytes and the same sequence until there is an answer.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Broker from "../../../Broker.ts"
import * as Cluster from "./cluster.ts"
import { brokerError, KafkaJsFailure, toBrokerError, unknownTopic } from "./errors.ts"
import type { Node, ProducerIdentity, WireMessage } from "./internals.ts"
import { sizeOf, toWire } from "./records.ts"
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
  readonly messages: ReadonlyArray<WireMessage>
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
const brokerFailed = "UNKNOWN"

/** What an answer, or its absence, means for a batch. Pure. */
export const judge = (failure: KafkaJsFailure, maybeWritten: boolean): Verdict => {
  const type = failure.type
  if (type === "DUPLICATE_SEQUENCE_NUMBER") return maybeWritten ? "Written" : "FreshIdentity"
  if (type !== undefined && lostSequence.has(type)) return maybeWritten ? "GiveUp" : "FreshIdentity"
  return failure.transient || type === brokerFailed ? "Again" : "GiveUp"
}

/** Whether a request that ended like this may still have been written. */
const leavesDoubt = (failure: KafkaJsFailure): boolean =>
  failure.type === undefined && !failure.unsent || failure.type === "REQUEST_TIMED_OUT" ||
  failure.type === "NOT_ENOUGH_REPLICAS_AFTER_APPEND" || failure.type === "NETWORK_EXCEPTION" ||
  failure.type === brokerFailed

const unknownTopicGrace = 2_000
const rangeOfSequences = 2 ** 31

const noSuchTopic = new KafkaJsFailure({
  error: Object.assign(new Error("The topic does not exist"), { type: "UNKNOWN_TOPIC_OR_PARTITION", retriable: true })
})
const noLeader = new KafkaJsFailure({
  error: Object.assign(new Error("The partition has no leader"), { type: "LEADER_NOT_AVAILABLE", retriable: true })
})
const noResult = new KafkaJsFailure({
  error: Object.assign(new Error("The answer does not cover the partition"), {
    type: "NETWORK_EXCEPTION",
    retriable: true
  })
})

class NoSuchPartition {
  readonly _tag = "NoSuchPartition"
}

interface Sender {
  readonly settings: Settings
  readonly cluster: Cluster.Cluster
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
  const find = (description: Cluster.Description) =>
    description.partitions.find((candidate) => candidate.partitionId === batch.partition)
  const started = now()
  const found = find(yield* cluster.describe(batch.topic, notBefore)) ??
    find(yield* cluster.describe(batch.topic, started))
  if (found === undefined) return yield* Effect.fail(new NoSuchPartition())
  if (found.leader < 0) return yield* noLeader
  return yield* cluster.node(found.leader)
})

const identify = Effect.fnUntraced(function*({ cluster }: Sender, lane: Lane, node: Node) {
  if (lane.identity !== undefined) return lane.identity
  const { producerEpoch, producerId } = yield* cluster.request(
    node,
    (node) => node.initProducerId({ transactionTimeout: 60_000 })
  )
  lane.identity = { producerEpoch, producerId, sequence: 0 }
  return lane.identity
})

/** One request, and the offset that it was answered with. */
const produce = Effect.fnUntraced(function*(sender: Sender, lane: Lane, batch: Batch, node: Node) {
  const { messages, partition, topic } = batch
  const { producerEpoch, producerId, sequence } = yield* identify(sender, lane, node)
  const request = {
    acks: -1,
    // The broker gives up waiting for replicas before we give up waiting for it.
    timeout: Math.max(1_000, sender.settings.requestTimeout - 2_000),
    producerId,
    producerEpoch,
    topicData: [{ topic, partitions: [{ partition, firstSequence: sequence, messages }] }]
  } as const
  batch.at = node
  const response = yield* sender.cluster.request(node, (node) => node.produce(request))
  const result = response.topics.find((candidate) => candidate.topicName === topic)
    ?.partitions.find((candidate) => candidate.partition === partition)
  if (result?.baseOffset === undefined) return yield* noResult
  return BigInt(result.baseOffset)
})

/** The next batch of the lane follows this one. */
const settle = (lane: Lane, batch: Batch): void => {
  batch.at = undefined
  if (lane.identity === undefined) return
  lane.identity.sequence = (lane.identity.sequence + batch.messages.length) % rangeOfSequences
}

/** Notes a failure on the batch, and says whether its topic is gone for good. */
const note = (batch: Batch, failure: KafkaJsFailure, now: number): boolean => {
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
const tearDown = ({ cluster }: Sender, lane: Lane, batch: Batch) =>
  Effect.suspend(() => {
    lane.identity = undefined
    return batch.at === undefined ? Effect.void : cluster.hangUp(batch.at)
  })

const send = (sender: Sender): Broker.Producer["send"] => (options) =>
  Effect.suspend(() => {
    const { partition, records, timeout } = options
    const topic = physical(sender.settings, options.topic)
    const lane = laneOf(sender, topic, partition)
    const messages = records.map(toWire)
    const batch: Batch = { topic, partition, messages, at: undefined, maybeWritten: false, unknownSince: undefined }
    return tryUntilSettled(sender, lane, batch).pipe(
      Effect.onError(() => tearDown(sender, lane, batch)),
      Effect.mapError((failure) => reasonOf(sender.settings, options, batch, failure)),
      Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.fail(unknownResult(options, batch)) }),
      Semaphore.withPermit(lane.mutex)
    )
  })

/**
 * The number of partitions of a topic. While no broker answers, what was heard
 * before holds; if nothing was, it waits for one: the caller has the deadline.
 */
const partitionsOf = ({ cluster, settings }: Sender, clock: Clock.Clock): Broker.Producer["partitions"] => (topic) =>
  Effect.suspend(() =>
    cluster.describe(physical(settings, topic), clock.currentTimeMillisUnsafe() - settings.metadataMaxAge)
  ).pipe(
    Effect.catch((failure) => {
      const known = failure.transient && !unknownTopic(failure) ? cluster.known(physical(settings, topic)) : undefined
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

/** A producer with a connection of its own, closed with the scope. */
export const make = Effect.fnUntraced(function*(
  settings: Settings
): Effect.fn.Return<Broker.Producer, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const cluster = yield* Cluster.make(settings)
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

const reasonOf = (
  settings: Settings,
  options: Sending,
  batch: Batch,
  failure: KafkaJsFailure | NoSuchPartition
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

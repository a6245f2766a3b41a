/**
 * Owns one KafkaJS consumer from its first join to its end: what KafkaJS calls
 * or emits becomes a change of the grants.
 *
 * Invariant: nothing thrown here reaches KafkaJS, except to make it join again.
 *
 * The insight: KafkaJS says when it has joined (an event) but not when it lets
 * go, and a `resolveOffset` that comes late moves the position of a later
 * generation, past records that nobody has read. So each batch is measured
 * against the grant under which it came.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import type { Consumer, EachBatchPayload } from "kafkajs"
import type * as Broker from "../../../Broker.ts"
import type * as Commits from "../kafka/commits.ts"
import { type KafkaFailure, noAnswer } from "../kafka/failure.ts"
import type { FetchedRecord } from "../kafka/recordBatch.ts"
import { logical, physical, type Settings } from "../kafka/settings.ts"
import * as Assigner from "./assigner.ts"
import * as Connection from "./connection.ts"
import * as Coordinator from "./coordinator.ts"
import { attempt, failureOf } from "./errors.ts"
import * as FetchAnswer from "./fetchAnswer.ts"
import * as Grants from "./grants.ts"
import type { Network, TopicOffsets } from "./internals.ts"

/** What the watch over a membership looks at. */
export interface Vitals {
  readonly state: Grants.Grants["state"]["_tag"]
  /** When the state began, or KafkaJS last fetched. */
  readonly lastActivity: number
  readonly lastContact: number
  readonly delivering: boolean
}

export interface Membership {
  /** Succeeds with the first join. */
  readonly joined: Effect.Effect<void>
  /** Fails when KafkaJS has given up. */
  readonly crashed: Effect.Effect<never, KafkaFailure>
  readonly vitals: () => Vitals
  /** Whether the session cannot be over yet. */
  readonly trusted: () => boolean
  /** Tells the coordinator that this member lives, for at most a second. */
  readonly keepAlive: Effect.Effect<void>
  /** The topics that were deleted and created again since they were granted; none without an answer in a second. */
  readonly replaced: Effect.Effect<ReadonlyArray<string>>
  /** Ends all grants as lost and lets KafkaJS join anew. */
  readonly lose: Effect.Effect<void>
  readonly pause: (partitions: ReadonlyArray<Broker.TopicPartition>) => void
  readonly resume: (partitions: ReadonlyArray<Broker.TopicPartition>) => void
  readonly commit: (
    positions: ReadonlyArray<Broker.Position>
  ) => Effect.Effect<Commits.Outcome, KafkaFailure>
}

export interface Options {
  readonly settings: Settings
  readonly group: string
  /** Physical names. */
  readonly topics: ReadonlyArray<string>
  /** Index of the broker to try first. */
  readonly first: number
  readonly nextEpoch: () => number
  readonly onSignal: (signal: Broker.Signal) => Effect.Effect<void>
  readonly lookUp: (topics: ReadonlyArray<string>) => Effect.Effect<ReadonlyMap<string, ReadonlyArray<number>>>
}

/** One life of a consumer. */
interface Life {
  readonly settings: Settings
  readonly consumer: Consumer
  readonly grants: Grants.Grants
  readonly coordinator: Coordinator.Coordinator
  readonly clock: Clock.Clock
  readonly joined: Deferred.Deferred<void>
  readonly crashed: Deferred.Deferred<never, KafkaFailure>
  readonly run: (effect: Effect.Effect<void, unknown>) => Promise<void>
  lastFetch: number
  delivering: number
}

// One slow partition must not keep the batches of others waiting for a worker.
const workers = 64

const offsetsOf = (settings: Settings, positions: ReadonlyArray<Broker.Position>): Array<TopicOffsets> => {
  const byTopic = new Map<string, Array<{ partition: number; offset: string }>>()
  for (const { offset, partition, topic } of positions) {
    const partitions = byTopic.get(topic) ?? []
    partitions.push({ partition, offset: offset.toString() })
    byTopic.set(topic, partitions)
  }
  return [...byTopic].map(([topic, partitions]) => ({ topic: physical(settings, topic), partitions }))
}

const openConsumer = Effect.fnUntraced(function*(options: Options, grants: Grants.Grants) {
  const { group, settings } = options
  const run = yield* FiberSet.makeRuntimePromise<never, ReadonlyMap<string, ReadonlyArray<number>>, never>()
  const door = yield* Connection.open(settings, Connection.patient, options.first)
  const lookUp = (topics: ReadonlyArray<string>) => run(options.lookUp(topics))
  const assigner = Assigner.make({ owned: () => grants.owned, lookUp })
  const networks: Array<Network> = []
  const consumer = door.kafka.consumer({
    groupId: group,
    partitionAssigners: [(config) => {
      networks.push(config.cluster as unknown as Network)
      return assigner(config)
    }],
    sessionTimeout: settings.sessionTimeout,
    rebalanceTimeout: settings.rebalanceTimeout,
    heartbeatInterval: settings.heartbeatInterval,
    metadataMaxAge: settings.metadataMaxAge,
    allowAutoTopicCreation: false,
    maxBytesPerPartition: settings.maxBytesPerPartition,
    maxBytes: settings.maxBytes,
    minBytes: 1,
    maxWaitTimeInMs: settings.maxWait,
    retry: { ...Connection.patient, restartOnFailure: () => Promise.resolve(false) }
  })
  Connection.hangUpOnTimeout(door, consumer)
  const network = networks[0]!
  FetchAnswer.install(network)
  return { consumer, door, network }
})

const isClosed = (life: Life) => life.grants.state._tag === "Closed"

/** A batch of KafkaJS. */
const onBatch = (life: Life, { batch, resolveOffset }: Pick<EachBatchPayload, "batch" | "resolveOffset">) =>
  Effect.suspend(() => {
    const topic = logical(life.settings, batch.topic)
    const given = Grants.open(life.grants, topic, batch.partition)
    if (given === undefined) {
      if (isClosed(life)) return Effect.void
      // The join waits for this batch on some paths, so it must not wait for the join.
      return life.coordinator.isJoining() ? Effect.sleep(100) : Effect.fail(Coordinator.rebalanceError())
    }
    // KafkaJS hands on what `fetchAnswer.ts` has decoded.
    const records = batch.messages as unknown as ReadonlyArray<FetchedRecord>
    return Effect.andThen(
      Grants.deliver(life.grants, given, records, batch.lastOffset()),
      Effect.sync(() => {
        const last = records.at(-1)
        // Under another grant this would throw, or skip what nobody has read.
        if (last === undefined || Grants.open(life.grants, topic, batch.partition) !== given) return
        const isBehind = BigInt(batch.lastOffset()) + 1n < given.next
        resolveOffset(String(isBehind ? given.next - 1n : last.offset))
      })
    )
  })

const eachBatch = (life: Life) => (payload: EachBatchPayload): Promise<void> => {
  if (isClosed(life)) return Promise.resolve()
  life.delivering++
  return life.run(onBatch(life, payload))
    .catch((error) => isClosed(life) ? undefined : Promise.reject(error))
    .finally(() => life.delivering--)
}

/** Runs beside KafkaJS, which does not wait for it. */
const beside = (life: Life, effect: Effect.Effect<void, unknown>) => void life.run(effect).catch(() => {})

const listen = (life: Life): void => {
  const { consumer, coordinator, crashed, grants, joined, settings } = life
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    if (isClosed(life)) return
    // A pause of KafkaJS outlives its assignment; ours does not.
    consumer.resume(consumer.paused())
    coordinator.joined()
    beside(life, Effect.andThen(Grants.grant(grants, payload.memberAssignment), Deferred.succeed(joined, undefined)))
  })
  consumer.on(consumer.events.FETCH, () => {
    life.lastFetch = life.clock.currentTimeMillisUnsafe()
  })
  // Batches of control or aborted records only never reach `eachBatch`.
  consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) => {
    if (payload.batchSize > 0) return
    const given = Grants.open(grants, logical(settings, payload.topic), payload.partition)
    if (given !== undefined) beside(life, Grants.deliver(grants, given, [], payload.lastOffset))
  })
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    Deferred.doneUnsafe(crashed, Effect.fail(failureOf(payload.error)))
  })
}

/** Joins and goes on fetching. */
const start = Effect.fnUntraced(function*(life: Life, topics: ReadonlyArray<string>) {
  const { consumer, crashed, settings } = life
  listen(life)
  yield* attempt(() => consumer.connect()).pipe(
    Effect.andThen(attempt(() => consumer.subscribe({ topics: [...topics], fromBeginning: true }))),
    // KafkaJS asks a first broker that takes connections and says nothing for ever, and no other.
    Effect.timeoutOrElse({ duration: settings.connectTimeout, orElse: () => Effect.fail(noAnswer) })
  )
  const running = attempt(() =>
    consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: workers,
      eachBatch: eachBatch(life)
    })
  )
  yield* Effect.forkScoped(Effect.catch(running, (failure) => Deferred.fail(crashed, failure)))
})

/**
 * When the brokers of the cluster change, KafkaJS ends its fetchers and starts
 * others, also if the consumer has been stopped in between. Those would ask in
 * an endless chain of microtasks, and the process would never do anything else.
 * Where there is no broker it starts none.
 */
const startNoFetchers = (network: Network, isClosed: () => boolean): void => {
  const nodeIds = network.getNodeIds.bind(network)
  network.getNodeIds = () => isClosed() ? [] : nodeIds()
}

const leaveQuickly = (consumer: Consumer, door: Connection.Door, coordinator: Coordinator.Coordinator) =>
  Effect.suspend(() => {
    door.mute()
    return Effect.ignore(Effect.timeout(attempt(() => consumer.disconnect()), 5_000)).pipe(
      Effect.andThen(coordinator.leave)
    )
  })

/** A defect of the engine ends the membership; KafkaJS would repeat the batch for ever. */
const reportDefects = (onSignal: Options["onSignal"], crashed: Life["crashed"]): Options["onSignal"] => (signal) =>
  Effect.catchCause(
    onSignal(signal),
    (cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : Effect.asVoid(Deferred.failCause(crashed, cause))
  )

const vitalsOf = ({ coordinator, delivering, grants: { state }, lastFetch }: Life): Vitals => {
  const since = "since" in state ? state.since : 0
  return {
    state: state._tag,
    lastActivity: state._tag === "Granted" ? Math.max(lastFetch, since) : since,
    lastContact: coordinator.lastContact(),
    delivering: delivering > 0
  }
}

const held = ({ grants, settings }: Life, partitions: ReadonlyArray<Broker.TopicPartition>) =>
  partitions
    .filter(({ partition, topic }) => Grants.open(grants, topic, partition) !== undefined)
    .map(({ partition, topic }) => ({ topic: physical(settings, topic), partitions: [partition] }))

/** Starts a consumer. Closing the scope leaves the group without further signals. */
export const make = Effect.fnUntraced(function*(
  options: Options
): Effect.fn.Return<Membership, KafkaFailure, Scope.Scope> {
  const { group, nextEpoch, settings } = options
  const clock = yield* Clock.Clock
  const joined = yield* Deferred.make<void>()
  const crashed = yield* Deferred.make<never, KafkaFailure>()
  const onSignal = reportDefects(options.onSignal, crashed)
  const grants = yield* Grants.make({ settings, nextEpoch, onSignal })
  const { consumer, door, network } = yield* openConsumer(options, grants)
  const runFork = yield* FiberSet.makeRuntime<never, void, never>()
  const coordinator: Coordinator.Coordinator = yield* Coordinator.install(network, group, {
    beforeJoin: Effect.suspend(() => Grants.revoke(grants, coordinator.keepAlive)),
    onEvicted: () => {
      Grants.evict(grants)
      runFork(Grants.lose(grants))
    },
    // Offsets may begin anew, so they need a grant of their own.
    onReset: () => {
      coordinator.forceJoin()
      runFork(Grants.lose(grants))
    }
  })
  startNoFetchers(network, () => grants.state._tag === "Closed")
  yield* Effect.addFinalizer(() => leaveQuickly(consumer, door, coordinator))
  // Registered last, so closed first: no signal is sent while leaving.
  const run = yield* FiberSet.makeRuntimePromise<never, void, unknown>()
  yield* Effect.addFinalizer(() => Effect.sync(() => Grants.close(grants)))
  const life: Life = {
    settings,
    consumer,
    grants,
    coordinator,
    clock,
    joined,
    crashed,
    run,
    lastFetch: 0,
    delivering: 0
  }
  yield* start(life, options.topics)
  return {
    joined: Deferred.await(joined),
    crashed: Deferred.await(crashed),
    vitals: () => vitalsOf(life),
    trusted: () => clock.currentTimeMillisUnsafe() - coordinator.lastContact() < settings.sessionTimeout,
    replaced: coordinator.replaced.pipe(
      Effect.timeoutOrElse({ duration: 1_000, orElse: () => Effect.succeed([]) }),
      Effect.orElseSucceed((): ReadonlyArray<string> => [])
    ),
    keepAlive: Effect.asVoid(Effect.timeoutOption(coordinator.keepAlive, 1_000)),
    lose: Effect.suspend(() => {
      coordinator.forceJoin()
      return Grants.lose(grants)
    }),
    pause: (partitions) => consumer.pause(held(life, partitions)),
    resume: (partitions) => consumer.resume(held(life, partitions)),
    commit: (positions) => {
      const guard = () => positions.every((position) => Grants.mayCommit(grants, position))
      return Effect.suspend(() =>
        guard() ? coordinator.commit(offsetsOf(settings, positions), guard) : Effect.succeed("Fenced" as const)
      )
    }
  }
})

/**
 * Owns one KafkaJS consumer from its first join to its end, and turns its
 * callbacks into signals.
 *
 * Invariant: signals of one partition never overlap, and a signal names only
 * the grant that holds when it is sent.
 *
 *   Outside --join--> Granted --before the next join--> Draining --> Outside
 *                     Granted --evicted, session over, end--> Outside (Lost)
 *                         Draining --evicted, drain overdue--> Outside (Lost)
 *
 * The insight: KafkaJS says when it has joined (an event) but not when it lets
 * go, and a `resolveOffset` that comes late moves the position of a later
 * generation, past records that nobody has read. So each grant has an epoch,
 * and everything late is measured against it.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Consumer, EachBatchPayload } from "kafkajs"
import type * as Broker from "../../../Broker.ts"
import * as Assigner from "./assigner.ts"
import * as Connection from "./connection.ts"
import * as Coordinator from "./coordinator.ts"
import { attempt, type KafkaJsFailure } from "./errors.ts"
import type { Network, TopicOffsets, WireRecord } from "./internals.ts"
import { fromWire } from "./records.ts"
import { logical, physical, type Settings } from "./settings.ts"

/** One partition in one generation. */
interface Grant {
  readonly assignment: Broker.Assignment
  readonly mutex: Semaphore.Semaphore
  readonly lost: Latch.Latch
  live: boolean
}

interface Grants {
  readonly byKey: ReadonlyMap<string, Grant>
  /** Opens when the grants are lost: what runs for them ends. */
  readonly lost: Latch.Latch
}

type State =
  | { readonly _tag: "Outside"; readonly since: number }
  /** `announced` opens when `Assigned` has been taken. */
  | { readonly _tag: "Granted"; readonly grants: Grants; readonly since: number; readonly announced: Latch.Latch }
  /** `evicted`: nothing may be committed any more, for the member was removed or its time is over. */
  | { readonly _tag: "Draining"; readonly grants: Grants; readonly evicted: boolean }
  | { readonly _tag: "Closed" }

/** What the monitor looks at. */
export interface Vitals {
  readonly state: State["_tag"]
  /** When the state began, or KafkaJS last fetched. */
  readonly lastActivity: number
  readonly lastContact: number
  readonly delivering: boolean
}

export interface Membership {
  /** Succeeds with the first join. */
  readonly joined: Effect.Effect<void>
  /** Fails when KafkaJS has given up. */
  readonly crashed: Effect.Effect<never, KafkaJsFailure>
  readonly vitals: () => Vitals
  /** Tells the coordinator that this member lives, for at most a second. */
  readonly keepAlive: Effect.Effect<void>
  /** Ends all grants as lost and lets KafkaJS join anew. */
  readonly lose: Effect.Effect<void>
  readonly pause: (partitions: ReadonlyArray<Broker.TopicPartition>) => void
  readonly resume: (partitions: ReadonlyArray<Broker.TopicPartition>) => void
  readonly commit: (
    positions: ReadonlyArray<Broker.Position>
  ) => Effect.Effect<"committed" | "fenced", KafkaJsFailure>
}

export interface Options {
  readonly settings: Settings
  readonly group: string
  /** Physical names. */
  readonly topics: ReadonlyArray<string>
  readonly nextEpoch: () => number
  readonly onSignal: (signal: Broker.Signal) => Effect.Effect<void>
  readonly lookUp: (topics: ReadonlyArray<string>) => Effect.Effect<ReadonlyMap<string, ReadonlyArray<number>>>
}

// One slow partition must not keep the batches of others waiting for a worker.
const workers = 128

const keyOf = (topic: string, partition: number) => `${topic}/${partition}`
const assignmentsOf = (grants: Grants) => [...grants.byKey.values()].map((grant) => grant.assignment)

/** A drain that takes longer is cut short, since the coordinator began to count before we heard of it. */
const overdue = (settings: Settings) =>
  Math.max(settings.drain, settings.rebalanceTimeout - settings.heartbeatInterval - settings.maxWait - 1_000)

const offsetsOf = (settings: Settings, positions: ReadonlyArray<Broker.Position>): Array<TopicOffsets> => {
  const byTopic = new Map<string, Array<{ partition: number; offset: string }>>()
  for (const { offset, partition, topic } of positions) {
    const partitions = byTopic.get(topic) ?? []
    partitions.push({ partition, offset: offset.toString() })
    byTopic.set(topic, partitions)
  }
  return [...byTopic].map(([topic, partitions]) => ({ topic: physical(settings, topic), partitions }))
}

/** The grants of a membership, and the signals about them. */
const makeState = Effect.fnUntraced(function*(options: Options) {
  const clock = yield* Clock.Clock
  const control = yield* Semaphore.make(1)
  const now = () => clock.currentTimeMillisUnsafe()
  let state: State = { _tag: "Outside", since: now() }
  let owned: Assigner.Owned = {}

  /** Waits for the signals that are under way; none follows. */
  const quiesce = (grants: Grants) =>
    Effect.forEach(grants.byKey.values(), (grant) =>
      grant.mutex.withPermit(Effect.sync(() => {
        grant.live = false
      })), { discard: true, concurrency: "unbounded" })

  const signal = (grants: Grants, make: () => Broker.Signal) =>
    grants.byKey.size === 0
      ? Effect.void
      : Effect.andThen(quiesce(grants), Effect.suspend(() => options.onSignal(make())))

  const signalLost = (grants: Grants) =>
    signal(grants, () => ({ _tag: "Lost", assignments: assignmentsOf(grants) }))

  const grant = (assignment: Readonly<Record<string, ReadonlyArray<number>>>) => {
    const epoch = options.nextEpoch()
    const lost = Latch.makeUnsafe(false)
    const byKey = new Map<string, Grant>()
    for (const [name, partitions] of Object.entries(assignment)) {
      const topic = logical(options.settings, name)
      for (const partition of partitions) {
        const mutex = Semaphore.makeUnsafe(1)
        byKey.set(keyOf(topic, partition), { assignment: { topic, partition, epoch }, mutex, live: true, lost })
      }
    }
    owned = assignment
    const grants = { byKey, lost }
    const announced = Latch.makeUnsafe(false)
    state = { _tag: "Granted", grants, since: now(), announced }
    const assignments = assignmentsOf(grants)
    return control.withPermit(options.onSignal({ _tag: "Assigned", assignments })).pipe(
      Effect.ensuring(announced.open)
    )
  }

  const evict = () => {
    owned = {}
    if (state._tag !== "Draining") return
    state = { ...state, evicted: true }
    state.grants.lost.openUnsafe()
  }

  const lose = Effect.suspend(() => {
    if (state._tag !== "Granted") return Effect.void
    const { grants } = state
    state = { _tag: "Outside", since: now() }
    owned = {}
    grants.lost.openUnsafe()
    return control.withPermit(signalLost(grants))
  })

  const revoke = (keepAlive: Effect.Effect<void>) =>
    Effect.suspend(() => {
      // Whatever signal is under way comes to its end before the join goes on.
      if (state._tag !== "Granted") return control.withPermit(Effect.void)
      const { grants } = state
      const deadline = now() + options.settings.drain
      state = { _tag: "Draining", grants, evicted: false }
      const revoked = signal(grants, () => ({
        _tag: "Revoked",
        assignments: assignmentsOf(grants),
        within: Duration.millis(Math.max(0, deadline - now()))
      }))
      return revoked.pipe(
        Effect.raceFirst(grants.lost.await),
        Effect.raceFirst(Effect.andThen(Effect.delay(Effect.sync(evict), overdue(options.settings)), Effect.never)),
        Effect.raceFirst(Effect.andThen(Effect.repeat(keepAlive, Schedule.spaced("1 second")), Effect.never)),
        Effect.andThen(Effect.suspend(() => grants.lost.isOpen() ? signalLost(grants) : Effect.void)),
        control.withPermit,
        Effect.ensuring(Effect.sync(() => {
          if (state._tag === "Draining") state = { _tag: "Outside", since: now() }
        }))
      )
    })

  return {
    get: () => state,
    owned: () => owned,
    grant,
    lose,
    revoke,
    evict,
    close: () => {
      state = { _tag: "Closed" }
    },
    /** The grant of a partition while records may be delivered. */
    open: (topic: string, partition: number) =>
      state._tag === "Granted" ? state.grants.byKey.get(keyOf(topic, partition)) : undefined,
    /** Whether positions of this epoch may still be committed. */
    mayCommit: ({ epoch, partition, topic }: Broker.Assignment) =>
      (state._tag === "Granted" || (state._tag === "Draining" && !state.evicted)) &&
      state.grants.byKey.get(keyOf(topic, partition))?.assignment.epoch === epoch
  }
})

type Grounds = Effect.Success<ReturnType<typeof makeState>>

/** Hands records to the engine, if their grant still holds. */
const deliver = (
  grounds: Grounds,
  options: Options,
  given: Grant,
  records: () => ReadonlyArray<Broker.ConsumerRecord>,
  lastOffset: string
) => {
  const state = grounds.get()
  const announced = state._tag === "Granted" ? state.announced.await : Effect.void
  return Effect.andThen(
    announced,
    given.mutex.withPermit(Effect.suspend(() =>
      given.live && grounds.open(given.assignment.topic, given.assignment.partition) === given
        ? Effect.raceFirst(
          options.onSignal({
            _tag: "Records",
            assignment: given.assignment,
            records: records(),
            nextOffset: BigInt(lastOffset) + 1n
          }),
          given.lost.await
        )
        : Effect.void
    ))
  )
}

const openConsumer = Effect.fnUntraced(function*(options: Options, grounds: Grounds) {
  const { group, settings } = options
  const run = yield* FiberSet.makeRuntimePromise<never, unknown, unknown>()
  const door = yield* Connection.open(settings, Connection.patient)
  const assigner = Assigner.make({ owned: grounds.owned, lookUp: (topics) => run(options.lookUp(topics)) })
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
  return { consumer, network: networks[0]! }
})

/** KafkaJS's callback for batches. It never throws, except to make KafkaJS join again. */
const onBatch = (
  grounds: Grounds,
  options: Options,
  coordinator: Coordinator.Coordinator,
  { batch, resolveOffset }: Pick<EachBatchPayload, "batch" | "resolveOffset">
) =>
  Effect.suspend(() => {
    const topic = logical(options.settings, batch.topic)
    const given = grounds.open(topic, batch.partition)
    if (given === undefined) {
      if (grounds.get()._tag === "Closed") return Effect.void
      // The join waits for this batch on some paths, so it must not wait for the join.
      return coordinator.isJoining() ? Effect.sleep(100) : Effect.fail(Coordinator.rebalanceError())
    }
    const records = () => batch.messages.map((message) => fromWire(message as WireRecord))
    return Effect.andThen(
      deliver(grounds, options, given, records, batch.lastOffset()),
      Effect.sync(() => {
        const last = batch.messages.at(-1)
        if (last !== undefined && grounds.open(topic, batch.partition) === given) resolveOffset(last.offset)
      })
    )
  })

const leaveQuickly = (consumer: Consumer, coordinator: Coordinator.Coordinator, grounds: Grounds) =>
  Effect.suspend(() => {
    grounds.close()
    return Effect.ignore(Effect.timeout(attempt(() => consumer.disconnect()), 5_000)).pipe(
      Effect.andThen(coordinator.leave)
    )
  })

/** A defect of the engine ends the membership; KafkaJS would repeat the batch for ever. */
const reportDefects =
  (onSignal: Options["onSignal"], crashed: Deferred.Deferred<never, KafkaJsFailure>): Options["onSignal"] => (signal) =>
    Effect.catchCause(onSignal(signal), (cause) =>
      Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : Effect.asVoid(Deferred.failCause(crashed, cause)))

/** Starts a consumer. Closing the scope leaves the group without further signals. */
export const make = Effect.fnUntraced(function*(
  given: Options
): Effect.fn.Return<Membership, KafkaJsFailure, Scope.Scope> {
  const { settings } = given
  const clock = yield* Clock.Clock
  const joined = yield* Deferred.make<void>()
  const crashed = yield* Deferred.make<never, KafkaJsFailure>()
  const options = { ...given, onSignal: reportDefects(given.onSignal, crashed) }
  const grounds = yield* makeState(options)
  const { consumer, network } = yield* openConsumer(options, grounds)
  const lose = yield* FiberSet.makeRuntime<never, void, never>()
  let lastFetch = 0
  let delivering = 0
  const coordinator: Coordinator.Coordinator = yield* Coordinator.install(network, options.group, {
    beforeJoin: Effect.suspend(() => grounds.revoke(coordinator.keepAlive)),
    onEvicted: () => {
      grounds.evict()
      lose(grounds.lose)
    }
  })
  yield* Effect.addFinalizer(() => leaveQuickly(consumer, coordinator, grounds))
  // Registered last, so closed first: no signal is sent while leaving.
  const run = yield* FiberSet.makeRuntimePromise<never, void, unknown>()
  yield* Effect.addFinalizer(() => Effect.sync(grounds.close))
  const isClosed = () => grounds.get()._tag === "Closed"

  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    if (isClosed()) return
    // A pause of KafkaJS outlives its assignment; ours does not.
    consumer.resume(consumer.paused())
    coordinator.joined()
    void run(Effect.andThen(grounds.grant(payload.memberAssignment), Deferred.succeed(joined, undefined))).catch(() => {})
  })
  consumer.on(consumer.events.FETCH, () => {
    lastFetch = clock.currentTimeMillisUnsafe()
  })
  // Batches of control or aborted records only never reach `eachBatch`.
  consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload }) => {
    if (payload.batchSize > 0) return
    const given = grounds.open(logical(settings, payload.topic), payload.partition)
    if (given !== undefined) void run(deliver(grounds, options, given, () => [], payload.lastOffset)).catch(() => {})
  })
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    Deferred.doneUnsafe(crashed, attempt(() => Promise.reject(payload.error)) as Effect.Effect<never, KafkaJsFailure>)
  })
  yield* attempt(() => consumer.connect())
  yield* attempt(() => consumer.subscribe({ topics: [...options.topics], fromBeginning: true }))
  const running = attempt(() =>
    consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      partitionsConsumedConcurrently: workers,
      eachBatch: (payload) => {
        if (isClosed()) return Promise.resolve()
        delivering++
        return run(onBatch(grounds, options, coordinator, payload))
          .catch((error) => isClosed() ? undefined : Promise.reject(error))
          .finally(() => delivering--)
      }
    })
  )
  yield* Effect.forkScoped(Effect.catch(running, (failure) => Deferred.fail(crashed, failure)))

  return {
    joined: Deferred.await(joined),
    crashed: Deferred.await(crashed),
    vitals: () => {
      const state = grounds.get()
      const since = "since" in state ? state.since : 0
      return {
        state: state._tag,
        lastActivity: state._tag === "Granted" ? Math.max(lastFetch, since) : since,
        lastContact: coordinator.lastContact(),
        delivering: delivering > 0
      }
    },
    keepAlive: Effect.asVoid(Effect.timeoutOption(coordinator.keepAlive, 1_000)),
    lose: Effect.suspend(() => {
      coordinator.forceJoin()
      return grounds.lose
    }),
    pause: (partitions) => consumer.pause(owned(grounds, settings, partitions)),
    resume: (partitions) => consumer.resume(owned(grounds, settings, partitions)),
    commit: (positions) => {
      const guard = () => positions.every(grounds.mayCommit)
      return Effect.suspend(() =>
        guard() ? coordinator.commit(offsetsOf(settings, positions), guard) : Effect.succeed("fenced" as const)
      )
    }
  }
})

const owned = (grounds: Grounds, settings: Settings, partitions: ReadonlyArray<Broker.TopicPartition>) =>
  partitions
    .filter(({ partition, topic }) => grounds.open(topic, partition) !== undefined)
    .map(({ partition, topic }) => ({ topic: physical(settings, topic), partitions: [partition] }))

/**
 * The in-memory broker: topics, producers, groups and tails over the pure
 * `log` and `group`.
 *
 * Invariant: between reading and changing state there is no `yield*`, so each
 * operation is one atomic step and nothing needs a lock.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type {
  Assignment,
  BrokerError,
  Position,
  ProducerRecord,
  TopicPartition,
  TopicRequirement
} from "../../../Broker.ts"
import { Broker, Fenced, Refused, TooLarge, UnknownTopic } from "../../../Broker.ts"
import * as Feed from "./feed.ts"
import * as Group from "./group.ts"
import * as Log from "./log.ts"
import * as Membership from "./membership.ts"
import * as State from "./state.ts"

export interface BrokerOptions {
  readonly source: string
  readonly partitions: number
  readonly autoCreate: boolean
}

const address = "memory"

/** A broker over a state of its own; `scope` is its Layer's. */
export const make = (options: BrokerOptions, state: State.State, scope: Scope.Scope): Broker["Service"] => {
  const { faults, readers, topics } = state
  const logOf = (topic: string, partition: number) => State.logOf(state, topic, partition)
  const countOf = (topic: string) => State.countOf(state, topic)
  let ids = 0

  const ensureTopics = (required: ReadonlyArray<TopicRequirement>): Effect.Effect<void, BrokerError> =>
    Effect.suspend(() => {
      const missing = required.filter(({ name }) => !topics.has(name))
      for (const { create, name } of missing) {
        if (create === undefined && !options.autoCreate) {
          return State.fail(new UnknownTopic({ topic: name }))
        }
        const illegal = Log.whyIllegal(name, create?.partitions ?? options.partitions)
        if (illegal !== undefined) {
          const cause = new Error(illegal)
          return State.fail(new Refused({ operation: `create topic "${name}"`, detail: illegal, cause }))
        }
      }
      for (const { create, name } of missing) {
        topics.set(name, Log.makeTopic(name, create?.partitions ?? options.partitions, create?.config))
      }
      return Effect.void
    })

  const requireTopics = (names: ReadonlyArray<string>) =>
    ensureTopics(names.map((name) => ({ name, create: undefined })))

  /** Runs an operation, unless a test has asked for its failure. */
  const faulty = <A>(operation: State.Fault["operation"], effect: Effect.Effect<A, BrokerError>) =>
    Effect.suspend(() => {
      const fault = faults.find((fault) => fault.operation === operation)
      if (fault === undefined) {
        return effect
      }
      fault.times -= 1
      if (fault.times <= 0) {
        faults.splice(faults.indexOf(fault), 1)
      }
      return fault.applied ? Effect.andThen(effect, State.fail(fault.reason)) : State.fail(fault.reason)
    })

  const append = (batch: {
    readonly topic: string
    readonly partition: number
    readonly records: readonly [ProducerRecord, ...Array<ProducerRecord>]
  }) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const log = logOf(batch.topic, batch.partition)
      if (log === undefined) {
        const partition = topics.has(batch.topic) ? { partition: batch.partition } : {}
        return State.fail(new UnknownTopic({ topic: batch.topic, ...partition }))
      }
      const bytes = Log.batchBytes(batch.records)
      const { maxBytes } = topics.get(batch.topic)!
      return bytes > maxBytes
        ? State.fail(new TooLarge({ topic: batch.topic, bytes, detail: `its max.message.bytes is ${maxBytes}` }))
        : Effect.succeed(Log.append(log, batch.records, now))
    })

  const producer: Broker["Service"]["producer"] = Effect.succeed({
    partitions: (topic) => Effect.map(requireTopics([topic]), () => countOf(topic)),
    send: (batch) => Effect.andThen(requireTopics([batch.topic]), faulty("send", append(batch)))
  })

  const register = (reader: State.Reader) =>
    Effect.acquireRelease(
      Effect.sync(() => readers.add(reader)),
      () => Effect.sync(() => readers.delete(reader))
    )

  const flow = (feed: () => Feed.Feed | undefined, failed: Deferred.Deferred<never, BrokerError>) => ({
    pause: (partitions: ReadonlyArray<TopicPartition>) => Effect.sync(() => feed()?.pause(partitions)),
    resume: (partitions: ReadonlyArray<TopicPartition>) => Effect.sync(() => feed()?.resume(partitions)),
    failed: Deferred.await(failed)
  })

  const commit = (cell: Membership.GroupCell, id: number, positions: ReadonlyArray<Position>) =>
    Effect.suspend(() => {
      const next = Group.commit(cell.group, id, positions)
      if (typeof next === "string") {
        return State.fail(new Fenced({ detail: next }))
      }
      cell.group = next
      return Effect.void
    })

  const subscribe: Broker["Service"]["subscribe"] = Effect.fnUntraced(function*(request) {
    yield* requireTopics(request.topics)
    const cell = State.cellOf(state, request.group)
    const id = ids++
    const failed = Deferred.makeUnsafe<never, BrokerError>()
    const membership = Membership.make({ cell, id, onSignal: request.onSignal, logOf })
    const rebalance = () => Membership.step(cell, Group.askToRevoke)
    yield* register({ topics: request.topics, failed, partitionsAdded: rebalance })
    yield* Effect.acquireRelease(
      Effect.sync(() => Membership.step(cell, (group) => Group.join(group, id, request.topics, countOf))),
      () =>
        Effect.sync(() => {
          cell.latches.delete(id)
          Membership.step(cell, (group) => Group.leave(group, id, countOf))
        })
    )
    yield* Effect.forkScoped(membership.run)
    yield* membership.joined
    return {
      ...flow(membership.feed, failed),
      commit: (positions) => faulty("commit", commit(cell, id, positions))
    }
  })

  const tail: Broker["Service"]["tail"] = Effect.fnUntraced(function*(request) {
    yield* requireTopics(request.topics)
    const scope = yield* Scope.Scope
    const feed = Feed.make(request.onSignal)
    const failed = Deferred.makeUnsafe<never, BrokerError>()
    const added = Latch.makeUnsafe()
    const known = new Map(request.topics.map((topic) => [topic, 0]))
    let epoch = 0

    /** Starts readers for partitions that have none yet. */
    const start = Effect.fnUntraced(function*(from: (log: Log.PartitionLog) => bigint) {
      for (const topic of known.keys()) {
        for (let partition = known.get(topic)!; partition < countOf(topic); partition++) {
          const assignment: Assignment = { topic, partition, epoch: ++epoch }
          const log = logOf(topic, partition)!
          const position = from(log)
          known.set(topic, partition + 1)
          yield* request.onSignal({ _tag: "Assigned", assignments: [assignment] }).pipe(
            Effect.andThen(feed.read(assignment, log, position)),
            Effect.forkIn(scope)
          )
        }
      }
    })

    yield* register({ topics: request.topics, failed, partitionsAdded: () => added.openUnsafe() })
    yield* start((log) => log.end)
    yield* Effect.forkScoped(Effect.gen(function*() {
      while (true) {
        yield* added.await
        added.closeUnsafe()
        yield* start(() => 0n)
      }
    }))
    return flow(() => feed, failed)
  })

  const known = (topic: string): Effect.Effect<Log.TopicLog, BrokerError> =>
    Effect.suspend(() => {
      const found = topics.get(topic)
      return found === undefined ? State.fail(new UnknownTopic({ topic })) : Effect.succeed(found)
    })

  const read: Broker["Service"]["read"] = (topic) =>
    Stream.unwrap(
      Effect.map(known(topic), ({ partitions }) => {
        const ends = partitions.map((log) => log.end)
        return Stream.fromIterable(partitions.map((log, partition) => ({
          partition,
          records: log.records.filter(({ offset }) => offset < ends[partition]!)
        })))
      })
    )

  return Broker.of({
    source: options.source,
    address,
    scope,
    ensureTopics,
    describe: (topic) =>
      Effect.map(known(topic), ({ config, partitions }) => ({
        partitions: partitions.length,
        replicationFactor: 1,
        config
      })),
    mayWrite: (topic) => Effect.asVoid(known(topic)),
    read,
    producer,
    subscribe,
    tail
  })
}

/**
 * Owns a subscription: a member of a group, the fetches for what it holds, and
 * an eye on the topics.
 *
 * Invariant: a partition is fetched only while its grant is live, from a
 * position that was committed in the very topic that has the name now, else
 * from the first record.
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Broker from "../../../Broker.ts"
import type { Owned } from "../kafka/assigner.ts"
import * as Commits from "../kafka/commits.ts"
import { brokerError, evicted, type KafkaFailure, toBrokerError, unknownTopic } from "../kafka/failure.ts"
import * as Fetching from "../kafka/fetching.ts"
import { retryFor } from "../kafka/retry.ts"
import { logical, physical, type Settings } from "../kafka/settings.ts"
import * as TopicLabel from "../kafka/topicLabel.ts"
import type { Cluster, Description } from "./cluster.ts"
import * as Coordinator from "./coordinator.ts"
import * as Grants from "./grants.ts"
import * as Member from "./member.ts"

/** A topic counts as deleted when the brokers have denied it for so long. */
const deletedAfter = 3_000

interface Group {
  readonly settings: Settings
  readonly cluster: Cluster
  readonly clock: Clock.Clock
  readonly coordinator: Coordinator.Coordinator
  readonly grants: Grants.Grants
  /** Physical names of all topics that were asked for. */
  readonly asked: ReadonlyArray<string>
  /** Those of them that exist. */
  readonly topics: Set<string>
  /** The partitions of each topic, as the group last shared them. */
  readonly counts: Map<string, number>
  /** What is read from its first record, whatever was committed. */
  readonly anew: Set<string>
  readonly name: string
  epochs: number
}

const refusal = ({ settings }: Group, operation: string, failure: KafkaFailure) =>
  toBrokerError(failure, { operation, address: settings.address, tried: operation })

/** What is known of a topic now; `undefined` if it does not exist. */
const look = ({ clock, cluster }: Group, topic: string, age: number) =>
  Effect.suspend(() => cluster.describe(topic, clock.currentTimeMillisUnsafe() - age)).pipe(
    Effect.catchIf(unknownTopic, () => Effect.succeed<Description | undefined>(undefined))
  )

const lookUp = (group: Group): Member.Options["lookUp"] =>
  Effect.fnUntraced(function*(topics) {
    const found = new Map<string, ReadonlyArray<number>>()
    for (const topic of topics) {
      const description = yield* look(group, topic, 1_000)
      found.set(topic, description?.partitions.map(({ partition }) => partition) ?? [])
    }
    return found
  })

const labelOf = (topicId: string | undefined) => topicId === undefined ? "" : TopicLabel.labelOf(topicId)

/** Where to begin: first the topic, so that it cannot be newer than its positions. */
const starts = (group: Group): Member.Options["starts"] =>
  Effect.fnUntraced(function*(owned: Owned) {
    const { anew, coordinator, settings } = group
    const partitions = Object.entries(owned).flatMap(([topic, list]) => list.map((partition) => ({ topic, partition })))
    if (partitions.length === 0) return []
    const topics = new Map<string, Description | undefined>()
    for (const topic of Object.keys(owned)) topics.set(topic, yield* look(group, topic, 0))
    const epoch = ++group.epochs
    // While somebody else's transaction commits positions, there are none to be told.
    const committed = yield* Effect.retry(coordinator.committed(partitions), {
      while: ({ type }) => type === "UNSTABLE_OFFSET_COMMIT",
      schedule: Schedule.spaced("100 millis")
    })
    return committed.map(({ label, offset, partition, topic }): Grants.Start => {
      const description = topics.get(topic)
      const known = offset >= 0n && !TopicLabel.isOfAnother(label, description?.topicId) &&
        !anew.delete(Grants.keyOf(topic, partition))
      return {
        topic,
        partition,
        // The log may begin later: the first fetch tells.
        next: known ? offset : 0n,
        leader: description?.partitions.find((found) => found.partition === partition)?.leader ?? -1,
        label: labelOf(description?.topicId),
        assignment: { topic: logical(settings, topic), partition, epoch }
      }
    })
  })

/**
 * A partition whose records were deleted below its position goes on where it
 * begins now. One that ends below its position was truncated: it is granted
 * anew, for offsets never go back within a grant.
 */
const outOfRange = (group: Group, member: Member.Member) =>
  Effect.fnUntraced(function*(grant: Grants.Grant) {
    const { leader, next, partition, topic } = grant
    const node = yield* group.cluster.node(leader)
    const begin = yield* node.offsetOf({ topic, partition }, "begin")
    if (next >= begin) {
      group.anew.add(Grants.keyOf(topic, partition))
      return yield* member.reset([grant])
    }
    grant.next = begin
    // Who begins with the first record has missed none.
    if (next === 0n) return
    yield* Effect.annotateLogs(Effect.logWarning("Records were deleted before they were read"), {
      topic: logical(group.settings, topic),
      partition,
      from: next.toString(),
      to: begin.toString()
    })
  })

/** Notes who leads now. */
const follow = ({ grants }: Group, topic: string, { partitions }: Description): void => {
  for (const { leader, partition } of partitions) {
    const grant = grants.held.get(Grants.keyOf(topic, partition))
    if (grant !== undefined) grant.leader = leader
  }
}

/** So many refusals in a row that waiting cannot mend are told to whoever consumes, who waits longer and says so. */
const mostRefusals = 3

const refresh = (group: Group, changed: () => void): Fetching.Options<Grants.Grant>["refresh"] => (topics) =>
  Effect.forEach(
    topics,
    (topic) =>
      Effect.map(Effect.orElseSucceed(look(group, topic, 0), () => undefined), (description) => {
        if (description !== undefined) follow(group, topic, description)
      }),
    { discard: true }
  ).pipe(Effect.andThen(Effect.sync(changed)))

const annotate = (group: Group, topic: string) => ({ group: group.name, topic: logical(group.settings, topic) })

const ofTopic = ({ grants }: Group, topic: string): Array<Grants.Grant> =>
  Array.from(grants.held.values()).filter((grant) => grant.topic === topic)

/** What is held of a topic that was deleted and created again since its positions were looked up. */
const replaced = (group: Group, topic: string, { topicId }: Description): Array<Grants.Grant> =>
  topicId === undefined
    ? []
    : ofTopic(group, topic).filter(({ label }) => TopicLabel.isOfAnother(label, topicId))

interface Watched {
  readonly group: Group
  readonly member: Member.Member
  readonly deniedSince: Map<string, number>
}

/** A topic that is there may have grown, be back, or be another one. */
const there = Effect.fnUntraced(function*({ deniedSince, group, member }: Watched, topic: string, found: Description) {
  const { counts, topics } = group
  deniedSince.delete(topic)
  follow(group, topic, found)
  const old = replaced(group, topic, found)
  if (old.length > 0) {
    yield* Effect.annotateLogs(
      Effect.logWarning("A topic was created again, and is read from its beginning"),
      annotate(group, topic)
    )
    yield* member.reset(old)
  }
  const count = found.partitions.length
  if (topics.has(topic) && counts.get(topic) === count) return
  topics.add(topic)
  counts.set(topic, count)
  yield* member.rejoin
})

/** A topic that the brokers deny for a while is deleted; fails when none is left. */
const denied = Effect.fnUntraced(function*({ deniedSince, group, member }: Watched, topic: string) {
  const { clock, counts, topics } = group
  const now = clock.currentTimeMillisUnsafe()
  const since = deniedSince.get(topic) ?? now
  deniedSince.set(topic, since)
  if (!topics.has(topic) || now - since < deletedAfter) return
  topics.delete(topic)
  counts.delete(topic)
  if (topics.size === 0) {
    return yield* brokerError(new Broker.UnknownTopic({ topic: logical(group.settings, topic) }))
  }
  yield* Effect.annotateLogs(Effect.logError("A topic that is subscribed to no longer exists"), annotate(group, topic))
  yield* member.reset(ofTopic(group, topic))
})

/** Looks at the topics now and then. */
const watch = Effect.fnUntraced(function*(
  watched: Watched,
  changed: () => void
): Effect.fn.Return<never, Broker.BrokerError> {
  const { deniedSince, group } = watched
  for (;;) {
    yield* Effect.sleep(deniedSince.size > 0 ? 1_000 : group.settings.metadataMaxAge)
    for (const topic of group.asked) {
      const result = yield* Effect.result(look(group, topic, 500))
      if (result._tag === "Failure") continue
      yield* result.success === undefined ? denied(watched, topic) : there(watched, topic, result.success)
    }
    changed()
  }
})

/** All topics must be there at the start. */
const checkTopics = Effect.fnUntraced(function*(group: Group) {
  for (const topic of group.asked) {
    const found = yield* retryFor(group.clock, group.settings)(look(group, topic, 0)).pipe(
      Effect.mapError((failure) => refusal(group, "subscribe", failure))
    )
    if (found === undefined) {
      return yield* brokerError(new Broker.UnknownTopic({ topic: logical(group.settings, topic) }))
    }
    group.topics.add(topic)
    group.counts.set(topic, found.partitions.length)
  }
})

/** Commits under the generation of now what is still held. */
const commit = (group: Group, member: Member.Member) =>
(
  positions: ReadonlyArray<Broker.Position>
): Effect.Effect<Commits.Outcome, KafkaFailure> =>
  Effect.flatMap(member.standing, (standing): Effect.Effect<Commits.Outcome, KafkaFailure> => {
    if (standing === undefined) return Commits.outside
    const { grants, settings } = group
    const labelled: Array<Coordinator.Position> = []
    for (const { epoch, offset, partition, topic } of positions) {
      const grant = grants.held.get(Grants.keyOf(physical(settings, topic), partition))
      if (grant?.assignment.epoch !== epoch || !Grants.mayCommit(grants, grant)) return Effect.succeed("Fenced")
      labelled.push({ topic: grant.topic, partition, offset, label: grant.label })
    }
    return group.coordinator.commit(standing, labelled).pipe(
      Effect.as<Commits.Outcome>("Committed"),
      Effect.catchIf(evicted, (failure) =>
        Effect.flatMap(
          member.overtaken(standing),
          (overtaken) => overtaken ? commit(group, member)(positions) : Effect.fail(failure)
        ))
    )
  })

/** Fetches what is held; fails `unreadable` with what waiting cannot mend. */
const read = Effect.fnUntraced(function*(
  group: Group,
  member: Member.Member,
  unreadable: Deferred.Deferred<never, KafkaFailure>
): Effect.fn.Return<Fetching.Fetching, never, Scope.Scope> {
  const { cluster, grants } = group
  let refusals = 0
  const fetching: Fetching.Fetching = yield* Fetching.make<Grants.Grant>({
    cluster,
    positions: () => Grants.live(grants),
    take: (grant, records, nextOffset) => {
      refusals = 0
      return Grants.deliver(grants, grant, records, nextOffset)
    },
    outOfRange: outOfRange(group, member),
    refresh: (topics, failure) => {
      if (!failure.transient && failure.type !== "OFFSET_OUT_OF_RANGE" && ++refusals >= mostRefusals) {
        Deferred.doneUnsafe(unreadable, Effect.fail(failure))
      }
      return refresh(group, () => fetching.changed())(topics, failure)
    }
  })
  return fetching
})

/** Joins a group; see `Broker.subscribe`. */
export const subscribe = (settings: Settings, cluster: Cluster): Broker.Broker["Service"]["subscribe"] =>
  Effect.fnUntraced(function*(options) {
    const name = settings.groupPrefix + options.group
    const failed = yield* Deferred.make<never, Broker.BrokerError>()
    const onSignal = (signal: Broker.Signal) =>
      Effect.catchCause(
        options.onSignal(signal),
        (cause) =>
          Cause.hasInterruptsOnly(cause) ? Effect.failCause(cause) : Effect.asVoid(Deferred.failCause(failed, cause))
      )
    const group: Group = {
      settings,
      cluster,
      clock: yield* Clock.Clock,
      coordinator: yield* Coordinator.make(settings, cluster, name),
      grants: yield* Grants.make(settings, onSignal),
      asked: [...new Set(options.topics)].map((topic) => physical(settings, topic)),
      topics: new Set(),
      counts: new Map(),
      anew: new Set(),
      name,
      epochs: 0
    }
    yield* checkTopics(group)
    const member: Member.Member = yield* Member.make({
      settings,
      topics: () => Array.from(group.topics),
      coordinator: group.coordinator,
      grants: group.grants,
      lookUp: lookUp(group),
      starts: starts(group),
      onGranted: () => fetching.changed()
    })
    const unreadable = yield* Deferred.make<never, KafkaFailure>()
    const fetching: Fetching.Fetching = yield* read(group, member, unreadable)
    const end = (reason: Effect.Effect<never, Broker.BrokerError>) =>
      Effect.forkScoped(
        Effect.catchCause(
          reason,
          (cause) => Effect.andThen(Grants.lose(group.grants), Deferred.failCause(failed, cause))
        )
      )
    yield* end(watch({ group, member, deniedSince: new Map() }, fetching.changed))
    const hopeless = Effect.raceFirst(member.failed, Deferred.await(unreadable))
    const refused = Effect.mapError(hopeless, (failure) => refusal(group, `let group "${name}" read`, failure))
    yield* end(refused)
    // Registered last, so closed first: no signal is sent while leaving.
    yield* Effect.addFinalizer(() => Effect.sync(() => Grants.close(group.grants)))
    yield* awaitJoin(group, Effect.raceFirst(member.joined, refused))
    const setPaused = (partitions: ReadonlyArray<Broker.TopicPartition>, paused: boolean) =>
      Effect.sync(() => {
        for (const { partition, topic } of partitions) {
          const grant = group.grants.held.get(Grants.keyOf(physical(settings, topic), partition))
          if (grant !== undefined) grant.paused = paused
        }
        fetching.changed()
      })
    return {
      failed: Deferred.await(failed),
      pause: (partitions) => setPaused(partitions, true),
      resume: (partitions) => setPaused(partitions, false),
      trusted: member.trusted,
      commit: yield* Commits.make({ settings, cluster, commit: commit(group, member) })
    }
  })

/** Waits for the first join: others may take their rebalance timeout to let us in. */
const awaitJoin = ({ name, settings }: Group, joined: Effect.Effect<void, Broker.BrokerError>) => {
  const duration = settings.rebalanceTimeout + 30_000
  return Effect.timeoutOrElse(joined, {
    duration,
    orElse: () =>
      Effect.fail(brokerError(
        new Broker.Unreachable({
          address: settings.address,
          tried: `joining group "${name}" for ${duration} ms`,
          cause: new Error("the group did not let us in")
        })
      ))
  })
}

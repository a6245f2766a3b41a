/**
 * Owns a subscription: a membership, and a new one when KafkaJS has ended or
 * stands still.
 *
 * Invariant: there is at most one membership at a time, and epochs are unique
 * over all of them, so what belongs to an old one is fenced.
 *
 * The insight: KafkaJS can stop without a word. A deleted topic, or a join
 * answered at the wrong moment, leaves it without events for ever. Its pulse is
 * the `FETCH` event, which comes every `maxWait` also when all is paused. And a
 * member whose coordinator has not answered for a session has lost its
 * partitions, whether it knows or not.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Broker from "../../../Broker.ts"
import * as Admin from "../kafka/admin.ts"
import type { Cluster } from "../kafka/cluster.ts"
import * as Commits from "../kafka/commits.ts"
import { brokerError, evicted, type KafkaFailure, toBrokerError, unknownTopic } from "../kafka/failure.ts"
import { retryFor, retryTransient } from "../kafka/retry.ts"
import { logical, physical, type Settings } from "../kafka/settings.ts"
import * as Membership from "./membership.ts"

/** Without a fetch for so long, while the cluster answers, a membership is replaced. */
const stallAfter = 15_000
const pulse = 1_000
/** A membership that was refused within so long after its join will hardly fare better the next time. */
const shortLife = 10_000
/** So many such refusals in a row are told to whoever consumes, who waits longer and says so. */
const mostRefusals = 3

/** Why a membership ended. */
type End =
  | { readonly _tag: "Crashed"; readonly failure: KafkaFailure }
  | { readonly _tag: "Stalled" }
  /** A topic that was gone is back. */
  | { readonly _tag: "TopicsChanged" }

interface Room {
  readonly settings: Settings
  readonly cluster: Cluster
  readonly clock: Clock.Clock
  readonly group: string
  /** Physical names of all topics that were asked for. */
  readonly topics: ReadonlyArray<string>
  readonly nextEpoch: () => number
  readonly onSignal: (signal: Broker.Signal) => Effect.Effect<void>
  /** Memberships so far: each begins with the next broker. */
  opened: number
}

/**
 * The partitions of topics; a missing topic has none. Without an answer the
 * join fails and begins anew: a topic left out would have no reader until the
 * next one, and nobody would know.
 */
const lookUp = ({ clock, cluster, settings }: Room) => (topics: ReadonlyArray<string>) =>
  Effect.forEach(
    topics,
    (topic) =>
      Effect.suspend(() => cluster.describe(topic, clock.currentTimeMillisUnsafe() - 1_000)).pipe(
        retryFor(clock, settings),
        Effect.map((found) => [topic, found.partitions.map(({ partition }) => partition)] as const),
        Effect.catchIf(unknownTopic, () => Effect.succeed([topic, []] as const)),
        Effect.catch((failure) => Effect.die(failure.error))
      )
  ).pipe(Effect.map((entries) => new Map<string, ReadonlyArray<number>>(entries)))

/** Which topics exist; fails if the cluster does not answer. */
const existing = (room: Room) => Effect.filter(room.topics, (topic) => Admin.exists(room.cluster, room.clock, topic))

/** Watches a membership until it ends. */
const watch = (room: Room, membership: Membership.Membership, topics: ReadonlyArray<string>): Effect.Effect<End> => {
  const { clock, cluster, settings } = room
  const answers = Effect.isSuccess(Admin.exists(cluster, clock, topics[0]!))
  const missing = room.topics.filter((topic) => !topics.includes(topic))
  const look = Effect.gen(function*() {
    for (let round = 1;; round++) {
      yield* Effect.sleep(pulse)
      const { delivering, lastActivity, lastContact, state } = membership.vitals()
      const now = clock.currentTimeMillisUnsafe()
      // KafkaJS sends no heartbeats while its fetches fail, or a batch is being taken.
      if (state === "Granted" && now - lastContact > 2 * settings.heartbeatInterval) yield* membership.keepAlive
      // Earlier than the coordinator, so that nobody else has the partitions yet.
      if (state === "Granted" && now - lastContact > settings.sessionTimeout - pulse) {
        yield* Effect.logWarning("The group's session is over without an answer from its coordinator")
        yield* membership.lose
        if (yield* answers) return stalled
      } else if (state === "Granted" && !delivering && now - lastActivity > stallAfter && (yield* answers)) {
        return stalled
      } else if (
        state === "Outside" && now - lastActivity > settings.rebalanceTimeout + stallAfter && (yield* answers)
      ) {
        return stalled
      }
      const replaced = state === "Granted" && round % 5 === 0 ? yield* membership.replaced : []
      if (replaced.length > 0) {
        yield* Effect.annotateLogs(Effect.logWarning("A topic was created again, and is read from its beginning"), {
          group: room.group,
          topics: replaced.map((topic) => logical(settings, topic))
        })
        // Joins again: positions come with the id of the topic that they are in.
        yield* membership.lose
      }
      for (const topic of round % 10 === 0 ? missing : []) {
        const back = Effect.orElseSucceed(Admin.exists(cluster, clock, topic), () => false)
        if (yield* back) return topicsChanged
      }
    }
  })
  const crashed = Effect.catch(membership.crashed, (failure) => Effect.succeed<End>({ _tag: "Crashed", failure }))
  return Effect.raceFirst(crashed, look)
}

const stalled: End = { _tag: "Stalled" }
const topicsChanged: End = { _tag: "TopicsChanged" }

const open = (room: Room, topics: ReadonlyArray<string>) =>
  Membership.make({
    settings: room.settings,
    group: room.group,
    topics,
    first: room.opened++,
    nextEpoch: room.nextEpoch,
    onSignal: room.onSignal,
    lookUp: lookUp(room)
  })

const refusal = (room: Room, operation: string, failure: KafkaFailure) =>
  toBrokerError(failure, { operation, address: room.settings.address, tried: operation })

/** What a subscription knows of itself. */
interface Subscribed extends Room {
  readonly scope: Scope.Scope
  /** Completed by the first join, or by what made it hopeless. */
  readonly joined: Deferred.Deferred<void, Broker.BrokerError>
  readonly failed: Deferred.Deferred<never, Broker.BrokerError>
  current: Membership.Membership | undefined
}

/** One membership from its beginning to its end. */
const live = Effect.fnUntraced(function*(self: Subscribed, topics: ReadonlyArray<string>) {
  const own = yield* Scope.fork(self.scope)
  const opened = yield* Effect.result(Scope.provide(open(self, topics), own))
  if (opened._tag === "Failure") {
    yield* Scope.close(own, Exit.void)
    return { end: { _tag: "Crashed", failure: opened.failure } satisfies End, lifeMillis: undefined }
  }
  const membership = opened.success
  self.current = membership
  let joinedMillis: number | undefined
  const noted = Effect.tap(membership.joined, () => {
    joinedMillis = self.clock.currentTimeMillisUnsafe()
    return Deferred.succeed(self.joined, undefined)
  })
  const end = yield* Effect.raceFirst(watch(self, membership, topics), Effect.andThen(noted, Effect.never))
  yield* membership.lose
  self.current = undefined
  yield* Scope.close(own, Exit.void)
  return {
    end,
    lifeMillis: joinedMillis === undefined ? undefined : self.clock.currentTimeMillisUnsafe() - joinedMillis
  }
})

/** What waiting cannot mend, such as a login or a right that is refused. */
const hopeless = (self: Subscribed, end: End): Broker.BrokerError | undefined =>
  end._tag === "Crashed" && !end.failure.transient && !evicted(end.failure)
    ? refusal(self, `let group "${self.group}" read`, end.failure)
    : undefined

/** The topics to go on with; fails when there are none. */
const remaining = Effect.fnUntraced(function*(self: Subscribed, topics: ReadonlyArray<string>) {
  const left = yield* Effect.mapError(retryTransient(existing(self)), (failure) => refusal(self, "subscribe", failure))
  const gone = topics.filter((topic) => !left.includes(topic)).map((topic) => logical(self.settings, topic))
  if (left.length === 0) {
    return yield* brokerError(new Broker.UnknownTopic({ topic: gone[0] ?? logical(self.settings, self.topics[0]!) }))
  }
  if (gone.length > 0) {
    yield* Effect.annotateLogs(Effect.logError("A topic that is subscribed to no longer exists"), {
      group: self.group,
      topics: gone
    })
  }
  return left
})

/** One membership after another, as long as there is something to read. */
const supervise = Effect.fnUntraced(function*(self: Subscribed): Effect.fn.Return<never, Broker.BrokerError> {
  let topics = self.topics
  for (let failures = 0, refusals = 0;;) {
    const { end, lifeMillis } = yield* live(self, topics)
    failures = lifeMillis === undefined ? failures + 1 : 0
    const reason = hopeless(self, end)
    refusals = reason === undefined ? 0 : lifeMillis !== undefined && lifeMillis > shortLife ? 1 : refusals + 1
    if (reason !== undefined && (refusals >= mostRefusals || !(yield* Deferred.isDone(self.joined)))) {
      return yield* reason
    }
    yield* Effect.annotateLogs(Effect.logWarning("The consumer is built anew"), {
      group: self.group,
      reason: end._tag === "Crashed" ? end.failure.detail : end._tag
    })
    yield* Effect.sleep(Math.min(30_000, 250 * 2 ** Math.min(Math.max(failures, refusals), 7)))
    topics = yield* remaining(self, topics)
  }
})

/** All topics must be there at the start. */
const checkTopics = Effect.fnUntraced(function*(room: Room) {
  const found = yield* retryFor(room.clock, room.settings)(existing(room)).pipe(
    Effect.mapError((failure) => refusal(room, "subscribe", failure))
  )
  const absent = room.topics.find((topic) => !found.includes(topic))
  if (absent !== undefined) {
    return yield* brokerError(new Broker.UnknownTopic({ topic: logical(room.settings, absent) }))
  }
})

/** Waits for the first join: others may take their rebalance timeout to let us in. */
const awaitJoin = ({ group, joined, settings }: Subscribed) => {
  const duration = settings.rebalanceTimeout + 30_000
  return Effect.timeoutOrElse(Deferred.await(joined), {
    duration,
    orElse: () =>
      Effect.fail(brokerError(
        new Broker.Unreachable({
          address: settings.address,
          tried: `joining group "${group}" for ${duration} ms`,
          cause: new Error("the group did not let us in")
        })
      ))
  })
}

/** Joins a group; see `Broker.subscribe`. */
export const subscribe = (settings: Settings, cluster: Cluster): Broker.Broker["Service"]["subscribe"] =>
  Effect.fnUntraced(function*(options) {
    let epochs = 0
    const self: Subscribed = {
      settings,
      cluster,
      clock: yield* Clock.Clock,
      group: settings.groupPrefix + options.group,
      topics: [...new Set(options.topics)].map((topic) => physical(settings, topic)),
      nextEpoch: () => ++epochs,
      onSignal: options.onSignal,
      opened: 0,
      // Closed with the subscription, and not before: a membership that is built later would otherwise end first,
      // and what drains at the end could commit nothing.
      scope: yield* Effect.flatMap(Effect.scope, (scope) => Scope.fork(scope)),
      joined: yield* Deferred.make<void, Broker.BrokerError>(),
      failed: yield* Deferred.make<never, Broker.BrokerError>(),
      current: undefined
    }
    yield* checkTopics(self)
    yield* supervise(self).pipe(
      Effect.catchCause((cause) =>
        Effect.andThen(Deferred.failCause(self.joined, cause), Deferred.failCause(self.failed, cause))
      ),
      Effect.forkScoped
    )
    yield* awaitJoin(self)
    return {
      failed: Deferred.await(self.failed),
      pause: (partitions) => Effect.sync(() => self.current?.pause(partitions)),
      resume: (partitions) => Effect.sync(() => self.current?.resume(partitions)),
      trusted: () => self.current?.trusted() ?? true,
      commit: yield* Commits.make({
        settings,
        cluster,
        commit: (positions) => self.current === undefined ? Commits.outside : self.current.commit(positions)
      })
    }
  })

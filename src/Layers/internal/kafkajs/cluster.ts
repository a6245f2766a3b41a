/**
 * Owns a connection to the cluster that belongs to no group: who leads a
 * partition, and a broker to send a request to. Producers, tails and topic
 * creation stand on it.
 *
 * Invariant: a call ends within `patience`, however KafkaJS behaves; whoever
 * calls has the retry loop and the deadline.
 *
 * The insights: KafkaJS refreshes the metadata of all its target topics in one
 * request, and throws everything away if one of them is in error. So each
 * refresh here names a single topic, and what was known stays known when a
 * refresh fails. A connection of KafkaJS that fails under several requests is
 * disconnected once for each of them, whatever has become of it meanwhile; so a
 * broker that failed is forgotten, and looked up anew. And a cluster can wedge
 * (a login that never answers), so one that lets a call hang is replaced:
 * requests are idempotent or reads. So is one that has nothing but a first
 * broker that takes connections and says nothing, as a frozen one does: KafkaJS
 * would ask that one for ever, and no other.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type * as Kafka from "../kafka/cluster.ts"
import { type KafkaFailure, noAnswer, protocolFailure } from "../kafka/failure.ts"
import type { Settings } from "../kafka/settings.ts"
import * as Connection from "./connection.ts"
import { attempt, isConnectionError } from "./errors.ts"
import type { Network, Node } from "./internals.ts"
import * as Nodes from "./nodes.ts"

interface Link {
  readonly door: Connection.Door
  readonly network: Network
  readonly scope: Scope.Closeable
}

const addressOf = (node: Node) => {
  const end = node.brokerAddress.lastIndexOf(":")
  return { host: node.brokerAddress.slice(0, end), port: Number(node.brokerAddress.slice(end + 1)) }
}

/** The present link, and what was heard over it and its predecessors. */
interface Links {
  readonly settings: Settings
  readonly scope: Scope.Scope
  readonly now: () => number
  /** One refresh at a time: KafkaJS has one list of target topics. */
  readonly mutex: Semaphore.Semaphore
  readonly known: Map<string, Kafka.Description>
  opened: number
  present: Link | undefined
}

const openLink = Effect.fnUntraced(function*(links: Links) {
  const scope = yield* Scope.fork(links.scope)
  const door = yield* Scope.provide(Connection.open(links.settings, Connection.impatient, links.opened++), scope)
  const link: Link = { door, network: Connection.network(links.settings, door), scope }
  links.present = link
  return link
})

const current = (links: Links): Effect.Effect<Link> =>
  Effect.suspend(() => links.present === undefined ? openLink(links) : Effect.succeed(links.present))

const replace = (links: Links, broken: Link) =>
  Effect.suspend(() => {
    if (links.present === broken) links.present = undefined
    return Scope.close(broken.scope, Exit.void)
  })

/** A link that hears nothing from the only broker that it knows. Where a connection fails, KafkaJS tries the next one. */
const isDeaf = ({ network }: Link, failure: KafkaFailure): boolean =>
  failure.unanswered && !isConnectionError(failure) && !network.brokerPool.hasConnectedBrokers()

/**
 * Calls KafkaJS; a call that hangs takes its link with it. What else was under
 * way over that link then fails for reasons of every kind ("brokers array is
 * empty"), which say nothing about the brokers.
 */
const bounded = <A>(links: Links, used: Link, call: () => Promise<A>, within = links.settings.requestTimeout + 5_000) =>
  Effect.mapError(attempt(call), (failure) => links.present === used ? failure : noAnswer).pipe(
    Effect.tapError((failure) => isDeaf(used, failure) ? replace(links, used) : Effect.void),
    Effect.timeoutOrElse({
      duration: within,
      orElse: () => Effect.andThen(replace(links, used), Effect.fail(noAnswer))
    })
  )

/** Requests that fail together must not disconnect, one after another, what has been connected anew. */
const forget = (used: Link, node: Node) => {
  const { brokers } = used.network.brokerPool
  if (Object.values(brokers).includes(node)) used.network.removeBroker(addressOf(node))
}

const overtaken = protocolFailure("LEADER_NOT_AVAILABLE", "The metadata of other topics came instead", true)

/** How often an answer that covers other topics is asked for again. */
const mostOvertaken = 5

const refresh = Effect.fnUntraced(function*(
  links: Links,
  topic: string
): Effect.fn.Return<Kafka.Description, KafkaFailure> {
  for (let tries = 0; tries < mostOvertaken; tries++) {
    const used = yield* current(links)
    const at = links.now()
    used.network.targetTopics.clear()
    used.network.targetTopics.add(topic)
    // Not `network.refreshMetadata`: KafkaJS calls that itself when it does not reach a broker, for the topics of that
    // moment, and whoever calls it meanwhile shares that answer, or that error, about other topics.
    yield* bounded(links, used, () => used.network.brokerPool.refreshMetadata([topic]))
    const found = used.network.findTopicPartitionMetadata(topic)
    // A topic that does not exist is an error and not an empty list: KafkaJS's own refresh was faster.
    if (found.length === 0) continue
    const partitions = found.map(({ leader, partitionId, replicas }) => ({
      partition: partitionId,
      leader,
      replicas: replicas.length
    }))
    const description = { at, partitions }
    links.known.set(topic, description)
    return description
  }
  return yield* overtaken
})

const describe = (links: Links): Kafka.Cluster["describe"] => (topic, notBefore) => {
  const orElse = (refreshed: Effect.Effect<Kafka.Description, KafkaFailure>) =>
    Effect.suspend(() => {
      const known = links.known.get(topic)
      return known !== undefined && known.at >= notBefore ? Effect.succeed(known) : refreshed
    })
  // Looked at again inside, since somebody else may have asked meanwhile.
  return orElse(links.mutex.withPermit(orElse(refresh(links, topic))))
}

const anyNode = (links: Links) =>
  Effect.flatMap(current(links), (used) =>
    Effect.flatMap(bounded(links, used, () => used.network.connect()), () => {
      const { brokers, seedBroker } = used.network.brokerPool
      const node = [...Object.values(brokers), seedBroker].find((node) => node?.isConnected() === true)
      return node === undefined ? Effect.fail(noAnswer) : Effect.succeed(node)
    }))

const controller = (links: Links) =>
  Effect.flatMap(current(links), (used) =>
    bounded(links, used, () => {
      used.network.targetTopics.clear()
      return used.network.refreshMetadata().then(() => used.network.findControllerBroker())
    })).pipe(Semaphore.withPermit(links.mutex))

/** A request; without an answer the connection is given up. */
const request = (links: Links, node: Node) => <A>(call: (node: Node) => Promise<A>): Effect.Effect<A, KafkaFailure> =>
  Effect.flatMap(
    current(links),
    (used) =>
      Effect.tapError(bounded(links, used, () => call(node)), (failure) =>
        Effect.sync(() => {
          if (failure.unanswered) forget(used, node)
        }))
  )

const nodeOf = (links: Links) => (node: Node): Kafka.Node =>
  Nodes.make(
    links.settings,
    request(links, node),
    Effect.sync(() => links.present?.door.hangUp(node.brokerAddress)),
    links.now
  )

export interface Cluster extends Kafka.Cluster {
  /** Calls KafkaJS. A call that takes longer than so many milliseconds takes its link with it. */
  readonly call: <A>(call: () => Promise<A>, within: number) => Effect.Effect<A, KafkaFailure>
}

/** Opens a cluster; connecting happens with the first call. Closing the scope closes it. */
export const make = Effect.fnUntraced(function*(
  settings: Settings
): Effect.fn.Return<Cluster, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const links: Links = {
    settings,
    scope: yield* Effect.scope,
    now: () => clock.currentTimeMillisUnsafe(),
    mutex: yield* Semaphore.make(1),
    known: new Map(),
    opened: 0,
    present: undefined
  }
  const broker = (id: number) =>
    Effect.flatMap(current(links), (used) => bounded(links, used, () => used.network.findBroker({ nodeId: id })))
  return {
    describe: describe(links),
    known: (topic) => links.known.get(topic),
    call: (call, within) => Effect.flatMap(current(links), (used) => bounded(links, used, call, within)),
    node: (id) => Effect.map(broker(id), nodeOf(links)),
    anyNode: Effect.map(anyNode(links), nodeOf(links)),
    controller: Effect.map(controller(links), nodeOf(links))
  }
})

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
 * requests are idempotent or reads.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { PartitionMetadata } from "kafkajs"
import * as Connection from "./connection.ts"
import { attempt, KafkaJsFailure } from "./errors.ts"
import type { Network, Node } from "./internals.ts"
import type { Settings } from "./settings.ts"

/** What was last heard of a topic, and when. */
export interface Description {
  readonly at: number
  readonly partitions: ReadonlyArray<PartitionMetadata>
}

export interface Cluster {
  /** The partitions of a (physical) topic, heard of at `notBefore` or later if the brokers answer. */
  readonly describe: (topic: string, notBefore: number) => Effect.Effect<Description, KafkaJsFailure>
  /** The broker with this id, connected. */
  readonly node: (id: number) => Effect.Effect<Node, KafkaJsFailure>
  /** Any broker, connected: for requests that every broker answers. */
  readonly anyNode: Effect.Effect<Node, KafkaJsFailure>
  readonly controller: Effect.Effect<Node, KafkaJsFailure>
  /** A request within `patience`; without an answer the connection is given up. */
  readonly request: <A>(
    node: Node,
    call: (node: Node) => Promise<A>,
    patience?: number
  ) => Effect.Effect<A, KafkaJsFailure>
  /** Destroys the connections to a broker: nothing that waits there leaves any more. */
  readonly hangUp: (node: Node) => Effect.Effect<void>
}

interface Link {
  readonly door: Connection.Door
  readonly network: Network
  readonly scope: Scope.Closeable
}

const addressOf = (node: Node) => {
  const end = node.brokerAddress.lastIndexOf(":")
  return { host: node.brokerAddress.slice(0, end), port: Number(node.brokerAddress.slice(end + 1)) }
}

const hung = new KafkaJsFailure({
  error: Object.assign(new Error("KafkaJS did not answer"), { name: "KafkaJSRequestTimeoutError", retriable: true })
})

/** Opens a cluster; connecting happens with the first call. Closing the scope closes it. */
export const make = Effect.fnUntraced(function*(settings: Settings): Effect.fn.Return<Cluster, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const clock = yield* Clock.Clock
  const patience = settings.requestTimeout + 5_000
  const mutex = yield* Semaphore.make(1)
  const known = new Map<string, Description>()
  let opened = 0
  let link: Link | undefined

  const openLink = Effect.fnUntraced(function*() {
    const linkScope = yield* Scope.fork(scope)
    const door = yield* Scope.provide(Connection.open(settings, Connection.impatient, opened++), linkScope)
    link = { door, network: Connection.network(settings, door), scope: linkScope }
    return link
  })
  const current = Effect.suspend(() => link === undefined ? openLink() : Effect.succeed(link))
  const replace = (broken: Link) =>
    Effect.suspend(() => {
      if (link === broken) link = undefined
      return Scope.close(broken.scope, Exit.void)
    })

  const bounded = <A>(used: Link, call: () => Promise<A>, within = patience) =>
    attempt(call).pipe(
      Effect.timeoutOrElse({
        duration: within,
        orElse: () => Effect.andThen(replace(used), Effect.fail(hung))
      })
    )

  /** Requests that fail together must not disconnect, one after another, what has been connected anew. */
  const forget = (used: Link, node: Node) => {
    const { brokers } = used.network.brokerPool
    if (Object.values(brokers).includes(node)) used.network.removeBroker(addressOf(node))
  }

  const refresh = Effect.fnUntraced(function*(topic: string) {
    const used = yield* current
    const at = clock.currentTimeMillisUnsafe()
    used.network.targetTopics.clear()
    used.network.targetTopics.add(topic)
    yield* bounded(used, () => used.network.refreshMetadata())
    const description = { at, partitions: used.network.findTopicPartitionMetadata(topic) }
    known.set(topic, description)
    return description
  })

  const describe = (topic: string, notBefore: number): Effect.Effect<Description, KafkaJsFailure> => {
    const fresh = () => {
      const description = known.get(topic)
      return description !== undefined && description.at >= notBefore ? description : undefined
    }
    return Effect.suspend(() => {
      const description = fresh()
      if (description !== undefined) return Effect.succeed(description)
      return mutex.withPermit(Effect.suspend(() => {
        const meanwhile = fresh()
        return meanwhile !== undefined ? Effect.succeed(meanwhile) : refresh(topic)
      }))
    })
  }

  return {
    describe,
    node: (id) => Effect.flatMap(current, (used) => bounded(used, () => used.network.findBroker({ nodeId: id }))),
    anyNode: Effect.flatMap(current, (used) =>
      bounded(used, () => used.network.connect()).pipe(
        Effect.flatMap(() => {
          const nodes = [...Object.values(used.network.brokerPool.brokers), used.network.brokerPool.seedBroker]
          const node = nodes.find((node) => node?.isConnected() === true)
          return node === undefined ? Effect.fail(hung) : Effect.succeed(node)
        })
      )),
    controller: Effect.flatMap(current, (used) =>
      bounded(used, () => {
        used.network.targetTopics.clear()
        return used.network.refreshMetadata().then(() => used.network.findControllerBroker())
      })).pipe(mutex.withPermit),
    request: (node, call, within) =>
      Effect.flatMap(current, (used) =>
        Effect.tapError(bounded(used, () => call(node), within), (failure) =>
          Effect.sync(() => {
            if (failure.unanswered) forget(used, node)
          }))),
    hangUp: (node) => Effect.sync(() => link?.door.hangUp(node.brokerAddress))
  }
})

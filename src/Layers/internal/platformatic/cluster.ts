/**
 * Owns a connection to the cluster over `@platformatic/kafka`: where the
 * brokers are, who leads a partition, and requests to single brokers.
 *
 * Invariant: a call is one request, ends within `connectTimeout` or
 * `requestTimeout`, and is tried again by nobody here.
 *
 * The insights: the clients that the package offers retry by themselves, share
 * one connection for what waits and what does not, ask the first bootstrap
 * broker first for ever, and lose acknowledged messages when several sends are
 * under way. What lies below them does none of that: `Connection`, and the
 * requests of the protocol by version. The versions here are all spoken by
 * Kafka 2.8 and newer.
 */
import {
  createTopicsV5,
  describeConfigsV4,
  initProducerIdV4,
  listOffsetsV6,
  metadataV10,
  protocolErrorsCodesById
} from "@platformatic/kafka"
import type { Connection } from "@platformatic/kafka"
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { TopicPartition } from "../../../Broker.ts"
import type * as Kafka from "../kafka/cluster.ts"
import { isTransientType, type KafkaFailure, protocolFailure } from "../kafka/failure.ts"
import type { Settings } from "../kafka/settings.ts"
import * as TopicLabel from "../kafka/topicLabel.ts"
import * as Connections from "./connections.ts"
import { attempt } from "./errors.ts"
import * as FetchAnswer from "./fetchAnswer.ts"
import * as ProduceRequest from "./produceRequest.ts"

/** What was heard of a topic, with the id that tells it from another one of its name. */
export interface Description extends Kafka.Description {
  readonly topicId: string | undefined
}

export interface Cluster extends Kafka.Cluster {
  readonly describe: (topic: string, notBefore: number) => Effect.Effect<Description, KafkaFailure>
  /** Asks any broker, and goes on to the next one when it does not answer. */
  readonly askAny: <A>(ask: (connection: Connection) => Promise<A>) => Effect.Effect<A, KafkaFailure>
}

/** What is known of the cluster. */
interface Known {
  readonly settings: Settings
  readonly connections: Connections.Connections
  readonly now: () => number
  readonly topics: Map<string, Description>
  readonly mutex: Semaphore.Semaphore
  brokers: ReadonlyMap<number, Connections.Address>
  controllerId: number
  /** Counts the brokers that did not answer: the next question goes to the next one. */
  turn: number
}

/** `host:port`, or `[::1]:port`. */
export const parseAddress = (text: string): Connections.Address => {
  const end = text.lastIndexOf(":")
  return { host: text.slice(0, end).replace(/^\[(.*)\]$/, "$1"), port: Number(text.slice(end + 1)) }
}

/** What a code of the protocol means, for one partition. */
export const failureOfCode = (code: number, subject?: TopicPartition): KafkaFailure => {
  const type = protocolErrorsCodesById[code] ?? "UNKNOWN_SERVER_ERROR"
  return protocolFailure(type, `the broker answers ${type}`, isTransientType(type), subject)
}

/** A broker that did not answer before may do so later, and others are asked first. */
const candidates = ({ brokers, settings, turn }: Known): ReadonlyArray<Connections.Address> => {
  const all = [...settings.brokers.map(parseAddress), ...brokers.values()]
  const distinct = [...new Map(all.map((address) => [`${address.host}:${address.port}`, address])).values()]
  const first = turn % distinct.length
  return [...distinct.slice(first), ...distinct.slice(0, first)]
}

/** A broker that refuses the connection leaves time for the next one; one that is silent has used it up. */
const soon = 1_000

const askAny = (known: Known) => <A>(ask: (connection: Connection) => Promise<A>): Effect.Effect<A, KafkaFailure> =>
  Effect.suspend(() => {
    const started = known.now()
    const loop = ([address, ...others]: ReadonlyArray<Connections.Address>): Effect.Effect<A, KafkaFailure> =>
      Effect.flatMap(known.connections.get(address!, "talk"), (connection) => attempt(() => ask(connection))).pipe(
        Effect.catchIf((failure) => failure.unanswered, (failure) => {
          known.turn++
          return others.length > 0 && known.now() - started < soon ? loop(others) : Effect.fail(failure)
        })
      )
    return loop(candidates(known))
  })

type Metadata = Awaited<ReturnType<typeof metadataV10.api.async>>

/** The client throws away an answer in which anything is in error, but for one property of what it throws. */
const evenWithErrors = (error: unknown): Promise<Metadata> => {
  const { response } = error as { readonly response?: Metadata }
  return response === undefined ? Promise.reject(error) : Promise.resolve(response)
}

const heard = (known: Known, { brokers, controllerId }: Metadata): void => {
  known.brokers = new Map(brokers.map(({ host, nodeId, port }) => [nodeId, { host, port }]))
  known.controllerId = controllerId
}

const refresh = Effect.fnUntraced(function*(
  known: Known,
  topic: string
): Effect.fn.Return<Description, KafkaFailure> {
  const at = known.now()
  const metadata = yield* askAny(known)((connection) =>
    metadataV10.api.async(connection, [topic], false, false, false).catch(evenWithErrors)
  )
  heard(known, metadata)
  const found = metadata.topics.find(({ name }) => name === topic)
  if (found === undefined || found.errorCode !== 0) return yield* failureOfCode(found?.errorCode ?? 3)
  const partitions = found.partitions.map(({ leaderId, partitionIndex, replicaNodes }) => ({
    partition: partitionIndex,
    leader: leaderId,
    replicas: replicaNodes.length
  }))
  const topicId = TopicLabel.idOf(Buffer.from(found.topicId.replaceAll("-", ""), "hex"))
  const description = { at, topicId, partitions }
  known.topics.set(topic, description)
  return description
})

const describe = (known: Known): Cluster["describe"] => (topic, notBefore) => {
  const orElse = (refreshed: Effect.Effect<Description, KafkaFailure>) =>
    Effect.suspend(() => {
      const found = known.topics.get(topic)
      return found !== undefined && found.at >= notBefore ? Effect.succeed(found) : refreshed
    })
  // Looked at again inside, since somebody else may have asked meanwhile.
  return orElse(known.mutex.withPermit(orElse(refresh(known, topic))))
}

const lookAround = (known: Known) =>
  Effect.map(
    askAny(known)((connection) => metadataV10.api.async(connection, [], false, false, false).catch(evenWithErrors)),
    (metadata) => heard(known, metadata)
  )

const gone = (id: number) => protocolFailure("BROKER_NOT_AVAILABLE", `broker ${id} is not known`, true)

const addressOf = (known: Known) => (id: number): Effect.Effect<Connections.Address, KafkaFailure> => {
  const find = Effect.suspend(() => {
    const address = known.brokers.get(id)
    return address === undefined ? Effect.fail(gone(id)) : Effect.succeed(address)
  })
  return Effect.catch(find, () => Effect.andThen(lookAround(known), find))
}

const timestampOf = (place: Kafka.Place): bigint => place === "begin" ? -2n : place === "end" ? -1n : BigInt(place)

const fetchTopics = (settings: Settings, positions: ReadonlyArray<Kafka.FetchPosition>) =>
  Object.entries(Arr.groupBy(positions, ({ topic }) => topic)).map(([topic, ofTopic]) => ({
    // The field has the name of later versions.
    topicId: topic,
    partitions: ofTopic.map(({ offset, partition }) => ({
      partition,
      currentLeaderEpoch: -1,
      fetchOffset: offset,
      lastFetchedEpoch: -1,
      partitionMaxBytes: settings.maxBytesPerPartition
    }))
  }))

const fetched = ({ errorCode, partitions }: FetchAnswer.Answer): Effect.Effect<Array<Kafka.Fetched>, KafkaFailure> =>
  errorCode !== 0
    ? Effect.fail(failureOfCode(errorCode))
    : Effect.succeed(partitions.map(({ errorCode, partition, records, topic }) =>
      errorCode === 0
        ? { topic, partition, records }
        : { topic, partition, records, failure: failureOfCode(errorCode, { topic, partition }) }
    ))

/** An answer that does not cover what was asked about. */
const uncovered = protocolFailure("NETWORK_EXCEPTION", "The answer does not cover the partition", true)

const topicResource = 2

const nodeAt = ({ connections, now, settings }: Known, address: Connections.Address): Kafka.Node => {
  const talk = <A>(ask: (connection: Connection) => Promise<A>, subject?: TopicPartition) =>
    Effect.flatMap(connections.get(address, "talk"), (connection) => attempt(() => ask(connection), subject))
  return {
    initProducerId: Effect.map(
      talk((connection) => initProducerIdV4.api.async(connection, null, 60_000, -1n, -1)),
      ({ producerEpoch, producerId }) => ({ producerEpoch, producerId })
    ),
    produce: (batch) =>
      Effect.flatMap(talk((connection) => ProduceRequest.api.async(connection, batch, now()), batch), (answer) => {
        const found = answer.responses[0]?.partitionResponses[0]
        return found === undefined ? Effect.fail(uncovered) : Effect.succeed(found.baseOffset)
      }),
    fetch: (positions) =>
      Effect.flatMap(
        connections.borrow(address, "fetch", (connection) =>
          attempt(() =>
            FetchAnswer.api.async(
              connection,
              settings.maxWait,
              1,
              settings.maxBytes,
              1,
              0,
              -1,
              fetchTopics(settings, positions),
              [],
              ""
            )
          )),
        fetched
      ),
    offsetOf: ({ partition, topic }, place) =>
      Effect.flatMap(
        talk((connection) =>
          listOffsetsV6.api.async(connection, -1, 1, [{
            name: topic,
            partitions: [{ partitionIndex: partition, currentLeaderEpoch: -1, timestamp: timestampOf(place) }]
          }])
        ),
        ({ topics }) => {
          const found = topics[0]?.partitions[0]
          return found === undefined ? Effect.fail(uncovered) : Effect.succeed(found.offset)
        }
      ),
    createTopic: (name, { config = {}, partitions = -1, replicationFactor = -1 }) =>
      Effect.asVoid(talk((connection) =>
        createTopicsV5.api.async(
          connection,
          [{
            name,
            numPartitions: partitions,
            replicationFactor,
            assignments: [],
            configs: Object.entries(config).map(([name, value]) => ({ name, value }))
          }],
          settings.requestTimeout,
          false
        )
      )),
    configOf: (resourceName, names) =>
      Effect.map(
        talk((connection) =>
          describeConfigsV4.api.async(
            connection,
            [{ resourceType: topicResource, resourceName, configurationKeys: [...names] }],
            false,
            false
          )
        ),
        ({ results }) => {
          const config: { [name: string]: string } = {}
          for (const { name, value } of results[0]?.configs ?? []) if (value != null) config[name] = value
          return config
        }
      ),
    hangUp: Effect.sync(() => connections.hangUp(address))
  }
}

/** Opens a cluster; connecting happens with the first call. Closing the scope closes it. */
export const make = Effect.fnUntraced(function*(
  settings: Settings
): Effect.fn.Return<Cluster, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const known: Known = {
    settings,
    connections: yield* Connections.make(settings),
    now: () => clock.currentTimeMillisUnsafe(),
    topics: new Map(),
    mutex: yield* Semaphore.make(1),
    brokers: new Map(),
    controllerId: -1,
    turn: 0
  }
  const node = (id: number) => Effect.map(addressOf(known)(id), (address) => nodeAt(known, address))
  const anyId = Effect.map(lookAround(known), () => [...known.brokers.keys()][0] ?? -1)
  return {
    describe: describe(known),
    known: (topic) => known.topics.get(topic),
    node,
    anyNode: Effect.flatMap(anyId, node),
    controller: Effect.flatMap(Effect.andThen(lookAround(known), Effect.sync(() => known.controllerId)), node),
    askAny: askAny(known)
  }
})

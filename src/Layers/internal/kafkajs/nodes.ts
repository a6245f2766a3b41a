/**
 * Owns the requests to a broker in the form that KafkaJS wants them, and its
 * answers in ours.
 *
 * Invariant: a call is one request; nothing is tried again here.
 */
import * as Effect from "effect/Effect"
import type * as Kafka from "../kafka/cluster.ts"
import { type KafkaFailure, protocolFailure } from "../kafka/failure.ts"
import type { Settings } from "../kafka/settings.ts"
import type { FetchRequest, Node, ProduceRequest } from "./internals.ts"
import * as OwnRequest from "./ownRequest.ts"
import * as ProduceBody from "./produceBody.ts"

/** What KafkaJS makes of the batch is not sent: `produceBody.ts` writes the body. */
const produceRequest = ({ identity, partition, sequence, timeout, topic }: Kafka.Produce): ProduceRequest => ({
  acks: -1,
  timeout,
  producerId: identity.producerId.toString(),
  producerEpoch: identity.producerEpoch,
  topicData: [{ topic, partitions: [{ partition, firstSequence: sequence, messages: [] }] }]
})

const fetchRequest = (settings: Settings, positions: ReadonlyArray<Kafka.FetchPosition>): FetchRequest => {
  const byTopic = new Map<string, Array<{ partition: number; fetchOffset: string; maxBytes: number }>>()
  for (const { offset, partition, topic } of positions) {
    const partitions = byTopic.get(topic) ?? []
    partitions.push({ partition, fetchOffset: offset.toString(), maxBytes: settings.maxBytesPerPartition })
    byTopic.set(topic, partitions)
  }
  return {
    isolationLevel: 1,
    maxWaitTime: settings.maxWait,
    minBytes: 1,
    maxBytes: settings.maxBytes,
    rackId: "",
    topics: [...byTopic].map(([topic, partitions]) => ({ topic, partitions }))
  }
}

const produce = (batch: Kafka.Produce, timestamp: number) => (node: Node) =>
  OwnRequest.sendBody(node, ProduceBody.make(batch, timestamp), (node) => node.produce(produceRequest(batch)))

const timestampOf = (place: Kafka.Place): number => place === "begin" ? -2 : place === "end" ? -1 : place

/** An answer that does not cover what was asked about. */
const uncovered = protocolFailure("NETWORK_EXCEPTION", "The answer does not cover the partition", true)

/** A broker of KafkaJS in the form of the contract. `request` carries a call to it, and `hangUp` ends its connections. */
export const make = (
  settings: Settings,
  request: <A>(call: (node: Node) => Promise<A>) => Effect.Effect<A, KafkaFailure>,
  hangUp: Effect.Effect<void>,
  now: () => number
): Kafka.Node => ({
  initProducerId: Effect.map(
    request((node) => node.initProducerId({ transactionTimeout: 60_000 })),
    ({ producerEpoch, producerId }) => ({ producerEpoch, producerId: BigInt(producerId) })
  ),
  produce: (batch) =>
    Effect.flatMap(request(produce(batch, now())), ({ topics }) => {
      const topic = topics.find(({ topicName }) => topicName === batch.topic)
      const found = topic?.partitions.find(({ partition }) => partition === batch.partition)
      return found?.baseOffset === undefined ? Effect.fail(uncovered) : Effect.succeed(BigInt(found.baseOffset))
    }),
  fetch: (positions) =>
    Effect.map(
      request((node) => node.fetch(fetchRequest(settings, positions))),
      ({ responses }) =>
        responses.flatMap(({ partitions, topicName }) =>
          partitions.map(({ messages, partition }): Kafka.Fetched => ({
            topic: topicName,
            partition,
            records: messages
          }))
        )
    ),
  offsetOf: ({ partition, topic }, place) =>
    Effect.flatMap(
      request((node) =>
        node.listOffsets({
          isolationLevel: 1,
          topics: [{ topic, partitions: [{ partition, timestamp: timestampOf(place) }] }]
        })
      ),
      ({ responses }) => {
        const found = responses[0]?.partitions[0]
        return found === undefined ? Effect.fail(uncovered) : Effect.succeed(BigInt(found.offset))
      }
    ),
  createTopic: (topic, { config = {}, partitions = -1, replicationFactor = -1 }) =>
    Effect.asVoid(request((node) =>
      node.createTopics({
        timeout: settings.requestTimeout,
        topics: [{
          topic,
          numPartitions: partitions,
          replicationFactor,
          configEntries: Object.entries(config).map(([name, value]) => ({ name, value }))
        }]
      })
    )),
  configOf: (name, configNames) =>
    Effect.map(
      request((node) => node.describeConfigs({ resources: [{ type: 2, name, configNames }] })),
      ({ resources }) => {
        const config: { [name: string]: string } = {}
        for (const { configName, configValue } of resources[0]?.configEntries ?? []) {
          if (configValue !== null) config[configName] = configValue
        }
        return config
      }
    ),
  hangUp
})

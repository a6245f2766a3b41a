/** What tests do to Kafka from outside, with a client of their own. */
import * as Effect from "effect/Effect"
import { Kafka, logLevel, Partitioners } from "kafkajs"
import type { Admin, PartitionAssigner } from "kafkajs"
import type { TopicPartition } from "../../../src/Broker.ts"
import type { Network } from "../../../src/Layers/internal/kafkajs/internals.ts"

const kafka = (brokers: ReadonlyArray<string>) => new Kafka({ brokers: [...brokers], logLevel: logLevel.NOTHING })

const withAdmin = <A>(brokers: ReadonlyArray<string>, use: (admin: Admin) => Promise<A>): Effect.Effect<A> =>
  Effect.acquireUseRelease(
    Effect.promise(() => {
      const admin = kafka(brokers).admin()
      return admin.connect().then(() => admin)
    }),
    (admin) => Effect.promise(() => use(admin)),
    (admin) => Effect.promise(() => admin.disconnect())
  )

/** The inside of a client, for what its admin does not offer. */
const withNetwork = <A>(brokers: ReadonlyArray<string>, use: (network: Network) => Promise<A>): Effect.Effect<A> =>
  Effect.promise(() => {
    const found: Array<Network> = []
    const keep: PartitionAssigner = ({ cluster }) => {
      found.push(cluster as unknown as Network)
      return { name: "none", version: 0, assign: () => Promise.resolve([]), protocol: () => nothing }
    }
    kafka(brokers).consumer({ groupId: "none", partitionAssigners: [keep], allowAutoTopicCreation: false })
    const network = found[0]!
    return network.connect()
      .then(() => network.refreshMetadata())
      .then(() => use(network))
      .finally(() => network.disconnect())
  })

const nothing = { name: "none", metadata: Buffer.alloc(0) }

/** Acts on a cluster without the Layer. */
export const outside = (brokers: ReadonlyArray<string>) => ({
  deleteTopic: (topic: string) => withAdmin(brokers, (admin) => admin.deleteTopics({ topics: [topic] })),

  addPartitions: (topic: string, count: number) =>
    Effect.asVoid(
      withAdmin(brokers, (admin) => admin.createPartitions({ topicPartitions: [{ topic, count }] }))
    ),

  deleteRecords: (topic: string, partition: number, before: bigint) =>
    withAdmin(brokers, (admin) =>
      // KafkaJS deletes only in topics whose metadata it has looked at.
      admin.fetchTopicOffsets(topic).then(() =>
        admin.deleteTopicRecords({ topic, partitions: [{ partition, offset: String(before) }] })
      )),

  /** An aborted transaction of one record leaves two offsets without a record to be seen. */
  skipOffsets: ({ partition, topic }: TopicPartition) =>
    Effect.promise(() => {
      const producer = kafka(brokers).producer({
        transactionalId: globalThis.crypto.randomUUID(),
        createPartitioner: Partitioners.DefaultPartitioner,
        idempotent: true,
        maxInFlightRequests: 1,
        retry: { initialRetryTime: 20 }
      })
      return producer.connect()
        .then(() => producer.transaction())
        .then((transaction) =>
          transaction.send({ topic, messages: [{ partition, value: "aborted" }] }).then(() => transaction.abort())
        )
        .finally(() => producer.disconnect())
    }),

  /** Removes the group's only member, as the coordinator does when its heartbeats stop. */
  expire: (group: string) =>
    withNetwork(
      brokers,
      (network) =>
        network.findGroupCoordinator({ groupId: group }).then((node) =>
          node.describeGroups({ groupIds: [group] }).then((answer: Described) =>
            node.leaveGroup({ groupId: group, memberId: answer.groups[0]!.members[0]!.memberId })
          )
        )
    ),

  /** The address of the broker that keeps a group. */
  coordinator: (group: string) =>
    withNetwork(
      brokers,
      (network) => network.findGroupCoordinator({ groupId: group }).then((node) => node.brokerAddress)
    ),

  /** The address of the broker that leads a partition. */
  leader: (topic: string, partition: number) =>
    withNetwork(brokers, (network) =>
      network.addTargetTopic(topic)
        .then(() => network.findTopicPartitionMetadata(topic).find((one) => one.partitionId === partition)!)
        .then(({ leader }) => network.findBroker({ nodeId: leader }))
        .then((node) => node.brokerAddress)),

  /** The committed offsets of a topic, by partition. */
  committed: (group: string, topic: string) =>
    withAdmin(
      brokers,
      (admin) =>
        admin.fetchOffsets({ groupId: group, topics: [topic] }).then((found) =>
          new Map(found[0]!.partitions.map(({ offset, partition }) => [partition, BigInt(offset)]))
        )
    ),

  groups: withAdmin(brokers, (admin) => admin.listGroups().then(({ groups }) => groups.map(({ groupId }) => groupId)))
})

interface Described {
  readonly groups: ReadonlyArray<{ readonly members: ReadonlyArray<{ readonly memberId: string }> }>
}

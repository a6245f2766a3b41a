/** What tests do to Kafka from outside, with a client of their own. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { Kafka, logLevel, Partitioners } from "kafkajs"
import type { Admin, PartitionAssigner, Transaction } from "kafkajs"
import type { TopicPartition } from "../../../src/Broker.ts"
import type { Network, Node } from "../../../src/Layers/internal/kafkajs/internals.ts"

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
const openNetwork = (brokers: ReadonlyArray<string>): Effect.Effect<Network, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => {
      const found: Array<Network> = []
      const keep: PartitionAssigner = ({ cluster }) => {
        found.push(cluster as unknown as Network)
        return { name: "none", version: 0, assign: () => Promise.resolve([]), protocol: () => nothing }
      }
      kafka(brokers).consumer({ groupId: "none", partitionAssigners: [keep], allowAutoTopicCreation: false })
      const network = found[0]!
      return network.connect().then(() => network.refreshMetadata()).then(() => network)
    }),
    (network) => Effect.promise(() => network.disconnect())
  )

/** A producer whose transactions go to one partition: the first `send` after an end begins the next. */
const transactional = (brokers: ReadonlyArray<string>, { partition, topic }: TopicPartition) => {
  const producer = kafka(brokers).producer({
    transactionalId: globalThis.crypto.randomUUID(),
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent: true,
    maxInFlightRequests: 1,
    retry: { initialRetryTime: 20 }
  })
  const connected = producer.connect()
  let open: Promise<Transaction> | undefined
  const end = (how: (transaction: Transaction) => Promise<void>) => {
    const ended = open!.then(how)
    open = undefined
    return ended
  }
  return {
    send: (value: string) => {
      open ??= connected.then(() => producer.transaction())
      return open.then((transaction) => transaction.send({ topic, messages: [{ partition, value }] })).then(() => {})
    },
    abort: () => end((transaction) => transaction.abort()),
    commit: () => end((transaction) => transaction.commit()),
    close: () => producer.disconnect()
  }
}

type Transactional = ReturnType<typeof transactional>

const withTransactions = (
  brokers: ReadonlyArray<string>,
  at: TopicPartition,
  use: (as: (name: string) => Transactional) => Effect.Effect<void>
): Effect.Effect<void> =>
  Effect.suspend(() => {
    const producers = new Map<string, Transactional>()
    const as = (name: string) => {
      const producer = producers.get(name) ?? transactional(brokers, at)
      producers.set(name, producer)
      return producer
    }
    return Effect.ensuring(
      use(as),
      Effect.promise(() => Promise.all(Array.from(producers.values(), (producer) => producer.close())))
    )
  })

/** The node that keeps a group, for requests of one's own. */
const withCoordinator = <A>(
  brokers: ReadonlyArray<string>,
  groupId: string,
  use: (node: Node) => A | Promise<A>
): Effect.Effect<A> =>
  Effect.scoped(
    Effect.flatMap(
      openNetwork(brokers),
      (network) => Effect.promise(() => network.findGroupCoordinator({ groupId }).then(use))
    )
  )

/** The node that leads a partition, for requests of one's own. */
const withLeader = <A>(
  brokers: ReadonlyArray<string>,
  { partition, topic }: TopicPartition,
  use: (node: Node) => A | Promise<A>
): Effect.Effect<A> =>
  Effect.scoped(Effect.flatMap(openNetwork(brokers), (network) =>
    Effect.promise(() =>
      network.addTargetTopic(topic)
        .then(() => network.findTopicPartitionMetadata(topic).find((one) => one.partitionId === partition)!)
        .then(({ leader }) => network.findBroker({ nodeId: leader }))
        .then(use)
    )))

/** The end of the log, whether what lies below it can be seen already or not. */
const logEnd = (brokers: ReadonlyArray<string>, at: TopicPartition): Effect.Effect<bigint> =>
  withLeader(
    brokers,
    at,
    (node) =>
      node.listOffsets({
        isolationLevel: 0,
        topics: [{ topic: at.topic, partitions: [{ partition: at.partition, timestamp: -1 }] }]
      }).then(({ responses }) => BigInt(responses[0]!.partitions[0]!.offset))
  )

const nothing = { name: "none", metadata: Buffer.alloc(0) }

/** Commits for a group that has no members. */
export const commitAt = (
  node: Node,
  groupId: string,
  { partition, topic }: TopicPartition,
  offset: bigint,
  metadata: string
) =>
  node.offsetCommit({
    groupId,
    groupGenerationId: -1,
    memberId: "",
    topics: [{ topic, partitions: [{ partition, offset: String(offset), metadata }] }]
  })

/** Acts on a cluster without the Layer. */
export const outside = (brokers: ReadonlyArray<string>) => ({
  deleteTopic: (topic: string) => withAdmin(brokers, (admin) => admin.deleteTopics({ topics: [topic] })),

  /** Creates a topic, as soon as one of its name that was deleted is gone. */
  createTopic: (topic: string, numPartitions: number) =>
    Effect.repeat(
      withAdmin(brokers, (admin) => admin.createTopics({ topics: [{ topic, numPartitions }] })),
      { until: (created) => created }
    ),
  exists: (topic: string) => withAdmin(brokers, (admin) => admin.listTopics().then((names) => names.includes(topic))),

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
    withTransactions(
      brokers,
      { topic, partition },
      (as) => Effect.promise(() => as("one").send("aborted").then(() => as("one").abort()))
    ),

  /** Runs transactions of several producers on one partition, step after step, each with its marker in the log. */
  transactions: (
    at: TopicPartition,
    steps: ReadonlyArray<readonly [producer: string, step: "send" | "abort" | "commit"]>
  ) =>
    withTransactions(brokers, at, (as) =>
      Effect.forEach(steps, ([name, step]) =>
        step === "send"
          ? Effect.promise(() => as(name).send(name))
          : Effect.gen(function*() {
            const before = yield* logEnd(brokers, at)
            yield* Effect.promise(() => as(name)[step]())
            // The coordinator writes the marker after it has answered.
            yield* Effect.repeat(logEnd(brokers, at), { until: (end) => end > before })
          }), { discard: true })),

  /** Removes the group's only member, as the coordinator does when its heartbeats stop. */
  expire: (group: string) =>
    withCoordinator(
      brokers,
      group,
      (node) =>
        node.describeGroups({ groupIds: [group] }).then((answer: Described) =>
          node.leaveGroup({ groupId: group, memberId: answer.groups[0]!.members[0]!.memberId })
        )
    ),

  /** The address of the broker that keeps a group. */
  coordinator: (group: string) => withCoordinator(brokers, group, (node) => node.brokerAddress),

  /** The address of the broker that leads a partition. */
  leader: (topic: string, partition: number) => withLeader(brokers, { topic, partition }, (node) => node.brokerAddress),

  /** The committed offsets of a topic, by partition. */
  committed: (group: string, topic: string) =>
    withAdmin(
      brokers,
      (admin) =>
        admin.fetchOffsets({ groupId: group, topics: [topic] }).then((found) =>
          new Map(found[0]!.partitions.map(({ offset, partition }) => [partition, BigInt(offset)]))
        )
    ),

  /** A committed offset with the text that was kept with it. */
  committedAs: (group: string, { partition, topic }: TopicPartition) =>
    withCoordinator(
      brokers,
      group,
      (node) =>
        node.offsetFetch({ groupId: group, topics: [{ topic, partitions: [{ partition }] }] })
          .then(({ responses }) => responses[0]!.partitions[0]!)
    ),

  /** Commits for a group that has no members. */
  commit: (group: string, at: TopicPartition, offset: bigint, metadata: string) =>
    withCoordinator(brokers, group, (node) => commitAt(node, group, at, offset, metadata)),

  /** The inside of a client of its own, until the scope closes. */
  openNetwork: openNetwork(brokers),

  /** The offset after the last one of a partition. */
  end: ({ partition, topic }: TopicPartition) =>
    withAdmin(
      brokers,
      (admin) =>
        admin.fetchTopicOffsets(topic).then((found) => BigInt(found.find((one) => one.partition === partition)!.high))
    ),

  groups: withAdmin(brokers, (admin) => admin.listGroups().then(({ groups }) => groups.map(({ groupId }) => groupId)))
})

interface Described {
  readonly groups: ReadonlyArray<{ readonly members: ReadonlyArray<{ readonly memberId: string }> }>
}

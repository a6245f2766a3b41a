/**
 * Owns the contract between what we do on Kafka and the client that carries
 * it: requests to single brokers, and who leads a partition. No client is
 * named here; each Layer implements it (`kafkajs/cluster.ts`,
 * `platformatic/cluster.ts`).
 *
 * Invariant: a call ends within the client's patience, with an answer or a
 * `KafkaFailure`; nothing is tried again here. Whoever calls has the retry
 * loop and the deadline. Topic names are physical.
 */
import type * as Effect from "effect/Effect"
import type * as Broker from "../../../Broker.ts"
import type { KafkaFailure } from "./failure.ts"
import type { FetchedRecord } from "./recordBatch.ts"

export interface PartitionInfo {
  readonly partition: number
  /** Below 0: none now. */
  readonly leader: number
  readonly replicas: number
}

/** What was last heard of a topic, and when. */
export interface Description {
  /** Milliseconds since the epoch, when it was asked for. */
  readonly at: number
  readonly partitions: ReadonlyArray<PartitionInfo>
}

/** Who sends, so that the broker knows a batch that comes again. */
export interface ProducerIdentity {
  readonly producerId: bigint
  readonly producerEpoch: number
}

/** A batch for one partition. */
export interface Produce extends Broker.TopicPartition {
  readonly identity: ProducerIdentity
  readonly sequence: number
  readonly records: ReadonlyArray<Broker.ProducerRecord>
  /** How long the broker waits for its replicas, in milliseconds. */
  readonly timeout: number
}

/** Where to read, and how much at once. */
export interface FetchPosition extends Broker.TopicPartition {
  readonly offset: bigint
}

/** What a fetch brought of one partition: whole batches, so it may begin below what was asked for. */
export interface Fetched extends Broker.TopicPartition {
  readonly records: ReadonlyArray<FetchedRecord>
  /** Why this partition, and not the others, could not be read. */
  readonly failure?: KafkaFailure
}

/** A place in a partition: its first record, its end as committed readers see it, or the first record of a time. */
export type Place = "begin" | "end" | number

/** A broker, connected. */
export interface Node {
  readonly initProducerId: Effect.Effect<ProducerIdentity, KafkaFailure>
  /** The offset of the first record. */
  readonly produce: (batch: Produce) => Effect.Effect<bigint, KafkaFailure>
  /** Committed records. A client that cannot tell partitions apart fails with the failure of one of them. */
  readonly fetch: (positions: ReadonlyArray<FetchPosition>) => Effect.Effect<ReadonlyArray<Fetched>, KafkaFailure>
  /** The offset of a place; -1 if there is no record of that time or later. */
  readonly offsetOf: (partition: Broker.TopicPartition, place: Place) => Effect.Effect<bigint, KafkaFailure>
  readonly createTopic: (topic: string, creation: Broker.TopicCreation) => Effect.Effect<void, KafkaFailure>
  /** Settings of a topic by name. */
  readonly configOf: (
    topic: string,
    names: ReadonlyArray<string>
  ) => Effect.Effect<{ readonly [name: string]: string }, KafkaFailure>
  /** Destroys the connections: nothing that waits there leaves any more. */
  readonly hangUp: Effect.Effect<void>
}

/** A connection to a cluster that belongs to no group. */
export interface Cluster {
  /** The partitions of a topic, heard of at `notBefore` or later if the brokers answer. */
  readonly describe: (topic: string, notBefore: number) => Effect.Effect<Description, KafkaFailure>
  /** What was last heard of a topic, however long ago. */
  readonly known: (topic: string) => Description | undefined
  /** The broker with this id. */
  readonly node: (id: number) => Effect.Effect<Node, KafkaFailure>
  /** Any broker: for requests that every broker answers. */
  readonly anyNode: Effect.Effect<Node, KafkaFailure>
  readonly controller: Effect.Effect<Node, KafkaFailure>
}

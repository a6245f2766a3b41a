/**
 * Owns the list of what is used of KafkaJS 2.2.4 beyond its type declarations.
 *
 * These members exist on the objects that KafkaJS hands out (a partition
 * assigner receives `cluster`), but its `index.d.ts` leaves them out. Whoever
 * upgrades KafkaJS checks this file against `kafkajs/src`.
 */
import type { Broker, Cluster } from "kafkajs"
import type { FetchedRecord } from "../kafka/recordBatch.ts"

/** `kafkajs/src/broker/index.js` */
export interface Node
  extends Omit<Broker, "fetch" | "produce" | "offsetCommit" | "offsetFetch" | "describeConfigs" | "metadata">
{
  readonly nodeId: number | null
  /** `host:port` */
  readonly brokerAddress: string
  /** What the broker speaks, by the request's key; known once it is connected. */
  readonly versions: Readonly<Record<number, { readonly minVersion: number; readonly maxVersion: number }>> | null
  /** How `metadata` and the others find the form of their request. */
  lookupRequest(...definition: ReadonlyArray<unknown>): (...request: ReadonlyArray<unknown>) => OwnRequest<unknown>
  metadata(topics?: ReadonlyArray<string>): ReturnType<Broker["metadata"]>
  initProducerId(request: { readonly transactionTimeout: number }): Promise<ProducerIdentity>
  produce(request: ProduceRequest): Promise<ProduceResponse>
  fetch(request: FetchRequest): Promise<FetchResponse>
  listOffsets(request: ListOffsetsRequest): Promise<{ readonly responses: ReadonlyArray<TopicOffsets> }>
  createTopics(request: CreateTopicsRequest): Promise<unknown>
  describeConfigs(request: DescribeConfigsRequest): Promise<DescribeConfigsResponse>
  heartbeat(request: Member): Promise<unknown>
  offsetCommit(request: Member & { readonly topics: ReadonlyArray<TopicOffsets> }): Promise<unknown>
  offsetFetch(request: OffsetFetchRequest): Promise<OffsetFetchResponse>
  joinGroup(
    request: { readonly groupId: string }
  ): Promise<{ readonly memberId: string; readonly generationId: number }>
  syncGroup(request: {
    readonly groupId: string
    readonly generationId: number
    readonly memberId: string
  }): Promise<unknown>
  leaveGroup(request: { readonly groupId: string; readonly memberId: string }): Promise<unknown>
}

/** `kafkajs/src/cluster/index.js` */
export interface Network extends Omit<Cluster, "findBroker" | "findControllerBroker" | "findGroupCoordinator"> {
  readonly targetTopics: Set<string>
  readonly brokerPool: {
    readonly seedBroker?: Node
    readonly brokers: Readonly<Record<string, Node>>
    hasConnectedBrokers(): boolean
    refreshMetadata(topics: ReadonlyArray<string>): Promise<void>
  }
  findBroker(node: { readonly nodeId: number | string }): Promise<Node>
  findControllerBroker(): Promise<Node>
  findGroupCoordinator(group: { readonly groupId: string }): Promise<Node>
}

export interface Member {
  readonly groupId: string
  readonly groupGenerationId: number
  readonly memberId: string
}

export interface TopicOffsets {
  readonly topic: string
  readonly partitions: ReadonlyArray<{
    readonly partition: number
    readonly offset: string
    /** Kept with a committed offset. */
    readonly metadata?: string
  }>
}

export interface OffsetFetchRequest {
  readonly groupId: string
  readonly topics: ReadonlyArray<{
    readonly topic: string
    readonly partitions: ReadonlyArray<{ readonly partition: number }>
  }>
}

export interface OffsetFetchResponse {
  readonly responses: ReadonlyArray<{
    readonly topic: string
    readonly partitions: ReadonlyArray<{
      readonly partition: number
      readonly offset: string
      readonly metadata: string | null
    }>
  }>
}

/** A request in KafkaJS's form: `kafkajs/src/protocol/request.js`, and `send` of `kafkajs/src/network/connection.js` */
export interface OwnRequest<A> {
  readonly request: {
    readonly apiKey: number
    readonly apiVersion: number
    readonly apiName: string
    /** What looks like an `Encoder` to another one. */
    readonly encode: () => Promise<{ readonly buf: Buffer; readonly buffer: Buffer }>
  }
  readonly response: {
    readonly decode: (payload: Buffer) => Promise<A>
    readonly parse: (decoded: A) => Promise<A>
  }
}

export interface ProducerIdentity {
  readonly producerId: string
  readonly producerEpoch: number
}

export interface ProduceRequest extends ProducerIdentity {
  readonly acks: -1
  readonly timeout: number
  readonly topicData: ReadonlyArray<{
    readonly topic: string
    readonly partitions: ReadonlyArray<{
      readonly partition: number
      readonly firstSequence: number
      readonly messages: readonly []
    }>
  }>
}

export interface ProduceResponse {
  readonly topics: ReadonlyArray<{
    readonly topicName: string
    readonly partitions: ReadonlyArray<{ readonly partition: number; readonly baseOffset?: string }>
  }>
}

export interface FetchRequest {
  readonly isolationLevel: 0 | 1
  readonly maxWaitTime: number
  readonly minBytes: number
  readonly maxBytes: number
  readonly rackId: string
  readonly topics: ReadonlyArray<{
    readonly topic: string
    readonly partitions: ReadonlyArray<{
      readonly partition: number
      readonly fetchOffset: string
      readonly maxBytes: number
    }>
  }>
}

export interface FetchedPartition<Record = FetchedRecord> {
  readonly partition: number
  readonly errorCode: number
  readonly highWatermark: string
  readonly preferredReadReplica: number
  readonly messages: ReadonlyArray<Record>
}

/** What the `decode` of a fetch leaves, and KafkaJS goes on with. */
export interface FetchResponse<Record = FetchedRecord> {
  readonly throttleTime: number
  readonly clientSideThrottleTime?: number
  readonly responses: ReadonlyArray<{
    readonly topicName: string
    readonly partitions: ReadonlyArray<FetchedPartition<Record>>
  }>
}

export interface ListOffsetsRequest {
  readonly isolationLevel: 0 | 1
  readonly topics: ReadonlyArray<{
    readonly topic: string
    readonly partitions: ReadonlyArray<{ readonly partition: number; readonly timestamp: number }>
  }>
}

export interface DescribeConfigsRequest {
  readonly resources: ReadonlyArray<{
    /** 2 is a topic. */
    readonly type: 2
    readonly name: string
    readonly configNames: ReadonlyArray<string>
  }>
}

export interface DescribeConfigsResponse {
  readonly resources: ReadonlyArray<{
    readonly configEntries: ReadonlyArray<{ readonly configName: string; readonly configValue: string | null }>
  }>
}

export interface CreateTopicsRequest {
  readonly timeout: number
  readonly topics: ReadonlyArray<{
    readonly topic: string
    readonly numPartitions: number
    readonly replicationFactor: number
    readonly configEntries: ReadonlyArray<{ readonly name: string; readonly value: string }>
  }>
}

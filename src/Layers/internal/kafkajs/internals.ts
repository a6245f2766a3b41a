/**
 * Owns the list of what is used of KafkaJS 2.2.4 beyond its type declarations.
 *
 * These members exist on the objects that KafkaJS hands out (a partition
 * assigner receives `cluster`), but its `index.d.ts` leaves them out. Whoever
 * upgrades KafkaJS checks this file against `kafkajs/src`.
 */
import type { Broker, Cluster } from "kafkajs"

/** `kafkajs/src/broker/index.js` */
export interface Node extends Omit<Broker, "fetch" | "produce" | "offsetCommit"> {
  readonly nodeId: number | null
  /** `host:port` */
  readonly brokerAddress: string
  initProducerId(request: { readonly transactionTimeout: number }): Promise<ProducerIdentity>
  produce(request: ProduceRequest): Promise<ProduceResponse>
  fetch(request: FetchRequest): Promise<FetchResponse>
  listOffsets(request: ListOffsetsRequest): Promise<{ readonly responses: ReadonlyArray<TopicOffsets> }>
  createTopics(request: CreateTopicsRequest): Promise<unknown>
  heartbeat(request: Member): Promise<unknown>
  offsetCommit(request: Member & { readonly topics: ReadonlyArray<TopicOffsets> }): Promise<unknown>
  offsetFetch(request: Parameters<Broker["offsetFetch"]>[0]): ReturnType<Broker["offsetFetch"]>
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
  readonly brokerPool: { readonly seedBroker?: Node; readonly brokers: Readonly<Record<string, Node>> }
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
  readonly partitions: ReadonlyArray<{ readonly partition: number; readonly offset: string }>
}

export interface ProducerIdentity {
  readonly producerId: string
  readonly producerEpoch: number
}

export type WireHeaders = Record<string, Buffer | string | Array<Buffer | string>>

export interface WireMessage {
  readonly key: Buffer | string | null
  readonly value: Buffer | null
  readonly headers: WireHeaders
}

export interface ProduceRequest extends ProducerIdentity {
  readonly acks: -1
  readonly timeout: number
  readonly topicData: ReadonlyArray<{
    readonly topic: string
    readonly partitions: ReadonlyArray<{
      readonly partition: number
      readonly firstSequence: number
      readonly messages: ReadonlyArray<WireMessage>
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

/** A record as the decoder of KafkaJS leaves it, with the context of its batch. */
export interface WireRecord {
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly headers?: Readonly<Record<string, Buffer | Array<Buffer>>>
  readonly offset: string
  readonly timestamp: string
  readonly isControlRecord?: boolean
  readonly batchContext?: {
    readonly producerId: string
    readonly inTransaction: boolean
    readonly firstOffset: string
    readonly lastOffsetDelta: number
  }
}

export interface FetchedPartition {
  readonly partition: number
  readonly highWatermark: string
  readonly abortedTransactions?:
    | ReadonlyArray<{ readonly producerId: string; readonly firstOffset: string }>
    | null
  readonly messages: ReadonlyArray<WireRecord>
}

export interface FetchResponse {
  readonly responses: ReadonlyArray<{
    readonly topicName: string
    readonly partitions: ReadonlyArray<FetchedPartition>
  }>
}

export interface ListOffsetsRequest {
  readonly isolationLevel: 0 | 1
  readonly topics: ReadonlyArray<{
    readonly topic: string
    readonly partitions: ReadonlyArray<{ readonly partition: number; readonly timestamp: number }>
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

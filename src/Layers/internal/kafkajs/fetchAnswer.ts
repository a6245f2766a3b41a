/**
 * Owns the decoding of what a broker answers to a fetch.
 *
 * Invariant: what KafkaJS goes on with covers every offset of the answer, and
 * what it shows of them is what `recordBatch.ts` shows.
 *
 * The insight: KafkaJS spends most of a consumer's time here (it builds a
 * record's headers anew with each header, and turns every offset into text),
 * and its filter lets records of aborted transactions through. So its consumers
 * and our own fetches get answers that were decoded by `install`.
 */
import KafkaJs from "kafkajs"
import { Reader } from "../kafka/reader.ts"
import {
  type Aborted,
  codecOf,
  type FetchedRecord,
  noHeaders,
  readBatches,
  readRecords,
  type RecordBatch
} from "../kafka/recordBatch.ts"
import type { FetchedPartition, FetchResponse, Network, Node, OwnRequest } from "./internals.ts"

interface Partition {
  readonly partition: number
  readonly errorCode: number
  readonly highWatermark: bigint
  readonly preferredReadReplica: number
  readonly aborted: ReadonlyArray<Aborted>
  /** `undefined` for an older form. */
  readonly batches: ReadonlyArray<RecordBatch> | undefined
}

const readEach = <A>(reader: Reader, read: (reader: Reader) => A): Array<A> => {
  const all: Array<A> = []
  for (let left = reader.int32(); left > 0; left--) all.push(read(reader))
  return all
}

const readString = (reader: Reader): string => reader.slice(reader.int16()).toString()

const readAborted = (reader: Reader): Aborted => ({ producerId: reader.int64(), firstOffset: reader.int64() })

const readPartition = (version: number) => (reader: Reader): Partition => {
  const partition = reader.int32()
  const errorCode = reader.int16()
  const highWatermark = reader.int64()
  // The last stable offset, and where the log begins.
  reader.skip(version >= 5 ? 8 + 8 : 8)
  const aborted = readEach(reader, readAborted)
  const preferredReadReplica = version >= 11 ? reader.int32() : -1
  const batches = readBatches(reader.slice(Math.max(0, reader.int32())))
  return { partition, errorCode, highWatermark, preferredReadReplica, aborted, batches }
}

/** Records of an older form, as KafkaJS decodes them. */
const ofOldForm = (
  decoded: FetchResponse<OldRecord>,
  topicName: string,
  partition: number
): ReadonlyArray<FetchedRecord> => {
  const topic = decoded.responses.find((candidate) => candidate.topicName === topicName)
  const found = topic?.partitions.find((candidate) => candidate.partition === partition)
  return (found?.messages ?? []).map(({ isControlRecord = false, key, offset, timestamp, value }) => ({
    key,
    value,
    headers: noHeaders,
    offset: BigInt(offset),
    timestamp: Number(timestamp),
    isControlRecord
  }))
}

/** A record as KafkaJS decodes it. */
interface OldRecord {
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly offset: string
  readonly timestamp: string
  readonly isControlRecord?: boolean
}

type Codec = () => { readonly decompress: (bytes: Buffer) => Promise<Buffer> }

/** Codecs are KafkaJS's own, or were registered with it. */
const unpack = (batch: RecordBatch): Promise<Buffer> => {
  const codec = (KafkaJs.CompressionCodecs as Readonly<Record<number, Codec>>)[codecOf(batch)]
  const came = Promise.resolve(batch.records)
  return codec === undefined ? came : came.then((bytes) => codec().decompress(bytes))
}

const oldest = 4

/** Decodes an answer; `byKafkaJs` is asked where records have an older form. */
export const decode = (
  version: number,
  payload: Buffer,
  byKafkaJs: (payload: Buffer) => Promise<FetchResponse<OldRecord>>
): Promise<FetchResponse> => {
  if (version < oldest) {
    return Promise.reject(new KafkaJs.KafkaJSNonRetriableError("Kafka 0.11 or newer is needed to fetch"))
  }
  const reader = new Reader(payload)
  const throttled = reader.int32()
  // The error and the id of a fetch session, which KafkaJS has none of.
  if (version >= 7) reader.skip(2 + 4)
  const topics = readEach(reader, (reader) => ({
    topicName: readString(reader),
    partitions: readEach(reader, readPartition(version))
  }))
  const isOld = topics.some(({ partitions }) => partitions.some(({ batches }) => batches === undefined))
  const old = isOld ? byKafkaJs(payload) : Promise.resolve(undefined)
  const partitionOf = (topicName: string) => (found: Partition): Promise<FetchedPartition> => {
    const { aborted, batches, errorCode, highWatermark, partition, preferredReadReplica } = found
    const messages = batches === undefined
      ? old.then((decoded) => ofOldForm(decoded!, topicName, partition))
      : Promise.all(batches.map(unpack))
        .then((bytes) => readRecords(batches.map((batch, i) => [batch, bytes[i]!]), aborted))
    return messages.then((messages) => ({
      partition,
      errorCode,
      highWatermark: String(highWatermark),
      preferredReadReplica,
      messages
    }))
  }
  return Promise.all(
    topics.map(({ partitions, topicName }) =>
      Promise.all(partitions.map(partitionOf(topicName))).then((partitions) => ({ topicName, partitions }))
    )
  ).then((responses) =>
    // From version 8 on the broker answers at once, and wants the client to wait.
    version >= 8
      ? { throttleTime: 0, clientSideThrottleTime: throttled, responses }
      : { throttleTime: throttled, responses }
  )
}

const decoding = (own: OwnRequest<unknown>): OwnRequest<unknown> => ({
  ...own,
  response: {
    ...own.response,
    decode: (payload) =>
      decode(
        own.request.apiVersion,
        payload,
        own.response.decode as (payload: Buffer) => Promise<FetchResponse<OldRecord>>
      )
  }
})

/** Gives the brokers of a network the decoding of this file. */
export const install = (network: Network): void => {
  const find = network.findBroker.bind(network)
  const installed = new WeakSet<Node>()
  const stand = (node: Node): Node => {
    if (installed.has(node)) return node
    installed.add(node)
    // By the way that the broker's own requests take, which closes what is broken.
    const speaker: Node = Object.assign(Object.create(node) as Node, {
      lookupRequest: (...definition: ReadonlyArray<unknown>) => {
        const request = node.lookupRequest(...definition)
        return (...options: ReadonlyArray<unknown>) => decoding(request(...options))
      }
    })
    node.fetch = node.fetch.bind(speaker)
    return node
  }
  network.findBroker = (node) => find(node).then(stand)
}

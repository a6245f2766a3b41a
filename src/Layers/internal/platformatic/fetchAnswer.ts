/**
 * Owns the request for records, and the decoding of what a broker answers.
 *
 * Invariant: what is shown of an answer is what `recordBatch.ts` shows.
 *
 * The insight: the client decodes a record's headers into arrays and maps of
 * buffers, which costs more than all the rest of a record, and its filter lets
 * records of aborted transactions through. Its connection takes any parser, so
 * ours reads the bytes as they came.
 */
import { compressionsAlgorithmsByBitmask, createAPI, fetchV12, type Reader as ClientReader } from "@platformatic/kafka"
import * as Compact from "../kafka/compact.ts"
import { Reader } from "../kafka/reader.ts"
import {
  type Aborted,
  BrokenBatch,
  codecOf,
  type FetchedRecord,
  readBatches,
  readRecords,
  type RecordBatch
} from "../kafka/recordBatch.ts"

export interface Answer {
  readonly errorCode: number
  readonly partitions: ReadonlyArray<AnsweredPartition>
}

export interface AnsweredPartition {
  readonly topic: string
  readonly partition: number
  readonly errorCode: number
  readonly records: ReadonlyArray<FetchedRecord>
}

const unpack = (batch: RecordBatch): Buffer => {
  const codec = codecOf(batch)
  if (codec === 0) return batch.records
  const algorithm = compressionsAlgorithmsByBitmask[codec]
  if (algorithm === undefined) throw new BrokenBatch(`Records are packed with a codec that is not known: ${codec}`)
  return algorithm.decompressSync(batch.records)
}

const readAborted = (reader: Reader): Aborted => {
  const aborted = { producerId: reader.int64(), firstOffset: reader.int64() }
  Compact.skipTags(reader)
  return aborted
}

const readPartition = (reader: Reader, topic: string): AnsweredPartition => {
  const partition = reader.int32()
  const errorCode = reader.int16()
  // The high watermark, the last stable offset, and where the log begins.
  reader.skip(8 + 8 + 8)
  const aborted = Compact.readArray(reader, () => readAborted(reader))
  // Another replica to read from.
  reader.skip(4)
  const bytes = reader.slice(Math.max(0, reader.varint() - 1))
  Compact.skipTags(reader)
  const batches = readBatches(bytes)
  if (batches === undefined) throw new BrokenBatch("Records have the form of before Kafka 0.11")
  return { topic, partition, errorCode, records: readRecords(batches.map((batch) => [batch, unpack(batch)]), aborted) }
}

/** Reads an answer of version 12. */
export const decode = (bytes: Buffer): Answer => {
  const reader = new Reader(bytes)
  // For how long the broker wants to be left alone, which it enforces by itself.
  reader.skip(4)
  const errorCode = reader.int16()
  // The session, of which there is none.
  reader.skip(4)
  const topics = Compact.readArray(reader, () => {
    const topic = Compact.readString(reader)
    const partitions = Compact.readArray(reader, () => readPartition(reader, topic))
    Compact.skipTags(reader)
    return partitions
  })
  return { errorCode, partitions: topics.flat() }
}

const parse = (_correlationId: number, _apiKey: number, _apiVersion: number, reader: ClientReader): Answer =>
  decode(reader.buffer.slice(reader.position))

/** The request in version 12, the last one that calls topics by name. */
export const api = createAPI<Parameters<typeof fetchV12.createRequest>, Answer>(1, 12, fetchV12.createRequest, parse)

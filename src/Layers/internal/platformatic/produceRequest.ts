/**
 * Owns the request that sends a batch to one partition, in version 9.
 *
 * The insight: the client builds a record out of a dozen small buffers.
 * `batchWriter.ts` writes a batch into one.
 */
import { crc32c, createAPI, produceV9, Writer } from "@platformatic/kafka"
import * as BatchWriter from "../kafka/batchWriter.ts"
import type { Produce } from "../kafka/cluster.ts"

/** All replicas that are in sync. */
const acks = -1

const create = (batch: Produce, timestamp: number): Writer => {
  const records = BatchWriter.encode({ ...batch, timestamp }, crc32c)
  return Writer.create()
    .appendString(null)
    .appendInt16(acks)
    .appendInt32(batch.timeout)
    .appendArray([batch.topic], (writer, topic) => {
      writer.appendString(topic).appendArray([batch.partition], (writer, partition) => {
        writer.appendInt32(partition).appendBytes(records)
      })
    })
    .appendTaggedFields()
}

export const api = createAPI<[batch: Produce, timestamp: number], ReturnType<typeof produceV9.parseResponse>>(
  0,
  9,
  create,
  produceV9.parseResponse
)

/**
 * Owns the body of a Produce request, versions 3 to 8: Kafka 0.11 and newer.
 *
 * The insight: KafkaJS writes a record through an encoder for each header, and
 * copies the bytes each time. `batchWriter.ts` writes a batch once.
 */
import * as BatchWriter from "../kafka/batchWriter.ts"
import type { Produce } from "../kafka/cluster.ts"
import { crc32c } from "../kafka/crc32c.ts"

/** All replicas that are in sync. */
const acks = -1
const noTransaction = -1

/** The body for a batch of this time, in milliseconds since the epoch. */
export const make = (batch: Produce, timestamp: number): Buffer => {
  const topic = Buffer.from(batch.topic)
  const records = BatchWriter.encode({ ...batch, timestamp }, crc32c)
  const head = Buffer.alloc(2 + 2 + 4 + 4 + 2 + topic.length + 4 + 4 + 4)
  let at = head.writeInt16BE(noTransaction, 0)
  at = head.writeInt16BE(acks, at)
  at = head.writeInt32BE(batch.timeout, at)
  // One topic.
  at = head.writeInt32BE(1, at)
  at = head.writeInt16BE(topic.length, at)
  at += topic.copy(head, at)
  // One partition.
  at = head.writeInt32BE(1, at)
  at = head.writeInt32BE(batch.partition, at)
  head.writeInt32BE(records.length, at)
  return Buffer.concat([head, records])
}

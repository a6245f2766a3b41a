/**
 * The partition logs of the in-memory broker. Pure: no Effect, time is an
 * argument.
 *
 * Invariant: offsets of a partition only grow, and `end` is above all of them.
 * Offsets may have gaps (`skip`), as they have in Kafka after compaction and
 * around transactions, so a position is found by search and never by index.
 */
import type * as Arr from "effect/Array"
import type { ConsumerRecord, HeaderValue, ProducerRecord, TopicCreation } from "../../../Broker.ts"

export interface PartitionLog {
  readonly records: Array<ConsumerRecord>
  end: bigint
  /** Called after each append; readers at the end of the log wait for it. */
  readonly listeners: Set<() => void>
}

export interface TopicLog {
  readonly name: string
  readonly partitions: Array<PartitionLog>
  /** Settings as they were given; what was not is Kafka's default. */
  readonly config: { readonly [name: string]: string }
  /** Largest batch that the topic takes, in bytes: `max.message.bytes`. */
  readonly maxBytes: number
}

export interface Chunk {
  readonly records: ReadonlyArray<ConsumerRecord>
  readonly nextOffset: bigint
}

/** Kafka's default of `max.message.bytes`. */
const defaultMaxBytes = 1_048_588

const defaultConfig = {
  "cleanup.policy": "delete",
  "retention.ms": "604800000",
  "max.message.bytes": String(defaultMaxBytes)
}

/** Most records that one chunk holds. */
const chunkSize = 500

const encoder = new TextEncoder()

const emptyPartition = (): PartitionLog => ({ records: [], end: 0n, listeners: new Set() })

/** Says why a topic cannot be created; `undefined` if it can. */
export const whyIllegal = (name: string, partitions: number): string | undefined =>
  !/^[a-zA-Z0-9._-]{1,249}$/.test(name) || name === "." || name === ".."
    ? `"${name}" is not a topic name: use 1 to 249 letters, digits, dots, underscores and hyphens`
    : !Number.isInteger(partitions) || partitions < 1
    ? `topic "${name}" needs at least one partition, not ${partitions}`
    : undefined

export const makeTopic = (name: string, partitions: number, config: TopicCreation["config"]): TopicLog => ({
  name,
  partitions: Array.from({ length: partitions }, emptyPartition),
  config: { ...defaultConfig, ...config },
  maxBytes: Number(config?.["max.message.bytes"] ?? defaultMaxBytes)
})

export const addPartitions = (topic: TopicLog, count: number): void => {
  while (topic.partitions.length < count) {
    topic.partitions.push(emptyPartition())
  }
}

const wake = (partition: PartitionLog): void => {
  for (const listener of partition.listeners) {
    listener()
  }
}

/** Appends records as they would come off the wire, and returns the offset of the first. */
export const append = (
  partition: PartitionLog,
  records: Arr.NonEmptyReadonlyArray<ProducerRecord>,
  timestamp: number
): bigint => {
  const base = partition.end
  for (const record of records) {
    partition.records.push({
      key: record.key === null ? null : bytes(record.key),
      value: record.value === null ? null : new Uint8Array(record.value),
      headers: wireHeaders(record.headers),
      offset: partition.end,
      timestamp
    })
    partition.end = partition.end + 1n
  }
  wake(partition)
  return base
}

/** Moves the end of the log without a record. */
export const skip = (partition: PartitionLog, count: number): void => {
  partition.end = partition.end + BigInt(count)
  wake(partition)
}

/** The next chunk from a position; `undefined` at the end of the log. */
export const read = (partition: PartitionLog, from: bigint): Chunk | undefined => {
  if (from >= partition.end) {
    return undefined
  }
  const start = firstAtOrAfter(partition.records, from)
  const records = partition.records.slice(start, start + chunkSize)
  const more = start + records.length < partition.records.length
  return { records, nextOffset: more ? records[records.length - 1]!.offset + 1n : partition.end }
}

const firstAtOrAfter = (records: ReadonlyArray<ConsumerRecord>, offset: bigint): number => {
  let low = 0
  let high = records.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (records[middle]!.offset < offset) {
      low = middle + 1
    } else {
      high = middle
    }
  }
  return low
}

const bytes = (value: HeaderValue): Uint8Array =>
  typeof value === "string" ? encoder.encode(value) : new Uint8Array(value)

/** Header values as bytes: what a client hands over, whatever the producer gave. */
const wireHeaders = (headers: ProducerRecord["headers"]): ConsumerRecord["headers"] => {
  const out: { [name: string]: Uint8Array | ReadonlyArray<Uint8Array> } = {}
  for (const [name, value] of Object.entries(headers)) {
    const values = headerValues(value).map(bytes)
    if (values.length > 0) {
      out[name] = values.length === 1 ? values[0]! : values
    }
  }
  return out
}

const headerValues = (value: ProducerRecord["headers"][string]): ReadonlyArray<HeaderValue> =>
  value === undefined ? [] : typeof value === "string" || value instanceof Uint8Array ? [value] : value

/** About what a batch takes on the wire. */
export const batchBytes = (records: Arr.NonEmptyReadonlyArray<ProducerRecord>): number => {
  let total = 61
  for (const record of records) {
    total += 12 + (record.key === null ? 0 : bytes(record.key).length) + (record.value?.length ?? 0)
    for (const [name, value] of Object.entries(record.headers)) {
      for (const single of headerValues(value)) {
        total += 4 + encoder.encode(name).length + bytes(single).length
      }
    }
  }
  return total
}

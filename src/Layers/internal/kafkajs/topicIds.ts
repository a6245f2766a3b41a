/**
 * Owns the identity of topics: whether a committed position belongs to the
 * topic that has the name now.
 *
 * Invariant: a position is committed with the id that was asked for before the
 * first record of its grant was fetched. So what was read of a later topic can
 * carry the id of an earlier one, and is read again; never the other way round.
 *
 * The insights: Kafka commits and fetches by name, so a position in a topic
 * that was deleted is one in its successor, too, and what lies below would
 * never be read. Its id is in Metadata from version 10 on, which KafkaJS does
 * not speak: this is the request, and as much of the answer as is needed.
 * Positions are kept with a text of the client's own, where the id has room.
 */
import KafkaJs from "kafkajs"
import type { Node, OffsetFetchResponse, OwnRequest, TopicOffsets } from "./internals.ts"
import { Reader } from "./reader.ts"

/** The ids of topics by their (physical) names; a broker may have none to tell. */
export type TopicIds = ReadonlyMap<string, string>

const apiKey = 3
const apiVersion = 10
const unknownTopicCode = 3
const noId = Buffer.alloc(16).toString("base64url")

const varint = (value: number): ReadonlyArray<number> =>
  value < 0x80 ? [value] : [value & 0x7f | 0x80, ...varint(value >>> 7)]

/** With the tagged fields of the request's header, of which KafkaJS knows nothing: they come last there. */
const encode = (topics: ReadonlyArray<string>): Buffer =>
  Buffer.concat([
    Buffer.from([0, ...varint(topics.length + 1)]),
    ...topics.flatMap((topic) => {
      const name = Buffer.from(topic)
      return [noUuid, Buffer.from(varint(name.length + 1)), name, Buffer.from([0])]
    }),
    // Creates no topic, tells no rights; no tagged fields.
    Buffer.from([0, 0, 0, 0])
  ])
const noUuid = Buffer.alloc(16)

/** Compact types: lengths are one more than they are, and whatever has fields ends in tagged ones. */
const readString = (reader: Reader): string => reader.slice(Math.max(0, reader.varint() - 1)).toString()

const readEach = (reader: Reader, read: () => void): void => {
  for (let left = reader.varint() - 1; left > 0; left--) read()
}

const skipTags = (reader: Reader): void => {
  for (let left = reader.varint(); left > 0; left--) {
    reader.varint()
    reader.skip(reader.varint())
  }
}

interface Named {
  readonly name: string
  readonly id: string
  readonly code: number
}

const decode = (payload: Buffer): ReadonlyArray<Named> => {
  const reader = new Reader(payload)
  const found: Array<Named> = []
  skipTags(reader)
  reader.skip(4)
  readEach(reader, () => {
    reader.skip(4)
    readString(reader)
    reader.skip(4)
    readString(reader)
    skipTags(reader)
  })
  readString(reader)
  reader.skip(4)
  readEach(reader, () => {
    const code = reader.int16()
    const name = readString(reader)
    const id = reader.slice(16).toString("base64url")
    found.push({ name, id, code })
    reader.skip(1)
    readEach(reader, () => {
      reader.skip(2 + 4 + 4 + 4)
      for (let lists = 0; lists < 3; lists++) readEach(reader, () => reader.skip(4))
      skipTags(reader)
    })
    reader.skip(4)
    skipTags(reader)
  })
  return found
}

const requestFor = (topics: ReadonlyArray<string>): OwnRequest<ReadonlyArray<Named>> => {
  const bytes = encode(topics)
  return {
    request: {
      apiKey,
      apiVersion,
      apiName: "Metadata",
      encode: () => Promise.resolve({ buf: bytes, buffer: bytes })
    },
    response: { decode: (payload) => Promise.resolve(decode(payload)), parse: (found) => Promise.resolve(found) }
  }
}

const isSupported = ({ versions }: Node): boolean => {
  const offered = versions?.[apiKey]
  return offered !== undefined && offered.minVersion <= apiVersion && apiVersion <= offered.maxVersion
}

const missing = (topic: string) =>
  Object.assign(new KafkaJs.KafkaJSError(`The topic ${topic} does not exist`, { retriable: true }), {
    type: "UNKNOWN_TOPIC_OR_PARTITION"
  })

const asked = (node: Node, topics: ReadonlyArray<string>): Promise<ReadonlyArray<Named>> => {
  if (!isSupported(node) || topics.length === 0) return Promise.resolve([])
  // By the way that the broker's own requests take, which closes what is broken.
  const speaker: Node = Object.assign(Object.create(node) as Node, { lookupRequest: () => () => requestFor(topics) })
  return speaker.metadata() as unknown as Promise<ReadonlyArray<Named>>
}

const idsOf = (found: ReadonlyArray<Named>): TopicIds =>
  new Map(found.filter(({ code, id }) => code !== unknownTopicCode && id !== noId).map(({ id, name }) => [name, id]))

/** Asks a broker for the ids of topics; those that do not exist have none. */
export const find = (node: Node, topics: ReadonlyArray<string>): Promise<TopicIds> => asked(node, topics).then(idsOf)

/** Asks a broker for the ids of topics; fails if one of them does not exist. */
export const findAll = (node: Node, topics: ReadonlyArray<string>): Promise<TopicIds> =>
  asked(node, topics).then((found) => {
    const absent = found.find(({ code }) => code === unknownTopicCode)
    if (absent !== undefined) throw missing(absent.name)
    return idsOf(found)
  })

/** The topics that are known by another id than before. */
export const replaced = (before: TopicIds, now: TopicIds): ReadonlyArray<string> =>
  [...now].filter(([topic, id]) => before.has(topic) && before.get(topic) !== id).map(([topic]) => topic)

const prefix = "topic-id:"

/** Positions to commit, each with the id of its topic. */
export const label = (topics: ReadonlyArray<TopicOffsets>, ids: TopicIds): ReadonlyArray<TopicOffsets> =>
  topics.map(({ partitions, topic }) => {
    const id = ids.get(topic)
    if (id === undefined) return { topic, partitions }
    const metadata = prefix + id
    return { topic, partitions: partitions.map(({ offset, partition }) => ({ partition, offset, metadata })) }
  })

/** Committed positions, without those of topics that had the name before. */
export const withoutOld = (answer: OffsetFetchResponse, ids: TopicIds): OffsetFetchResponse => ({
  ...answer,
  responses: answer.responses.map(({ partitions, topic }) => {
    const id = ids.get(topic)
    const isOld = (metadata: string | null) =>
      id !== undefined && metadata !== null && metadata.startsWith(prefix) && metadata !== prefix + id
    return {
      topic,
      // KafkaJS takes it for a position that was never committed, and begins with the first record.
      partitions: partitions.map((found) => isOld(found.metadata) ? { ...found, offset: "-1", metadata: "" } : found)
    }
  })
})

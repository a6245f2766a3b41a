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
import type { Node, OffsetFetchResponse, TopicOffsets } from "./internals.ts"
import * as OwnRequest from "./ownRequest.ts"
import type { Reader } from "./reader.ts"

/** The ids of topics by their (physical) names; a broker may have none to tell. */
export type TopicIds = ReadonlyMap<string, string>

const metadata = { apiName: "Metadata", apiKey: 3, apiVersion: 10 }
const unknownTopicCode = 3
const noId = Buffer.alloc(16).toString("base64url")

/** Creates no topic, tells no rights. */
const requestOf = (topics: ReadonlyArray<string>): OwnRequest.Form<ReadonlyArray<Named>> => ({
  ...metadata,
  body: [
    OwnRequest.array(topics, (topic) => [noUuid, OwnRequest.string(topic), OwnRequest.noTags]),
    Buffer.from([0, 0, 0]),
    OwnRequest.noTags
  ],
  read
})
const noUuid = Buffer.alloc(16)

interface Named {
  readonly name: string
  readonly id: string
  readonly code: number
}

const read = (reader: Reader): ReadonlyArray<Named> => {
  const skipNumbers = () => OwnRequest.readArray(reader, () => reader.skip(4))
  reader.skip(4)
  OwnRequest.readArray(reader, () => {
    reader.skip(4)
    OwnRequest.readString(reader)
    reader.skip(4)
    OwnRequest.readString(reader)
    OwnRequest.skipTags(reader)
  })
  OwnRequest.readString(reader)
  reader.skip(4)
  return OwnRequest.readArray(reader, () => {
    const code = reader.int16()
    const name = OwnRequest.readString(reader)
    const id = reader.slice(16).toString("base64url")
    reader.skip(1)
    OwnRequest.readArray(reader, () => {
      reader.skip(2 + 4 + 4 + 4)
      for (let lists = 0; lists < 3; lists++) skipNumbers()
      OwnRequest.skipTags(reader)
    })
    reader.skip(4)
    OwnRequest.skipTags(reader)
    return { name, id, code }
  })
}

const missing = (topic: string) =>
  Object.assign(new KafkaJs.KafkaJSError(`The topic ${topic} does not exist`, { retriable: true }), {
    type: "UNKNOWN_TOPIC_OR_PARTITION"
  })

const asked = (node: Node, topics: ReadonlyArray<string>): Promise<ReadonlyArray<Named>> =>
  topics.length > 0 && OwnRequest.isSpoken(node, metadata)
    ? OwnRequest.ask(node, requestOf(topics))
    : Promise.resolve([])

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

/**
 * Owns the ids of topics, which committed positions carry (`topicLabel.ts`).
 *
 * The insight: they are in Metadata from version 10 on, which KafkaJS does not
 * speak: this is the request, and as much of the answer as is needed.
 */
import KafkaJs from "kafkajs"
import * as Compact from "../kafka/compact.ts"
import type { Reader } from "../kafka/reader.ts"
import * as TopicLabel from "../kafka/topicLabel.ts"
import type { Node, OffsetFetchResponse, TopicOffsets } from "./internals.ts"
import * as OwnRequest from "./ownRequest.ts"

/** The ids of topics by their (physical) names; a broker may have none to tell. */
export type TopicIds = ReadonlyMap<string, string>

const metadata = { apiName: "Metadata", apiKey: 3, apiVersion: 10 }
const unknownTopicCode = 3

/** Creates no topic, tells no rights. */
const requestOf = (topics: ReadonlyArray<string>): OwnRequest.Form<ReadonlyArray<Named>> => ({
  ...metadata,
  body: [
    Compact.array(topics, (topic) => [noUuid, Compact.string(topic), Compact.noTags]),
    Buffer.from([0, 0, 0]),
    Compact.noTags
  ],
  read
})
const noUuid = Buffer.alloc(16)

interface Named {
  readonly name: string
  readonly id: string | undefined
  readonly code: number
}

const read = (reader: Reader): ReadonlyArray<Named> => {
  const skipNumbers = () => Compact.readArray(reader, () => reader.skip(4))
  reader.skip(4)
  Compact.readArray(reader, () => {
    reader.skip(4)
    Compact.readString(reader)
    reader.skip(4)
    Compact.readString(reader)
    Compact.skipTags(reader)
  })
  Compact.readString(reader)
  reader.skip(4)
  return Compact.readArray(reader, () => {
    const code = reader.int16()
    const name = Compact.readString(reader)
    const id = TopicLabel.idOf(reader.slice(16))
    reader.skip(1)
    Compact.readArray(reader, () => {
      reader.skip(2 + 4 + 4 + 4)
      for (let lists = 0; lists < 3; lists++) skipNumbers()
      Compact.skipTags(reader)
    })
    reader.skip(4)
    Compact.skipTags(reader)
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
  new Map(found.flatMap(({ code, id, name }) => code !== unknownTopicCode && id !== undefined ? [[name, id]] : []))

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

/** Positions to commit, each with the id of its topic. */
export const label = (topics: ReadonlyArray<TopicOffsets>, ids: TopicIds): ReadonlyArray<TopicOffsets> =>
  topics.map(({ partitions, topic }) => {
    const id = ids.get(topic)
    if (id === undefined) return { topic, partitions }
    const metadata = TopicLabel.labelOf(id)
    return { topic, partitions: partitions.map(({ offset, partition }) => ({ partition, offset, metadata })) }
  })

/** Committed positions, without those of topics that had the name before. */
export const withoutOld = (answer: OffsetFetchResponse, ids: TopicIds): OffsetFetchResponse => ({
  ...answer,
  responses: answer.responses.map(({ partitions, topic }) => {
    const id = ids.get(topic)
    return {
      topic,
      // KafkaJS takes it for a position that was never committed, and begins with the first record.
      partitions: partitions.map((found) =>
        TopicLabel.isOfAnother(found.metadata, id) ? { ...found, offset: "-1", metadata: "" } : found
      )
    }
  })
})

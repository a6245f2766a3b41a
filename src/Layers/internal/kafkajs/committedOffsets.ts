/**
 * Owns the question where a group has left off.
 *
 * Invariant: the answer is no older than any commit that was acknowledged
 * before it was asked for.
 *
 * The insight: since Kafka 4 a coordinator answers out of what its followers
 * have confirmed. One that has just taken over does not know yet how far that
 * is, and gives out positions from before commits which the old one has
 * acknowledged: everything since then would be read again. Asked for stable
 * offsets (OffsetFetch from version 7 on, KIP-447, which KafkaJS does not
 * speak), it answers out of all that it has, and waits until that is confirmed.
 * Java's consumer always asks so. Brokers before Kafka 2.5 do not offer it;
 * they answer out of all that they have.
 */
import * as Compact from "../kafka/compact.ts"
import type { Reader } from "../kafka/reader.ts"
import type { Node, OffsetFetchRequest, OffsetFetchResponse } from "./internals.ts"
import * as OwnRequest from "./ownRequest.ts"

const offsetFetch = { apiName: "OffsetFetch", apiKey: 9, apiVersion: 7 }

const requestOf = ({ groupId, topics }: OffsetFetchRequest): OwnRequest.Form<OffsetFetchResponse> => ({
  ...offsetFetch,
  body: [
    Compact.string(groupId),
    Compact.array(topics, ({ partitions, topic }) => [
      Compact.string(topic),
      Compact.array(partitions, ({ partition }) => [Compact.int32(partition)]),
      Compact.noTags
    ]),
    requireStable,
    Compact.noTags
  ],
  read
})
const requireStable = Buffer.from([1])

/** Field by field in the order of the answer; KafkaJS looks at the codes of errors. */
const read = (reader: Reader) => {
  reader.skip(4)
  const responses = Compact.readArray(reader, () => {
    const topic = Compact.readString(reader)
    const partitions = Compact.readArray(reader, () => {
      const partition = reader.int32()
      const offset = reader.int64().toString()
      reader.skip(4)
      const metadata = Compact.readNullableString(reader)
      const errorCode = reader.int16()
      Compact.skipTags(reader)
      return { partition, offset, metadata, errorCode }
    })
    Compact.skipTags(reader)
    return { topic, partitions }
  })
  return { responses, errorCode: reader.int16() }
}

/** The positions of a group at its coordinator. */
export const fetch = (node: Node, request: OffsetFetchRequest): Promise<OffsetFetchResponse> =>
  OwnRequest.isSpoken(node, offsetFetch)
    ? OwnRequest.askInPlace(node, requestOf(request), (node) => node.offsetFetch(request))
    : node.offsetFetch(request)

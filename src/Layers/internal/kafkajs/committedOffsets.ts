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
import type { Node, OffsetFetchRequest, OffsetFetchResponse } from "./internals.ts"
import * as OwnRequest from "./ownRequest.ts"
import type { Reader } from "./reader.ts"

const offsetFetch = { apiName: "OffsetFetch", apiKey: 9, apiVersion: 7 }

const requestOf = ({ groupId, topics }: OffsetFetchRequest): OwnRequest.Form<OffsetFetchResponse> => ({
  ...offsetFetch,
  body: [
    OwnRequest.string(groupId),
    OwnRequest.array(topics, ({ partitions, topic }) => [
      OwnRequest.string(topic),
      OwnRequest.array(partitions, ({ partition }) => [OwnRequest.int32(partition)]),
      OwnRequest.noTags
    ]),
    requireStable,
    OwnRequest.noTags
  ],
  read
})
const requireStable = Buffer.from([1])

/** Field by field in the order of the answer; KafkaJS looks at the codes of errors. */
const read = (reader: Reader) => {
  reader.skip(4)
  const responses = OwnRequest.readArray(reader, () => {
    const topic = OwnRequest.readString(reader)
    const partitions = OwnRequest.readArray(reader, () => {
      const partition = reader.int32()
      const offset = reader.int64().toString()
      reader.skip(4)
      const metadata = OwnRequest.readNullableString(reader)
      const errorCode = reader.int16()
      OwnRequest.skipTags(reader)
      return { partition, offset, metadata, errorCode }
    })
    OwnRequest.skipTags(reader)
    return { topic, partitions }
  })
  return { responses, errorCode: reader.int16() }
}

/** The positions of a group at its coordinator. */
export const fetch = (node: Node, request: OffsetFetchRequest): Promise<OffsetFetchResponse> =>
  OwnRequest.isSpoken(node, offsetFetch)
    ? OwnRequest.askInPlace(node, requestOf(request), (node) => node.offsetFetch(request))
    : node.offsetFetch(request)

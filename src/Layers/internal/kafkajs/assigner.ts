/**
 * Owns the form in which KafkaJS wants an assigner.
 *
 * The insight: KafkaJS members have given back what they had when they join,
 * so they keep nothing meanwhile.
 */
import type { Assigner, PartitionAssigner } from "kafkajs"
import { assign, type Owned } from "../kafka/assigner.ts"
import * as MemberProtocol from "../kafka/memberProtocol.ts"

/**
 * The assigner of one consumer. `owned` tells what it had; `lookUp` finds the
 * partitions of topics that this member does not read itself.
 */
export const make = (options: {
  readonly owned: () => Owned
  readonly lookUp: (topics: ReadonlyArray<string>) => Promise<ReadonlyMap<string, ReadonlyArray<number>>>
}): PartitionAssigner =>
({ cluster }): Assigner => ({
  name: MemberProtocol.name,
  version: 0,
  protocol: ({ topics }) => ({
    name: MemberProtocol.name,
    metadata: MemberProtocol.encodeMember({ topics, owned: options.owned(), keeps: false })
  }),
  assign: ({ members }) => {
    const candidates = members.map(({ memberId, memberMetadata }) =>
      MemberProtocol.decodeMember(memberId, memberMetadata)
    )
    const partitions = new Map<string, ReadonlyArray<number>>()
    const elsewhere: Array<string> = []
    for (const topic of new Set(candidates.flatMap((candidate) => candidate.topics))) {
      const known = cluster.findTopicPartitionMetadata(topic)
      if (known.length === 0) elsewhere.push(topic)
      else partitions.set(topic, known.map((partition) => partition.partitionId))
    }
    const found = elsewhere.length === 0 ? Promise.resolve(new Map<string, Array<number>>()) : options.lookUp(elsewhere)
    return found.then((more) =>
      Array.from(assign(candidates, new Map([...partitions, ...more])), ([memberId, assignment]) => ({
        memberId,
        memberAssignment: MemberProtocol.encodeAssignment(assignment)
      }))
    )
  }
})

/**
 * Owns who reads what: the spread of partitions over the members of a group.
 *
 * Invariant: a partition goes to exactly one of the members that subscribe to
 * its topic, if there is any; members with equal topics differ by at most one
 * partition of each topic.
 *
 * The insight: KafkaJS's own assigner gives every member partitions of every
 * topic that the *leader* subscribes to, and members drop what they did not
 * ask for. In a rolling deploy that adds a topic, these partitions have no
 * reader. So each member's own list counts, also for topics that the leader
 * does not know. Members tell what they had (`userData`), and keep it where
 * that is fair: caches stay warm.
 */
import { AssignerProtocol } from "kafkajs"
import type { Assigner, GroupMember, GroupMemberAssignment, PartitionAssigner } from "kafkajs"

/** Partitions by topic. */
export type Owned = Readonly<Record<string, ReadonlyArray<number>>>

/** A member as its JoinGroup describes it. */
export interface Candidate {
  readonly id: string
  readonly topics: ReadonlyArray<string>
  /** What it had before this rebalance. */
  readonly owned: Owned
}

interface Share {
  readonly candidate: Candidate
  /** Partitions in all that are its part, if all goes evenly. */
  readonly fair: number
  readonly given: Map<string, Array<number>>
  total: number
}

const byText = (a: string, b: string) => a < b ? -1 : a > b ? 1 : 0

const give = (share: Share, topic: string, partition: number) => {
  const partitions = share.given.get(topic) ?? []
  partitions.push(partition)
  share.given.set(topic, partitions)
  share.total++
}

const count = (share: Share, topic: string) => share.given.get(topic)?.length ?? 0

/** Keeps with each member what it had, up to its fair part; returns what is left over. */
const keep = (topic: string, partitions: ReadonlyArray<number>, readers: ReadonlyArray<Share>): Array<number> => {
  const least = Math.floor(partitions.length / readers.length)
  // So many members may have one partition more than the others.
  let extra = partitions.length % readers.length
  const left = new Set(partitions)
  for (const share of readers) {
    for (const partition of share.candidate.owned[topic] ?? []) {
      if (!left.has(partition) || share.total >= Math.ceil(share.fair)) continue
      if (count(share, topic) > least || (count(share, topic) === least && extra === 0)) continue
      if (count(share, topic) === least) extra--
      left.delete(partition)
      give(share, topic, partition)
    }
  }
  return [...left]
}

/** Decides the spread. Deterministic and pure. */
export const spread = (
  candidates: ReadonlyArray<Candidate>,
  partitions: ReadonlyMap<string, ReadonlyArray<number>>
): Map<string, Record<string, Array<number>>> => {
  const readersOf = (topic: string) => candidates.filter((candidate) => candidate.topics.includes(topic)).length
  const fairOf = (candidate: Candidate) =>
    candidate.topics.reduce((sum, topic) => sum + (partitions.get(topic)?.length ?? 0) / readersOf(topic), 0)
  const shares = [...candidates].sort((a, b) => byText(a.id, b.id)).map((candidate): Share => ({
    candidate,
    fair: fairOf(candidate),
    given: new Map(),
    total: 0
  }))
  // Topics with few readers leave no choice, so they come first.
  const topics = [...partitions.keys()].sort((a, b) => readersOf(a) - readersOf(b) || byText(a, b))
  for (const topic of topics) {
    const readers = shares.filter((share) => share.candidate.topics.includes(topic))
    if (readers.length === 0) continue
    for (const partition of keep(topic, [...partitions.get(topic) ?? []].sort((a, b) => a - b), readers)) {
      const next = readers.reduce((best, share) =>
        count(share, topic) < count(best, topic) ||
          (count(share, topic) === count(best, topic) && share.total - share.fair < best.total - best.fair)
          ? share
          : best
      )
      give(next, topic, partition)
    }
  }
  return new Map(shares.map(({ candidate, given }) => [
    candidate.id,
    Object.fromEntries([...given].map(([topic, list]) => [topic, list.sort((a, b) => a - b)]))
  ]))
}

const encodeOwned = (owned: Owned): Buffer => Buffer.from(JSON.stringify(owned))

const decodeOwned = (bytes: Buffer | undefined): Owned => {
  try {
    const owned: unknown = bytes === undefined || bytes.length === 0 ? {} : JSON.parse(bytes.toString())
    return typeof owned === "object" && owned !== null ? owned as Owned : {}
  } catch {
    return {}
  }
}

/** Reads a member's JoinGroup. A member that cannot be read subscribes to nothing. */
export const decodeMember = (member: GroupMember): Candidate => {
  const metadata = AssignerProtocol.MemberMetadata.decode(member.memberMetadata)
  return { id: member.memberId, topics: metadata?.topics ?? [], owned: decodeOwned(metadata?.userData) }
}

const name = "effect-events"
const version = 0

/**
 * The assigner of one consumer. `owned` tells what it has now; `lookUp` finds
 * the partitions of topics that this member does not read itself.
 */
export const make = (options: {
  readonly owned: () => Owned
  readonly lookUp: (topics: ReadonlyArray<string>) => Promise<ReadonlyMap<string, ReadonlyArray<number>>>
}): PartitionAssigner =>
({ cluster }): Assigner => ({
  name,
  version,
  protocol: ({ topics }) => ({
    name,
    metadata: AssignerProtocol.MemberMetadata.encode({ version, topics, userData: encodeOwned(options.owned()) })
  }),
  assign: ({ members }) => {
    const candidates = members.map(decodeMember)
    const partitions = new Map<string, ReadonlyArray<number>>()
    const elsewhere: Array<string> = []
    for (const topic of new Set(candidates.flatMap((candidate) => candidate.topics))) {
      const known = cluster.findTopicPartitionMetadata(topic)
      if (known.length === 0) elsewhere.push(topic)
      else partitions.set(topic, known.map((partition) => partition.partitionId))
    }
    const found = elsewhere.length === 0 ? Promise.resolve(new Map<string, Array<number>>()) : options.lookUp(elsewhere)
    return found.then((more) => encode(spread(candidates, new Map([...partitions, ...more]))))
  }
})

const encode = (assignments: ReadonlyMap<string, Record<string, Array<number>>>): Array<GroupMemberAssignment> =>
  [...assignments].map(([memberId, assignment]) => ({
    memberId,
    memberAssignment: AssignerProtocol.MemberAssignment.encode({ version, assignment, userData: Buffer.alloc(0) })
  }))

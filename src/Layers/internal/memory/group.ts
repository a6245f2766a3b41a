/**
 * A consumer group of the in-memory broker. Pure: each function takes a group
 * and returns the next one.
 *
 * A member's phases, with eager rebalances as in Kafka:
 *
 * ```
 *            join            all others joined          a member comes or goes
 *   (none) ───────► Joining ───────────────────► Granted ──────────────────► Revoking
 *                      ▲ ▲                           │                        │   │
 *                      │ └───────────────────────────┼────── revoked ─────────┘   │
 *                      └───── rejoin ───── Lost ◄────┴──────── expire ────────────┘
 * ```
 *
 * Invariant: a partition is granted to at most one member, and a grant ends in
 * the same step in which its member leaves `Granted` or `Revoking`.
 *
 * Insight: the next generation starts when the last live member has joined.
 * Nobody waits for a `Lost` member, so a dead one delays no hand-over.
 */
import type { Assignment, Position, TopicPartition } from "../../../Broker.ts"

export type Phase =
  | { readonly _tag: "Joining" }
  | { readonly _tag: "Granted"; readonly grants: ReadonlyArray<Assignment> }
  | { readonly _tag: "Revoking"; readonly grants: ReadonlyArray<Assignment> }
  | { readonly _tag: "Lost"; readonly grants: ReadonlyArray<Assignment>; readonly rejoins: boolean }

export interface Member {
  readonly id: number
  readonly topics: ReadonlyArray<string>
  readonly phase: Phase
}

export interface Group {
  readonly name: string
  /** Counts rebalances; the epoch of every grant made in it. */
  readonly generation: number
  /** In the order of joining. */
  readonly members: ReadonlyArray<Member>
  /** By `partitionKey`: the offset of the next record to read. */
  readonly committed: ReadonlyMap<string, bigint>
  /** By `grantKey`: grants of topics that were deleted since. A topic of that name is another one. */
  readonly gone: ReadonlySet<string>
}

/** The partitions that exist of a topic, as a number. */
type PartitionCount = (topic: string) => number

const joining: Phase = { _tag: "Joining" }

export const partitionKey = (at: TopicPartition): string => `${at.topic}:${at.partition}`

const grantKey = (grant: Assignment): string => `${partitionKey(grant)}:${grant.epoch}`

export const empty = (name: string): Group => ({
  name,
  generation: 0,
  members: [],
  committed: new Map(),
  gone: new Set()
})

export const memberOf = (group: Group, id: number): Member | undefined =>
  group.members.find((member) => member.id === id)

/** A new member joins: all others are asked to revoke. */
export const join = (group: Group, id: number, topics: ReadonlyArray<string>, count: PartitionCount): Group =>
  settle(askToRevoke({ ...group, members: [...group.members, { id, topics, phase: joining }] }), count)

/** A lost member joins again. */
export const rejoin = (group: Group, id: number, count: PartitionCount): Group =>
  settle(askToRevoke(setPhase(group, id, joining)), count)

/** A member goes, and its grants with it. */
export const leave = (group: Group, id: number, count: PartitionCount): Group =>
  settle(askToRevoke({ ...group, members: group.members.filter((member) => member.id !== id) }), count)

/** A member's session ends without its doing: its grants end at once. */
export const expire = (group: Group, id: number, rejoins: boolean, count: PartitionCount): Group => {
  const member = memberOf(group, id)
  return member === undefined || member.phase._tag === "Lost" ? group : settle(
    askToRevoke(setPhase(group, id, { _tag: "Lost", grants: grantsOf(member), rejoins })),
    count
  )
}

/** A member has let go of its grants. */
export const revoked = (group: Group, id: number, count: PartitionCount): Group =>
  memberOf(group, id)?.phase._tag === "Revoking" ? settle(setPhase(group, id, joining), count) : group

/** Everybody is asked to give back what it has. */
export const askToRevoke = (group: Group): Group => ({
  ...group,
  members: group.members.map((member) =>
    member.phase._tag === "Granted"
      ? { ...member, phase: { _tag: "Revoking", grants: member.phase.grants } }
      : member
  )
})

/** Commits all positions, or says why none of them counts. */
export const commit = (group: Group, id: number, positions: ReadonlyArray<Position>): Group | string => {
  const member = memberOf(group, id)
  const phase = member?.phase._tag
  if (member === undefined || phase === "Joining" || phase === "Lost") {
    return `the member is not in generation ${group.generation} of group "${group.name}"`
  }
  const grants = grantsOf(member)
  const committed = new Map(group.committed)
  for (const position of positions) {
    const key = partitionKey(position)
    if (!grants.some((grant) => grant.epoch === position.epoch && partitionKey(grant) === key)) {
      return `${position.topic} partition ${position.partition} is not granted under epoch ${position.epoch}`
    }
    // As in Kafka: nothing is kept for it, and it does not stop the others.
    if (!group.gone.has(grantKey(position))) committed.set(key, position.offset)
  }
  return { ...group, committed }
}

/** Forgets the positions in a topic that was deleted, also those that members still hold. */
export const forgetTopic = (group: Group, topic: string): Group => ({
  ...group,
  committed: new Map(Array.from(group.committed).filter(([key]) => !key.startsWith(`${topic}:`))),
  gone: new Set([
    ...group.gone,
    ...group.members.flatMap(grantsOf).filter((grant) => grant.topic === topic).map(grantKey)
  ])
})

const grantsOf = (member: Member): ReadonlyArray<Assignment> =>
  member.phase._tag === "Joining" ? [] : member.phase.grants

const setPhase = (group: Group, id: number, phase: Phase): Group => ({
  ...group,
  members: group.members.map((member) => member.id === id ? { ...member, phase } : member)
})

/** Starts the next generation once every live member has joined. */
const settle = (group: Group, count: PartitionCount): Group => {
  const live = group.members.filter((member) => member.phase._tag !== "Lost")
  if (live.length === 0 || live.some((member) => member.phase._tag !== "Joining")) {
    return group
  }
  const generation = group.generation + 1
  const grants = assign(live, generation, count)
  return {
    ...group,
    generation,
    gone: new Set(),
    members: group.members.map((member) => {
      const granted = grants.get(member.id)
      return granted === undefined ? member : { ...member, phase: { _tag: "Granted", grants: granted } }
    })
  }
}

/** Deals each partition to that member with the fewest which subscribes to its topic. */
const assign = (
  members: ReadonlyArray<Member>,
  epoch: number,
  count: PartitionCount
): ReadonlyMap<number, ReadonlyArray<Assignment>> => {
  const grants = new Map<number, Array<Assignment>>(members.map((member) => [member.id, []]))
  for (const topic of new Set(members.flatMap((member) => member.topics))) {
    const subscribers = members.filter((member) => member.topics.includes(topic))
    for (let partition = 0; partition < count(topic); partition++) {
      const lists = subscribers.map((member) => grants.get(member.id)!)
      const shortest = lists.reduce((least, list) => list.length < least.length ? list : least)
      shortest.push({ topic, partition, epoch })
    }
  }
  return grants
}

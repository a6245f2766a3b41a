/**
 * Owns who reads what: the spread of partitions over the members of a group.
 *
 * Invariant: a partition goes to exactly one of the members that subscribe to
 * its topic, if there is any; members with equal topics differ by at most one
 * partition of each topic.
 *
 * The insights: the assigners of clients give every member partitions of every
 * topic that the *leader* subscribes to, and members drop what they did not
 * ask for. In a rolling deploy that adds a topic, these partitions have no
 * reader. So each member's own list counts, also for topics that the leader
 * does not know. Members tell what they had (`userData`), and keep it where
 * that is fair: caches stay warm.
 *
 * A member may go on with what it has while the group is rebalanced (KIP-429),
 * and says so. What goes from it to another is nobody's for one generation: it
 * sees that, gives it back, and joins again. So members that stop for a
 * rebalance, as those over KafkaJS do, and members that do not can share a
 * group, whoever of them leads it.
 */

/** Partitions by topic. */
export type Owned = Readonly<Record<string, ReadonlyArray<number>>>

/** A member as its JoinGroup describes it. */
export interface Candidate {
  readonly id: string
  readonly topics: ReadonlyArray<string>
  /** What it had before this rebalance. */
  readonly owned: Owned
  /** It has it still, and goes on with it meanwhile. */
  readonly keeps: boolean
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

/** What members have still, by topic and partition, with who has it. */
const keepers = (candidates: ReadonlyArray<Candidate>): ReadonlyMap<string, ReadonlySet<string>> => {
  const found = new Map<string, Set<string>>()
  for (const { id, keeps, owned } of candidates) {
    for (const [topic, partitions] of keeps ? Object.entries(owned) : []) {
      for (const partition of partitions) {
        const key = `${topic}/${partition}`
        found.set(key, (found.get(key) ?? new Set()).add(id))
      }
    }
  }
  return found
}

/** Who gets what now: nobody gets what another one has still. Deterministic and pure. */
export const assign = (
  candidates: ReadonlyArray<Candidate>,
  partitions: ReadonlyMap<string, ReadonlyArray<number>>
): Map<string, Owned> => {
  const kept = keepers(candidates)
  const isFree = (id: string, topic: string) => (partition: number) => {
    const holders = kept.get(`${topic}/${partition}`)
    return holders === undefined || (holders.size === 1 && holders.has(id))
  }
  return new Map(Array.from(spread(candidates, partitions), ([id, given]) => [
    id,
    Object.fromEntries(Object.entries(given).map(([topic, list]) => [topic, list.filter(isFree(id, topic))]))
  ]))
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

/** Who reads what in a group. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import KafkaJsClient from "kafkajs"
import type { Cluster } from "kafkajs"
import * as Assigner from "../../../src/Layers/internal/kafka/assigner.ts"
import * as KafkaJsAssigner from "../../../src/Layers/internal/kafkajs/assigner.ts"

const upTo = (count: number) => Array.from({ length: count }, (_, index) => index)
const member = (id: string, topics: ReadonlyArray<string>, owned: Assigner.Owned = {}): Assigner.Candidate => ({
  id,
  topics,
  owned,
  keeps: false
})
const partitions = (counts: Record<string, number>) =>
  new Map(Object.entries(counts).map(([topic, count]) => [topic, upTo(count)]))

/** What each member holds, for comparing. */
const holdings = (spread: ReadonlyMap<string, Record<string, ReadonlyArray<number>>>) => Object.fromEntries(spread)

const asOwned = (spread: ReadonlyMap<string, Record<string, ReadonlyArray<number>>>, id: string): Assigner.Owned =>
  spread.get(id) ?? {}

describe("the assigner", () => {
  it("gives a topic's partitions only to members that subscribe to it", () => {
    const spread = Assigner.spread([member("a", ["x"]), member("b", ["y"])], partitions({ x: 3, y: 2 }))
    assert.deepStrictEqual(holdings(spread), { a: { x: [0, 1, 2] }, b: { y: [0, 1] } })
  })

  it("gives a topic that a rolling deploy adds to the new members only, and shares the old one", () => {
    const members = [member("new", ["x", "added"]), member("old", ["x"])]
    const spread = Assigner.spread(members, partitions({ x: 4, added: 2 }))
    assert.deepStrictEqual(spread.get("new")?.added, [0, 1])
    assert.strictEqual(spread.get("new")?.x?.length, 2)
    assert.strictEqual(spread.get("old")?.x?.length, 2)
    assert.isUndefined(spread.get("old")?.added)
  })

  it("spreads many topics of one partition evenly", () => {
    const topics = upTo(10).map((n) => `t${n}`)
    const counts = partitions(Object.fromEntries(topics.map((topic) => [topic, 1])))
    const spread = Assigner.spread([member("a", topics), member("b", topics)], counts)
    assert.strictEqual(Object.keys(spread.get("a")!).length, 5)
  })

  it("leaves with each member what it had, as far as that is fair, when another comes", () => {
    const before = Assigner.spread([member("a", ["x"]), member("b", ["x"])], partitions({ x: 6 }))
    const after = Assigner.spread([
      member("a", ["x"], asOwned(before, "a")),
      member("b", ["x"], asOwned(before, "b")),
      member("A newcomer that sorts first", ["x"])
    ], partitions({ x: 6 }))
    for (const id of ["a", "b"]) {
      assert.strictEqual(after.get(id)?.x?.length, 2)
      assert.includeMembers([...before.get(id)!.x!], [...after.get(id)!.x!])
    }
  })

  it("gives nobody what another member has still, and all of it once that has been given back", () => {
    const topics = ["x", "y"]
    const ids = ["a", "b", "c"]
    const candidate = (id: string) =>
      fc.record({ id: fc.constant(id), topics: fc.subarray(topics), keeps: fc.boolean() })
    const arbitrary = fc.tuple(
      fc.tuple(...ids.map(candidate)),
      fc.tuple(...topics.map(() => fc.nat(7))),
      fc.array(fc.nat(2), { minLength: 16, maxLength: 16 })
    )
    fc.assert(fc.property(arbitrary, ([some, counts, holders]) => {
      const all = partitions(Object.fromEntries(topics.map((topic, n) => [topic, counts[n]!])))
      // Each partition had one holder at most, as in a group.
      const owned = (id: string): Assigner.Owned =>
        Object.fromEntries(topics.map((topic, t) => [
          topic,
          (all.get(topic) ?? []).filter((partition) => ids[holders[8 * t + partition]!] === id)
        ]))
      const members = some.map((one) => ({ ...one, owned: owned(one.id) }))
      const given = Assigner.assign(members, all)
      for (const { id, keeps, owned } of members) {
        for (const other of ids.filter((other) => keeps && other !== id)) {
          for (const topic of topics) {
            const taken = given.get(other)?.[topic]?.filter((partition) => owned[topic]!.includes(partition)) ?? []
            assert.deepStrictEqual(taken, [])
          }
        }
      }
      // Who sees that something has gone gives it back, and they join again.
      const kept = (id: string): Assigner.Owned =>
        Object.fromEntries(topics.map((topic) => [
          topic,
          owned(id)[topic]!.filter((partition) => given.get(id)?.[topic]?.includes(partition))
        ]))
      const again = Assigner.assign(members.map((one) => ({ ...one, owned: kept(one.id) })), all)
      for (const topic of topics) {
        const readers = members.filter((one) => one.topics.includes(topic))
        const read = ids.flatMap((id) => again.get(id)?.[topic] ?? []).sort((a, b) => a - b)
        assert.deepStrictEqual(read, readers.length === 0 ? [] : [...all.get(topic)!])
      }
    }))
  })

  it("does not depend on the order in which members are listed", () => {
    const members = [member("c", ["x"]), member("a", ["x", "y"]), member("b", ["y"])]
    const counts = partitions({ x: 5, y: 3 })
    assert.deepStrictEqual(
      holdings(Assigner.spread(members, counts)),
      holdings(Assigner.spread([...members].reverse(), counts))
    )
  })

  it("two members that claim the same partition do not both get it", () => {
    const claim = { x: [0, 1] }
    const spread = Assigner.spread([member("a", ["x"], claim), member("b", ["x"], claim)], partitions({ x: 2 }))
    const given = [...spread.values()].flatMap((given) => given.x ?? [])
    assert.sameMembers(given, [0, 1])
    assert.strictEqual(given.length, 2)
  })

  it("gives each partition that has a reader to exactly one of them, whatever the members claim", () => {
    const topics = ["x", "y", "z"]
    const ids = ["a", "b", "c", "d"]
    const claims = fc.dictionary(fc.constantFrom(...topics), fc.array(fc.nat(8), { maxLength: 4 }))
    const candidate = (id: string) =>
      fc.record({ id: fc.constant(id), topics: fc.subarray(topics), owned: claims, keeps: fc.boolean() })
    const arbitrary = fc.tuple(
      fc.subarray(ids, { minLength: 1 }).chain((some) => fc.tuple(...some.map(candidate))),
      fc.tuple(...topics.map(() => fc.nat(7)))
    )
    fc.assert(fc.property(arbitrary, ([members, counts]) => {
      const all = partitions(Object.fromEntries(topics.map((topic, n) => [topic, counts[n]!])))
      const spread = Assigner.spread(members, all)
      for (const topic of topics) {
        const readers = members.filter((one) => one.topics.includes(topic))
        const given = members.map((one) => spread.get(one.id)?.[topic] ?? [])
        const expected = readers.length === 0 ? [] : all.get(topic)!
        assert.deepStrictEqual(given.flat().sort((a, b) => a - b), [...expected])
        const sizes = readers.map((one) => spread.get(one.id)?.[topic]?.length ?? 0)
        if (sizes.length > 0) assert.isAtMost(Math.max(...sizes) - Math.min(...sizes), 1)
        for (const one of members) {
          if (!one.topics.includes(topic)) assert.strictEqual(spread.get(one.id)?.[topic]?.length ?? 0, 0)
        }
      }
    }))
  })

  it.effect("finds the partitions of topics that the leader does not read itself", () =>
    Effect.promise(() => {
      const cluster = {
        findTopicPartitionMetadata: (topic: string) => topic === "own" ? [{ partitionId: 0 }, { partitionId: 1 }] : []
      } as unknown as Cluster
      const assigner = KafkaJsAssigner.make({
        owned: () => ({}),
        lookUp: (topics) => Promise.resolve(new Map(topics.map((topic) => [topic, [0, 1, 2]])))
      })({ cluster, groupId: "group", logger: undefined as never })
      const metadata = (topics: Array<string>) =>
        KafkaJsClient.AssignerProtocol.MemberMetadata.encode({ version: 0, topics, userData: Buffer.alloc(0) })
      const members = [
        { memberId: "leader", memberMetadata: metadata(["own"]) },
        { memberId: "other", memberMetadata: metadata(["own", "foreign"]) }
      ]
      return assigner.assign({ members, topics: ["own"] }).then((assignments) => {
        const other = assignments.find(({ memberId }) => memberId === "other")!
        const decoded = KafkaJsClient.AssignerProtocol.MemberAssignment.decode(other.memberAssignment)
        assert.deepStrictEqual(decoded?.assignment.foreign, [0, 1, 2])
      })
    }))
})

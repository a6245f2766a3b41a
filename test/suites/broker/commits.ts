/** Commits: where a group goes on, and which commits no longer count. */
import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { Broker, Position, Subscription } from "../../../src/Broker.ts"
import { cases } from "../features.ts"
import type { BrokerFeatures, It } from "../features.ts"
import * as Journal from "./journal.ts"
import { freshGroup, freshTopic, reasonOf, send, sendToEach, sorted, upTo } from "./support.ts"

export const commits = <R>(it: It<Broker | R>, features: BrokerFeatures<R>): void => {
  const { check, checkWith } = cases(it, features)

  /** What a new member of the group is given first, for each partition that has records left. */
  const resumesAt = Effect.fnUntraced(function*(group: string, topic: string, count: number) {
    const journal = yield* Journal.make
    yield* journal.member("probe", { group, topics: [topic] })
    yield* journal.until(`${count} records from the committed positions`, () => journal.deliveries().length >= count)
    return journal.texts()
  }, Effect.scoped)

  check("a member that starts again goes on at the committed position, exactly", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const journal = yield* Journal.make
      yield* send(topic, 0, upTo(10).map((n) => `v-${n}`))
      yield* Effect.scoped(Effect.gen(function*() {
        const member = yield* journal.member("a", { group, topics: [topic] })
        yield* journal.until("ten records", () => journal.deliveries("a").length >= 10)
        yield* member.commit(journal.held("a").map((grant) => ({ ...grant, offset: 4n })))
      }))
      assert.deepStrictEqual(yield* resumesAt(group, topic, 6), upTo(10).slice(4).map((n) => `v-${n}`))
    }))

  check("a commit of everything leaves only what is sent later", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const journal = yield* Journal.make
      yield* send(topic, 0, ["a", "b", "c"])
      yield* Effect.scoped(Effect.gen(function*() {
        const member = yield* journal.member("a", { group, topics: [topic] })
        yield* journal.until("three records", () => journal.deliveries("a").length >= 3)
        assert.deepStrictEqual(journal.positions("a").map(({ offset }) => offset), [3n])
        yield* member.commit(journal.positions("a"))
      }))
      yield* send(topic, 0, ["d"])
      assert.deepStrictEqual(yield* resumesAt(group, topic, 1), ["d"])
    }))

  check("each group has positions of its own", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const [one, two] = [yield* freshGroup, yield* freshGroup]
      const journal = yield* Journal.make
      yield* send(topic, 0, ["a", "b"])
      yield* Effect.scoped(Effect.gen(function*() {
        const member = yield* journal.member("a", { group: one, topics: [topic] })
        yield* journal.until("two records", () => journal.deliveries("a").length >= 2)
        yield* member.commit(journal.held("a").map((grant) => ({ ...grant, offset: 1n })))
      }))
      assert.deepStrictEqual(yield* resumesAt(one, topic, 1), ["b"])
      assert.deepStrictEqual(yield* resumesAt(two, topic, 2), ["a", "b"])
    }))

  check(
    "a late commit of a revoked partition is refused, and does not move the new owner back",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const group = yield* freshGroup
        const journal = yield* Journal.make
        yield* sendToEach(topic, 2, 10)
        yield* Effect.scoped(Effect.gen(function*() {
          const a = yield* journal.member("a", { group, topics: [topic] })
          yield* journal.until("a has read all", () => journal.deliveries("a").length >= 20)
          const old = journal.held("a")
          const b = yield* journal.member("b", { group, topics: [topic] })
          yield* journal.until(
            "one each, read again by b",
            () =>
              journal.held("a").length === 1 && journal.held("b").length === 1 && journal.deliveries("b").length >= 10
          )
          const [moved] = journal.held("b")
          yield* b.commit([{ ...moved!, offset: 10n }])
          yield* a.commit(journal.held("a").map((grant) => ({ ...grant, offset: 10n })))
          const late = old.filter(({ partition }) => partition === moved!.partition).map((at) => ({
            ...at,
            offset: 2n
          }))
          assert.strictEqual(late.length, 1)
          assert.strictEqual((yield* reasonOf(a.commit(late)))._tag, "Fenced")
        }))
        yield* sendToEach(topic, 2, 1, "next")
        assert.deepStrictEqual(sorted(yield* resumesAt(group, topic, 2)), ["next-0-0", "next-1-0"])
      })
  )

  check("one ended epoch refuses the whole commit: the positions beside it do not move", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const group = yield* freshGroup
      const journal = yield* Journal.make
      yield* sendToEach(topic, 2, 3)
      yield* Effect.scoped(Effect.gen(function*() {
        const a = yield* journal.member("a", { group, topics: [topic] })
        yield* journal.until("all read", () => journal.deliveries("a").length >= 6)
        const [live, ended] = journal.held("a")
        const mixed: ReadonlyArray<Position> = [
          { ...live!, offset: 3n },
          { ...ended!, epoch: ended!.epoch + 1_000, offset: 3n }
        ]
        assert.strictEqual((yield* reasonOf(a.commit(mixed)))._tag, "Fenced")
      }))
      assert.strictEqual((yield* resumesAt(group, topic, 6)).length, 6)
    }))

  check("a commit of a partition that was never granted is refused", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const other = yield* freshTopic(1)
      const journal = yield* Journal.make
      const a = yield* journal.member("a", { group: yield* freshGroup, topics: [topic] })
      yield* journal.until("assigned", () => journal.held("a").length === 1)
      const foreign = { ...journal.held("a")[0]!, topic: other, offset: 1n }
      assert.strictEqual((yield* reasonOf(a.commit([foreign])))._tag, "Fenced")
    }))

  check("a commit after leaving the group is refused", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const journal = yield* Journal.make
      yield* send(topic, 0, ["a", "b"])
      const [member, positions] = yield* Effect.scoped(Effect.gen(function*() {
        const member = yield* journal.member("a", { group, topics: [topic] })
        yield* journal.until("two records", () => journal.deliveries("a").length >= 2)
        return [member, journal.positions("a")] as const
      }))
      assert.strictEqual((yield* reasonOf(member.commit(positions)))._tag, "Fenced")
      assert.deepStrictEqual(yield* resumesAt(group, topic, 2), ["a", "b"])
    }))

  checkWith(
    features.expire,
    "a member whose session ended hears Lost and no Revoked; its late commit is refused, and what it did not commit comes again",
    (expire) =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const journal = yield* Journal.make
        yield* send(topic, 0, upTo(5).map((n) => `v-${n}`))
        const subscription = yield* Deferred.make<Subscription>()
        const inLost: Array<string> = []
        const member = yield* journal.member("a", {
          group,
          topics: [topic],
          hook: (signal) =>
            signal._tag === "Lost"
              ? Effect.flatMap(
                Deferred.await(subscription),
                (member) => reasonOf(member.commit(signal.assignments.map((at) => ({ ...at, offset: 5n }))))
              ).pipe(
                Effect.map((reason) => void inLost.push(reason._tag))
              )
              : Effect.void
        })
        yield* Deferred.succeed(subscription, member)
        yield* journal.until("five records", () => journal.deliveries("a").length >= 5)
        const [grant] = journal.held("a")
        yield* member.commit([{ ...grant!, offset: 2n }])
        yield* expire(group)
        yield* journal.until("the rest a second time, under a new grant", () => journal.deliveries("a").length >= 8)
        assert.deepStrictEqual(journal.signals("a", "Lost").map(({ assignments }) => assignments), [[grant!]])
        assert.deepStrictEqual(inLost, ["Fenced"])
        assert.strictEqual(journal.signals("a", "Revoked").length, 0)
        assert.deepStrictEqual(journal.texts("a"), ["v-0", "v-1", "v-2", "v-3", "v-4", "v-2", "v-3", "v-4"])
        assert.notStrictEqual(journal.held("a")[0]!.epoch, grant!.epoch)
        assert.strictEqual((yield* reasonOf(member.commit([{ ...grant!, offset: 5n }])))._tag, "Fenced")
        yield* member.commit(journal.positions("a"))
      })
  )

  checkWith(
    features.skipOffsets,
    "offsets without a record are passed: the position reaches the end of the log",
    (skipOffsets) =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const journal = yield* Journal.make
        yield* send(topic, 0, ["before"])
        yield* skipOffsets({ topic, partition: 0 })
        const after = yield* send(topic, 0, ["after"])
        assert.isAbove(Number(after), 1)
        yield* skipOffsets({ topic, partition: 0 })
        yield* Effect.scoped(Effect.gen(function*() {
          const member = yield* journal.member("a", { group, topics: [topic] })
          yield* journal.until("a position behind the last marker", () =>
            (journal.positions("a")[0]?.offset ?? 0n) > after + 1n)
          assert.deepStrictEqual(journal.texts(), ["before", "after"])
          yield* member.commit(journal.positions("a"))
        }))
        yield* send(topic, 0, ["later"])
        assert.deepStrictEqual(yield* resumesAt(group, topic, 1), ["later"])
      })
  )
}

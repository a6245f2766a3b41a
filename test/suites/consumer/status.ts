/** Status: a partition that does not move says why, on any broker. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Consumer from "../../../src/Consumer.ts"
import * as ConsumerGroup from "../../../src/ConsumerGroup.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import { askUntil, cases, type It } from "../features.ts"
import {
  type Call,
  callOf,
  freshGroup,
  freshTopic,
  type FrontFeatures,
  items,
  makeLog,
  member,
  publishAll,
  type Services,
  withoutCommits
} from "./support.ts"

export const status = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  /** Waits until one partition of a group satisfies a test, and returns it. */
  const partition = (group: string, what: string, test: (partition: ConsumerGroup.Partition) => boolean) =>
    askUntil(
      features,
      what,
      Effect.map(ConsumerGroup.status(group), (all) => all.flatMap(({ partitions }) => partitions).find(test)),
      (found) => found !== undefined
    ).pipe(Effect.map((found) => found!))

  const patient: FailurePolicy.FailurePolicy<unknown> = { ...FailurePolicy.save(), timeout: "1 hour" }

  check(
    "a partition behind a handler that hangs is stuck, names it, and is idle once it has ended",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const release = Latch.makeUnsafe(false)
        const Bill = Consumer.idempotent(topic, (event) => event.payload.n === 3 ? release.await : Effect.void, {
          name: "bill",
          onFailure: patient
        })
        yield* publishAll(topic, items(20, 10))
        yield* member(group, [Bill], { stuckAfter: "1 second" })
        const stuck = yield* partition(
          group,
          "stuck, with all done that can be",
          // While the commit of the others is on its way, that is the reason.
          ({ buffered, reason, verdict, watermark }) =>
            verdict === "stuck" && watermark === "3" && buffered === 2 && reason.startsWith("Handler")
        )
        assert.deepStrictEqual([stuck.running?.handler, stuck.running?.key, stuck.running?.offset], [
          "bill",
          "key-3",
          "3"
        ])
        assert.match(
          stuck.reason,
          /^Handler "bill" has run for \d+ s at offset 3 \(key "key-3"\); it is interrupted after/
        )
        assert.deepStrictEqual([stuck.watermark, stuck.highestDelivered, stuck.span], ["3", "19", 17])
        yield* release.open
        const idle = yield* partition(group, "idle again", (one) => one.topic === topic.name && one.verdict === "idle")
        assert.deepStrictEqual([idle.watermark, idle.committed, idle.running], ["20", "20", null])
      })
  )

  check("a partition that holds as many records as it may is paused, and says so", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const release = Latch.makeUnsafe(false)
      const log = makeLog<Call>()
      const Bill = Consumer.idempotent(topic, (event) => Effect.andThen(release.await, log.add(callOf(event))), {
        onFailure: patient
      })
      const count = 3_000
      yield* publishAll(topic, items(count, count))
      yield* member(group, [Bill])
      const paused = yield* partition(group, "paused", ({ paused }) => paused !== null)
      assert.strictEqual(paused.paused, "prefetch")
      assert.isAtLeast(paused.buffered, 1_024)
      assert.match(paused.reason, /The partition is paused: it holds as many records as it may\.$/)
      yield* release.open
      yield* log.untilCount(count)
      const idle = yield* partition(group, "idle", ({ verdict }) => verdict === "idle")
      assert.deepStrictEqual([idle.paused, idle.buffered], [null, 0])
    }))

  check(
    "a partition whose commits fail is stuck although its handlers are through, and names the broker's answer",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        yield* publishAll(topic, items(5, 5))
        yield* member(group, [Consumer.idempotent(topic, () => Effect.void)], {
          stuckAfter: "1 second",
          change: withoutCommits
        })
        const stuck = yield* partition(
          group,
          "stuck, after a commit has failed",
          ({ commitError, verdict }) => verdict === "stuck" && commitError !== null
        )
        assert.match(stuck.reason, /^Commits fail: .*; what is not committed comes again after a restart\.$/)
        assert.deepStrictEqual([stuck.buffered, stuck.watermark], [0, "5"])
      })
  )
}

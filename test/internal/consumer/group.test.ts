/** A membership: drains, losses, stops, flow control and commits. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { BrokerError, Fenced, Unreachable } from "../../../src/Broker.ts"
import * as Feed from "../../support/scriptedFeed.ts"

const { each, engine, makeGate, pass, record, records, retries, saving, settle } = Feed

/** A handler that notes what happens to each number. */
const makeNoting = (work: (event: Feed.Item) => Effect.Effect<unknown, unknown>) => {
  const log: Array<string> = []
  return {
    log,
    handle: (event: Feed.Item) =>
      Effect.sync(() => log.push(`start ${event.payload.n}`)).pipe(
        Effect.andThen(work(event)),
        Effect.tap(() => Effect.sync(() => log.push(`done ${event.payload.n}`))),
        Effect.onInterrupt(() => Effect.sync(() => log.push(`interrupted ${event.payload.n}`)))
      )
  }
}

const many = (count: number, from = 0) => Array.from({ length: count }, (_, i) => record(from + i, `k${from + i}`))

const forked = (signal: Effect.Effect<void>) => Effect.tap(Effect.forkChild(signal), settle)

const ended = (fiber: Fiber.Fiber<unknown>) => fiber.pollUnsafe() !== undefined

describe("a revoked partition", () => {
  it.effect("is let go once what runs is done and committed; what waits is handed back and does not run", () =>
    Effect.gen(function*() {
      const { handle, log } = makeNoting(() => Effect.sleep(500))
      const { feed } = yield* engine([each(handle, { concurrency: 2 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "c", "d"))
      yield* settle
      const revoking = yield* forked(feed.revoke([0], Duration.seconds(10)))
      yield* pass(499)
      assert.isFalse(ended(revoking))
      yield* pass(1)
      assert.isTrue(ended(revoking))
      assert.deepStrictEqual(log, ["start 0", "start 1", "done 0", "done 1"])
      assert.strictEqual(feed.committed(0), 2n)
      yield* pass(10_000)
      assert.strictEqual(log.length, 4)
    }))

  it.effect("in which nothing runs is let go at once", () =>
    Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.void)])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b"))
      yield* settle
      yield* feed.revoke([0], Duration.seconds(10))
      assert.strictEqual(feed.committed(0), 2n)
    }))

  it.effect("does not wait for a record that backs off", () =>
    Effect.gen(function*() {
      const { handle, log } = makeNoting(({ payload }) => payload.n === 0 ? Effect.fail("no") : Effect.void)
      const { feed, letters } = yield* engine([each(handle, { policy: { ...saving, retry: retries(5, "1 hour") } })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a", "b"))
      yield* settle
      yield* feed.revoke([0], Duration.seconds(10))
      yield* pass("2 hours")
      assert.deepStrictEqual(log, ["start 0", "start 2", "done 2"])
      assert.isUndefined(feed.committed(0))
      assert.deepStrictEqual(letters, [])
    }))

  it.effect("whose handler fails meanwhile hands its record back instead of backing off", () =>
    Effect.gen(function*() {
      const { handle } = makeNoting(() => Effect.andThen(Effect.sleep(500), Effect.fail("no")))
      const { feed, letters } = yield* engine([each(handle, { policy: { ...saving, retry: retries(5, "1 hour") } })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a"))
      yield* settle
      const revoking = yield* forked(feed.revoke([0], Duration.minutes(10)))
      yield* pass(500)
      assert.isTrue(ended(revoking))
      assert.isUndefined(feed.committed(0))
      assert.deepStrictEqual(letters, [])
    }))

  it.effect("at the deadline interrupts what still runs, and waits until its finalizers are through", () =>
    Effect.gen(function*() {
      const { handle, log } = makeNoting(({ payload }) =>
        payload.n === 0
          ? Effect.sleep(100)
          : Effect.ensuring(
            Effect.never,
            Effect.andThen(Effect.sleep(2_000), Effect.sync(() => log.push("finalized")))
          )
      )
      const { feed, letters } = yield* engine([each(handle)])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b"))
      yield* settle
      const revoking = yield* forked(feed.revoke([0], Duration.seconds(3)))
      yield* pass(3_000)
      assert.isFalse(ended(revoking), "a finalizer still runs")
      yield* pass(2_000)
      assert.isTrue(ended(revoking))
      assert.deepStrictEqual(log, ["start 0", "start 1", "done 0", "finalized", "interrupted 1"])
      assert.strictEqual(feed.committed(0), 1n)
      assert.deepStrictEqual(letters, [], "a cancelled handler is never a dead letter")
    }))

  it.effect("at the deadline interrupts the writing of a dead letter as well", () =>
    Effect.gen(function*() {
      let interrupted = false
      const { feed } = yield* engine([each(() => Effect.fail("no"))], {
        writeDeadLetter: () => Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted = true))
      })
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* settle
      const revoking = yield* forked(feed.revoke([0], Duration.seconds(1)))
      yield* pass(1_000)
      assert.isTrue(ended(revoking))
      assert.isTrue(interrupted)
    }))

  it.effect("leaves the others running, and what they have done is committed", () =>
    Effect.gen(function*() {
      const { handle, log } = makeNoting(() => Effect.sleep(500))
      const { feed } = yield* engine([each(handle)])
      yield* feed.assign(0, 1)
      yield* feed.deliver(0, [record(0, "a")])
      yield* feed.deliver(1, [record(10, "b"), record(11, "b")])
      yield* settle
      yield* forked(feed.revoke([0], Duration.millis(100)))
      yield* pass(100)
      assert.deepStrictEqual(log, ["start 0", "start 10", "interrupted 0"])
      yield* pass(2_000)
      assert.deepStrictEqual(log.slice(3), ["done 10", "start 11", "done 11"])
      assert.isUndefined(feed.committed(0))
      assert.strictEqual(feed.committed(1), 12n)
    }))

  it.effect("takes in nothing more, and neither do records of an epoch that has ended", () =>
    Effect.gen(function*() {
      const { handle, log } = makeNoting(() => Effect.sleep(500))
      const { feed } = yield* engine([each(handle)])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* settle
      yield* forked(feed.revoke([0], Duration.seconds(1)))
      yield* feed.deliver(0, [record(1, "b")])
      yield* pass(1_000)
      yield* feed.deliver(0, [record(2, "c")])
      yield* pass(1_000)
      assert.deepStrictEqual(log, ["start 0", "done 0"])
    }))

  it.effect("that comes back begins anew, and a late result of before changes nothing", () =>
    Effect.gen(function*() {
      const gate = makeGate()
      let first = true
      const { handle } = makeNoting(() =>
        Effect.suspend(() => {
          if (!first) return Effect.never
          first = false
          return Effect.uninterruptible(gate.wait)
        })
      )
      const { feed } = yield* engine([each(handle)])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* settle
      // The handler cannot be interrupted: 1 s for the drain, 5 s for the interruption.
      const revoking = yield* forked(feed.revoke([0], Duration.seconds(1)))
      yield* pass(6_000)
      assert.isTrue(ended(revoking))
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* gate.open
      yield* pass(5_000)
      assert.isUndefined(feed.committed(0))
    }))

  it.effect("is let go although its last commit fails", () =>
    Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.void)])
      feed.script.commit = () => Effect.fail(new BrokerError({ reason: new Fenced({ detail: "too late" }) }))
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* settle
      yield* feed.revoke([0], Duration.seconds(1))
      yield* pass(5_000)
      assert.deepStrictEqual(feed.commits, [])
    }))
})

describe("a lost partition", () => {
  it.effect("commits nothing, interrupts what runs, and waits for its finalizers", () =>
    Effect.gen(function*() {
      const { handle, log } = makeNoting(({ payload }) => payload.n === 0 ? Effect.void : Effect.sleep(500))
      const { feed, letters } = yield* engine([each(handle)])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "b"))
      yield* settle
      yield* feed.lose(0)
      assert.deepStrictEqual(log, ["start 0", "done 0", "start 1", "interrupted 1"])
      yield* pass(10_000)
      assert.strictEqual(log.length, 4)
      assert.deepStrictEqual(feed.commits, [])
      assert.deepStrictEqual(letters, [])
    }))

  it.effect("commits nothing either while a finalizer of its handlers takes its time", () =>
    Effect.gen(function*() {
      const { handle } = makeNoting(({ payload }) =>
        payload.n === 0 ? Effect.void : Effect.ensuring(Effect.never, Effect.sleep(3_000))
      )
      const { feed } = yield* engine([each(handle)])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b"))
      yield* settle
      const losing = yield* forked(feed.lose(0))
      yield* pass(2_000)
      assert.isFalse(ended(losing))
      yield* pass(10_000)
      assert.isTrue(ended(losing))
      assert.deepStrictEqual(feed.commits, [])
    }))

  it.effect("does not keep the others from being committed", () =>
    Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.void)])
      yield* feed.assign(0, 1)
      yield* feed.deliver(0, records("a"))
      yield* feed.deliver(1, records("b"))
      yield* settle
      yield* feed.lose(0)
      yield* pass(1_000)
      assert.isUndefined(feed.committed(0))
      assert.strictEqual(feed.committed(1), 1n)
    }))
})

describe("stopping", () => {
  it.effect("drains what runs, hands back what waits, commits, and takes nothing in", () =>
    Effect.gen(function*() {
      const { handle, log } = makeNoting(() => Effect.sleep(500))
      const { feed, stop } = yield* engine([each(handle, { concurrency: 2 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "c"))
      yield* settle
      const stopping = yield* forked(stop)
      yield* feed.deliver(0, [record(3, "d")])
      yield* feed.assign(1)
      yield* feed.deliver(1, [record(0, "e")])
      yield* pass(500)
      assert.isTrue(ended(stopping))
      assert.deepStrictEqual(log, ["start 0", "start 1", "done 0", "done 1"])
      assert.strictEqual(feed.committed(0), 2n)
    }))

  it.effect("interrupts what outlives shutdownTimeout, and waits for it", () =>
    Effect.gen(function*() {
      const { handle, log } = makeNoting(() => Effect.never)
      const { feed, letters, stop } = yield* engine([each(handle)], { shutdownTimeout: Duration.seconds(20) })
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* settle
      const stopping = yield* forked(stop)
      yield* pass(19_999)
      assert.isFalse(ended(stopping))
      yield* pass(1)
      assert.isTrue(ended(stopping))
      assert.deepStrictEqual(log, ["start 0", "interrupted 0"])
      assert.deepStrictEqual(letters, [])
    }))

  it.effect("while a partition is being revoked joins that drain", () =>
    Effect.gen(function*() {
      const { handle, log } = makeNoting(() => Effect.sleep(500))
      const { feed, stop } = yield* engine([each(handle)])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* settle
      const revoking = yield* forked(feed.revoke([0], Duration.seconds(10)))
      const stopping = yield* forked(stop)
      yield* pass(500)
      assert.isTrue(ended(revoking) && ended(stopping))
      assert.deepStrictEqual(log, ["start 0", "done 0"])
      assert.strictEqual(feed.committed(0), 1n)
    }))

  it.effect("before anything was assigned is immediate", () =>
    Effect.gen(function*() {
      const { feed, stop } = yield* engine([each(() => Effect.void)])
      yield* stop
      assert.deepStrictEqual(feed.commits, [])
    }))
})

describe("flow control", () => {
  it.effect("a full partition is paused, and resumed once half of it is done", () =>
    Effect.gen(function*() {
      const { handle } = makeNoting(() => Effect.sleep(100))
      const { feed } = yield* engine([each(handle, { concurrency: 1 })])
      yield* feed.assign(0, 1)
      const delivering = yield* forked(feed.deliver(0, many(1_024)))
      assert.isFalse(ended(delivering), "room may come at once: a pause costs a fetch")
      yield* pass(25)
      assert.isTrue(ended(delivering))
      assert.deepStrictEqual(feed.flow, ["pause 0"])
      yield* pass(511 * 100 - 50)
      assert.deepStrictEqual(feed.flow, ["pause 0"])
      yield* pass(200)
      assert.deepStrictEqual(feed.flow, ["pause 0", "resume 0"])
    }))

  it.effect("a partition that has room again at once is not paused", () =>
    Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.void)])
      yield* feed.assign(0)
      yield* feed.deliver(0, many(5_000))
      assert.deepStrictEqual(feed.flow, [])
    }))

  it.effect("a partition whose first record hangs is paused when 10,000 offsets lie between", () =>
    Effect.gen(function*() {
      const gate = makeGate()
      const { handle } = makeNoting(({ payload }) => payload.n === 0 ? gate.wait : Effect.void)
      const { feed } = yield* engine([each(handle)])
      yield* feed.assign(0)
      yield* feed.deliver(0, [record(0, "a"), record(9_998, "b")])
      yield* pass(100)
      assert.deepStrictEqual(feed.flow, [])
      const delivering = yield* forked(feed.deliver(0, [record(9_999, "c")]))
      yield* pass(25)
      assert.isTrue(ended(delivering))
      assert.deepStrictEqual(feed.flow, ["pause 0"])
      yield* gate.open
      assert.deepStrictEqual(feed.flow, ["pause 0", "resume 0"])
    }))

  it.effect("a paused partition that is revoked is not resumed", () =>
    Effect.gen(function*() {
      const { handle } = makeNoting(() => Effect.sleep(100))
      const { feed } = yield* engine([each(handle, { concurrency: 1 })])
      yield* feed.assign(0)
      yield* forked(feed.deliver(0, many(1_024)))
      yield* pass(25)
      yield* forked(feed.revoke([0], Duration.seconds(1)))
      yield* pass(200_000)
      assert.deepStrictEqual(feed.flow, ["pause 0"])
    }))

  // The second chunk's room replaces the first one's, for which the fiber that resumes is waiting: nobody opens it.
  it.effect("a paused partition is resumed although a chunk that was on its way arrived meanwhile", () =>
    Effect.gen(function*() {
      const gate = makeGate()
      const { handle } = makeNoting(() => gate.wait)
      const { feed } = yield* engine([each(handle)])
      yield* feed.assign(0)
      yield* forked(feed.deliver(0, many(1_024)))
      yield* pass(25)
      assert.deepStrictEqual(feed.flow, ["pause 0"])
      const delivering = yield* forked(feed.deliver(0, many(10, 1_024)))
      yield* gate.open
      yield* pass(1_000)
      assert.isTrue(ended(delivering))
      assert.strictEqual(feed.committed(0), 1_034n)
      assert.deepStrictEqual(feed.flow.filter((word) => word.startsWith("resume")), ["resume 0"])
    }))
})

describe("commits", () => {
  it.effect("go out a second after the first record is finished, together", () =>
    Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.void)])
      yield* feed.assign(0, 1)
      yield* feed.deliver(0, many(3))
      yield* pass(500)
      yield* feed.deliver(1, many(2))
      yield* pass(499)
      assert.deepStrictEqual(feed.commits, [])
      yield* pass(1)
      assert.deepStrictEqual(feed.commits.map(({ offset, partition }) => [partition, offset]), [[0, 3n], [1, 2n]])
    }))

  it.effect("go out at once when a thousand records are finished", () =>
    Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.void)])
      yield* feed.assign(0)
      yield* feed.deliver(0, many(999))
      yield* settle
      assert.deepStrictEqual(feed.commits, [])
      yield* feed.deliver(0, many(1, 999))
      yield* settle
      assert.strictEqual(feed.committed(0), 1_000n)
    }))

  it.effect("say nothing while nothing has moved", () =>
    Effect.gen(function*() {
      const gate = makeGate()
      const { handle } = makeNoting(({ payload }) => payload.n === 0 ? gate.wait : Effect.void)
      const { feed } = yield* engine([each(handle)])
      yield* feed.assign(0)
      yield* feed.deliver(0, many(10))
      yield* pass(10_000)
      assert.deepStrictEqual(feed.commits, [])
      yield* gate.open
      yield* pass(10_000)
      assert.deepStrictEqual(feed.commits.map(({ offset }) => offset), [10n])
    }))

  it.effect("pass the end of a chunk that ends in offsets without a record", () =>
    Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.void)])
      yield* feed.assign(0)
      yield* feed.deliver(0, many(2), 7n)
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 7n)
      yield* feed.deliver(0, [], 9n)
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 9n)
    }))

  it.effect("that fail are tried again with the position of then", () =>
    Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.void)])
      const unreachable = new BrokerError({
        reason: new Unreachable({ address: "memory", tried: "committing", cause: undefined })
      })
      feed.script.commit = () => Effect.fail(unreachable)
      yield* feed.assign(0)
      yield* feed.deliver(0, many(3))
      yield* pass(1_000)
      yield* feed.deliver(0, many(2, 3))
      yield* pass(1_000)
      feed.script.commit = () => Effect.void
      yield* pass(1_000)
      assert.deepStrictEqual(feed.commits.map(({ offset }) => offset), [5n])
    }))

  it.effect("are one in flight, and a slow one is followed by the latest position", () =>
    Effect.gen(function*() {
      let inFlight = 0
      let most = 0
      const { feed } = yield* engine([each(() => Effect.void)])
      feed.script.commit = () =>
        Effect.suspend(() => {
          most = Math.max(most, ++inFlight)
          return Effect.ensuring(Effect.sleep(3_000), Effect.sync(() => inFlight--))
        })
      yield* feed.assign(0)
      for (let i = 0; i < 10; i++) {
        yield* feed.deliver(0, many(1, i))
        yield* pass(500)
      }
      yield* pass(10_000)
      assert.strictEqual(most, 1)
      assert.strictEqual(feed.committed(0), 10n)
      const offsets = feed.commits.map(({ offset }) => Number(offset))
      assert.deepStrictEqual(offsets, offsets.toSorted((a, b) => a - b))
    }))

  it.effect("of a drain wait for the one in flight, and do not commit the same again", () =>
    Effect.gen(function*() {
      let inFlight = 0
      let most = 0
      const { feed } = yield* engine([each(() => Effect.void)])
      feed.script.commit = () =>
        Effect.suspend(() => {
          most = Math.max(most, ++inFlight)
          return Effect.ensuring(Effect.sleep(3_000), Effect.sync(() => inFlight--))
        })
      yield* feed.assign(0)
      yield* feed.deliver(0, many(1))
      yield* pass(1_000)
      yield* feed.deliver(0, many(1, 1))
      yield* settle
      const revoking = yield* forked(feed.revoke([0], Duration.seconds(10)))
      yield* pass(6_000)
      assert.isTrue(ended(revoking))
      assert.strictEqual(most, 1)
      assert.deepStrictEqual(feed.commits.map(({ offset }) => offset), [1n, 2n])
    }))

  // Only a record that finishes later sends them again; on a quiet partition there is none.
  it.effect("that are fenced for one partition are made again for the others", () =>
    Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.void)])
      let fenced = true
      feed.script.commit = () =>
        Effect.suspend(() => {
          if (!fenced) return Effect.void
          fenced = false
          return Effect.fail(new BrokerError({ reason: new Fenced({ detail: "partition 1 has moved on" }) }))
        })
      yield* feed.assign(0, 1)
      yield* feed.deliver(0, many(2))
      yield* feed.deliver(1, many(2))
      yield* pass(1_000)
      yield* feed.lose(1)
      yield* pass(60_000)
      assert.strictEqual(feed.committed(0), 2n)
    }))
})

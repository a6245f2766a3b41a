/** Batches that wait for more events, and why a batch closed. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import * as Batching from "../../../../src/Batching.ts"
import * as Feed from "../../../support/scriptedFeed.ts"

const { batches, engine, makeGate, pass, record, settle } = Feed

const distinct = (count: number, from = 0) => Array.from({ length: count }, (_, n) => record(from + n, `k${from + n}`))

/** A handler that notes the size of each batch and why it closed. */
const makeNoting = (work: Effect.Effect<unknown> = Effect.void) => {
  const seen: Array<string> = []
  return {
    seen,
    handle: (events: ReadonlyArray<Feed.Item>) =>
      Effect.flatMap(Batching.Closed, (closed) => {
        seen.push(`${events.length} ${closed}`)
        return work
      })
  }
}

describe("a batch", () => {
  it.effect("of a handler that waits for nobody closes by slot, by size and by bytes", () =>
    Effect.gen(function*() {
      const gate = makeGate()
      const { handle, seen } = makeNoting(gate.wait)
      const { feed } = yield* engine([batches(handle, { concurrency: 1, maxSize: 4, maxBytes: 100 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(1))
      yield* settle
      const large = record(9, "large", { value: Buffer.from(JSON.stringify({ n: 9 }).padEnd(90, " ")) })
      yield* feed.deliver(0, [...distinct(6, 1), large, ...distinct(1, 10)])
      yield* gate.open
      assert.deepStrictEqual(seen, ["1 slot", "4 size", "2 bytes", "2 slot"])
    }))

  it.effect("waits for minSize events, and goes as soon as they are there", () =>
    Effect.gen(function*() {
      const { handle, seen } = makeNoting()
      const { feed } = yield* engine([batches(handle, { minSize: 3, maxSize: 5, maxWait: "1 second" })])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(2))
      yield* pass(900)
      assert.deepStrictEqual(seen, [])
      yield* feed.deliver(0, distinct(1, 2))
      yield* settle
      assert.deepStrictEqual(seen, ["3 slot"])
      yield* pass(10_000)
      yield* feed.deliver(0, distinct(7, 3))
      yield* settle
      assert.deepStrictEqual(seen, ["3 slot", "5 size"])
      // What it left waits since then.
      yield* pass(999)
      assert.strictEqual(seen.length, 2)
      yield* pass(1)
      assert.deepStrictEqual(seen.slice(2), ["2 timeout"])
    }))

  it.effect("goes with what is there maxWait after its first event could run, whatever comes meanwhile", () =>
    Effect.gen(function*() {
      const { handle, seen } = makeNoting()
      const { feed } = yield* engine([batches(handle, { minSize: 100, maxWait: "1 second" })])
      yield* feed.assign(0)
      for (let n = 0; n < 4; n++) {
        yield* feed.deliver(0, distinct(1, n))
        yield* pass(300)
      }
      assert.deepStrictEqual(seen, ["4 timeout"])
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 4n)
    }))

  it.effect("counts events that share a key", () =>
    Effect.gen(function*() {
      const { handle, seen } = makeNoting()
      const { feed } = yield* engine([batches(handle, { minSize: 3, maxWait: "1 second" })])
      yield* feed.assign(0)
      yield* feed.deliver(0, [record(0, "a"), record(1, "a"), record(2, "a")])
      yield* settle
      assert.deepStrictEqual(seen, ["3 slot"])
    }))

  it.effect("does not wait during a drain that waits for it", () =>
    Effect.gen(function*() {
      const gate = makeGate()
      const { handle, seen } = makeNoting(gate.wait)
      const { feed } = yield* engine([batches(handle, { concurrency: 2, minSize: 2, maxWait: "1 hour" })])
      yield* feed.assign(0)
      yield* feed.deliver(0, [record(0, "a"), record(1, "b")])
      yield* settle
      yield* feed.deliver(0, [record(2, "a"), record(3, "c"), record(4, "d")])
      yield* settle
      // 2 waits behind 0; 4 has started, so the drain finishes 2, which is too few for a batch.
      const revoking = yield* Effect.forkChild(feed.revoke([0], Duration.minutes(1)))
      yield* settle
      yield* gate.open
      yield* settle
      assert.isDefined(revoking.pollUnsafe())
      assert.deepStrictEqual(seen, ["2 slot", "2 slot", "1 drain"])
      assert.strictEqual(feed.committed(0), 5n)
      // Afterwards batches wait again.
      yield* feed.assign(0)
      yield* feed.deliver(0, [record(5, "a")])
      yield* pass("1 minute")
      assert.strictEqual(seen.length, 3)
    }))

  it.effect("that waits holds no permit", () =>
    Effect.gen(function*() {
      const slots = Semaphore.makeUnsafe(1)
      const { handle } = makeNoting()
      const { feed } = yield* engine([batches(handle, { concurrency: slots, minSize: 2, maxWait: "1 hour" })])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(1))
      yield* settle
      const took = yield* Effect.timeoutOption(slots.withPermit(Effect.succeed("free")), 1)
      assert.strictEqual(took._tag, "Some")
    }))
})

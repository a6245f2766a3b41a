/** Batches: how they form, and what a failing one costs. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import * as Feed from "../../support/scriptedFeed.ts"

const { batches, engine, makeGate, pass, record, records, retries, saving, settle } = Feed

const numbers = (events: ReadonlyArray<Feed.Item>) => events.map(({ payload }) => payload.n)

const upTo = (count: number) => Array.from({ length: count }, (_, n) => n)

/** Records with as many keys as there are of them. */
const distinct = (count: number, from = 0) => upTo(count).map((n) => record(from + n, `k${from + n}`))

/** A handler whose first batch, of the one record 0, waits until the gate opens: meanwhile records pile up. */
const gated = (handle: (events: ReadonlyArray<Feed.Item>) => Effect.Effect<unknown, unknown>) => {
  const gate = makeGate()
  return {
    open: gate.open,
    handle: (events: ReadonlyArray<Feed.Item>) => numbers(events)[0] === 0 ? gate.wait : handle(events)
  }
}

/** Applies batches of which some numbers are poison. */
const makePoisoned = (poison: ReadonlySet<number>) => {
  const attempts: Array<ReadonlyArray<number>> = []
  const applied: Array<number> = []
  return {
    attempts,
    applied,
    handle: (events: ReadonlyArray<Feed.Item>) =>
      Effect.suspend(() => {
        attempts.push(numbers(events))
        if (events.some(({ payload }) => poison.has(payload.n))) return Effect.fail("poison")
        applied.push(...numbers(events))
        return Effect.void
      })
  }
}

const inOrder = (all: ReadonlyArray<number>) => all.toSorted((a, b) => a - b)

describe("batches form", () => {
  it.effect("alone while slots are free, and together what piled up while they were busy", () =>
    Effect.gen(function*() {
      const seen: Array<ReadonlyArray<number>> = []
      const { handle, open } = gated((events) => Effect.sync(() => void seen.push(numbers(events))))
      const { feed } = yield* engine([batches(handle, { concurrency: 1 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(1))
      yield* settle
      for (const n of [1, 2, 3, 4]) yield* feed.deliver(0, distinct(1, n))
      yield* settle
      assert.deepStrictEqual(seen, [])
      yield* open
      assert.deepStrictEqual(seen, [[1, 2, 3, 4]])
    }))

  it.effect("up to maxSize events, in order", () =>
    Effect.gen(function*() {
      const seen: Array<ReadonlyArray<number>> = []
      const { handle, open } = gated((events) => Effect.sync(() => void seen.push(numbers(events))))
      const { feed } = yield* engine([batches(handle, { concurrency: 1, maxSize: 4 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(1))
      yield* settle
      yield* feed.deliver(0, distinct(10, 1))
      yield* open
      assert.deepStrictEqual(seen, [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]])
    }))

  it.effect("up to maxBytes of values, and a larger single event goes alone", () =>
    Effect.gen(function*() {
      const seen: Array<ReadonlyArray<number>> = []
      const { handle, open } = gated((events) => Effect.sync(() => void seen.push(numbers(events))))
      const { feed } = yield* engine([batches(handle, { concurrency: 1, maxBytes: 50 })])
      const sized = (n: number, bytes: number) =>
        record(n, `k${n}`, { value: Buffer.from(JSON.stringify({ n }).padEnd(bytes, " ")) })
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(1))
      yield* settle
      yield* feed.deliver(0, [sized(1, 20), sized(2, 20), sized(3, 20), sized(4, 200), sized(5, 20)])
      yield* open
      assert.deepStrictEqual(seen, [[1, 2], [3], [4], [5]])
    }))

  it.effect("so that two that run at the same time never share a key", () =>
    Effect.gen(function*() {
      const busy = new Set<string>()
      const shared: Array<string> = []
      const sizes: Array<number> = []
      const { feed } = yield* engine([
        batches((events) =>
          Effect.suspend(() => {
            sizes.push(events.length)
            const keys = new Set(events.map(({ key }) => key!))
            for (const key of keys) {
              if (busy.has(key)) shared.push(key)
              busy.add(key)
            }
            return Effect.ensuring(
              Effect.sleep(10 + events.length),
              Effect.sync(() => {
                for (const key of keys) busy.delete(key)
              })
            )
          }), { maxSize: 5 })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, upTo(400).map((n) => record(n, `k${n * 7 % 11}`)))
      yield* pass(10_000)
      assert.deepStrictEqual(shared, [])
      assert.isAbove(Math.max(...sizes), 1)
      assert.strictEqual(feed.committed(0), 400n)
    }))
})

describe("a failing batch", () => {
  it("finds the poison among n within 2·⌈log2 n⌉+1 attempts, and applies the others once, in order per key", () =>
    fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 100 }), fc.nat(), (n, at) =>
        Effect.runPromise(
          Effect.gen(function*() {
            const poison = 1 + at % n
            const { applied, attempts, handle } = makePoisoned(new Set([poison]))
            const { handle: gatedHandle, open } = gated(handle)
            const { feed, letters } = yield* engine([batches(gatedHandle, { concurrency: 1 })])
            yield* feed.assign(0)
            yield* feed.deliver(0, distinct(1))
            yield* settle
            yield* feed.deliver(0, distinct(n, 1))
            yield* open
            yield* pass(1_000)
            assert.strictEqual(attempts[0]!.length, n, "all go together first")
            const found = attempts.findIndex((attempt) => attempt.length === 1 && attempt[0] === poison)
            assert.isAtLeast(found, 0)
            assert.isAtMost(attempts.length, 2 * Math.ceil(Math.log2(n)) + 1)
            assert.deepStrictEqual(applied, upTo(n + 1).filter((i) => i !== 0 && i !== poison))
            assert.strictEqual(letters.length, 1)
            assert.strictEqual(feed.committed(0), BigInt(n + 1))
          }).pipe(Effect.scoped, Effect.provide(TestClock.layer()))
        )),
      { numRuns: 40, examples: [[100, 0], [100, 99], [100, 49], [1, 0], [2, 1]] }
    ))

  it.effect("of several poison records gives up on each of them, and on no other", () =>
    Effect.gen(function*() {
      const poison = new Set([3, 17, 18, 40])
      const { applied, handle } = makePoisoned(poison)
      const { handle: gatedHandle, open } = gated(handle)
      const { feed, letters } = yield* engine([batches(gatedHandle, { concurrency: 1 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(1))
      yield* settle
      yield* feed.deliver(0, distinct(40, 1))
      yield* open
      assert.deepStrictEqual(inOrder(applied), upTo(41).filter((n) => n !== 0 && !poison.has(n)))
      assert.deepStrictEqual(letters.map(({ record }) => record.headers.dl_original_offset), ["3", "17", "18", "40"])
    }))

  it.effect("keeps back the later events of a key whose record is tried again, and applies the others", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      let failures = 1
      const { handle, open } = gated((events) =>
        Effect.suspend(() => {
          if (failures > 0 && numbers(events).includes(2)) {
            if (events.length === 1) failures--
            return Effect.fail("not yet")
          }
          log.push(numbers(events).join(" "))
          return Effect.void
        })
      )
      const { feed } = yield* engine([
        batches(handle, { concurrency: 1, policy: { ...FailurePolicy.save(), retry: retries(3) } })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("first"))
      yield* settle
      yield* feed.deliver(0, ["b", "a", "b", "a", "c", "a"].map((key, i) => record(i + 1, key)))
      yield* open
      assert.deepStrictEqual(inOrder(log.join(" ").split(" ").map(Number)), [1, 3, 5])
      yield* pass(1_000)
      // What has failed before goes alone.
      assert.deepStrictEqual(log.slice(-2), ["2", "4 6"])
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 7n)
    }))

  it.effect("counts no attempt for the innocent", () =>
    Effect.gen(function*() {
      const attempts = new Map<number, number>()
      const { handle, open } = gated((events) =>
        Effect.suspend(() => {
          if (numbers(events).includes(3)) return Effect.fail("poison")
          for (const { attempt, payload } of events) attempts.set(payload.n, attempt)
          return Effect.void
        })
      )
      const { feed } = yield* engine([batches(handle, { concurrency: 1 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(1))
      yield* settle
      yield* feed.deliver(0, distinct(4, 1))
      yield* open
      assert.deepStrictEqual(Array.from(attempts), [[1, 1], [2, 1], [4, 1]])
    }))

  it.effect("because it takes too long is interrupted and halved, too", () =>
    Effect.gen(function*() {
      const applied: Array<number> = []
      let finalized = 0
      const { handle, open } = gated((events) =>
        numbers(events).includes(2)
          ? Effect.ensuring(Effect.never, Effect.sync(() => finalized++))
          : Effect.sync(() => void applied.push(...numbers(events)))
      )
      const { feed, letters } = yield* engine([
        batches(handle, { concurrency: 1, policy: { ...saving, timeout: "1 second" } })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(1))
      yield* settle
      yield* feed.deliver(0, distinct(4, 1))
      yield* open
      for (let i = 0; i < 3; i++) yield* pass(1_000)
      assert.deepStrictEqual(inOrder(applied), [1, 3, 4])
      assert.strictEqual(finalized, 3)
      assert.deepStrictEqual(letters.map(({ record }) => record.headers.dl_error_tag), ["HandlerTimeout"])
    }))

  it.effect("because a record of it does not decode goes on with the others at the first attempt", () =>
    Effect.gen(function*() {
      const { applied, attempts, handle } = makePoisoned(new Set())
      const { handle: gatedHandle, open } = gated(handle)
      const { feed, letters } = yield* engine([batches(gatedHandle, { concurrency: 1 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(1))
      yield* settle
      yield* feed.deliver(0, [record(1, "a"), record(2, "b", { value: Buffer.from("{") }), record(3, "b")])
      yield* open
      assert.deepStrictEqual([attempts, applied], [[[1, 3]], [1, 3]])
      assert.deepStrictEqual(letters.map(({ record }) => record.headers.dl_error_tag), ["Undecodable"])
    }))

  it.effect("that throws is halved like one that fails", () =>
    Effect.gen(function*() {
      const applied: Array<number> = []
      const { handle, open } = gated((events) => {
        if (numbers(events).includes(2)) throw new Error("oops")
        return Effect.sync(() => void applied.push(...numbers(events)))
      })
      const { feed, letters } = yield* engine([batches(handle, { concurrency: 1 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(1))
      yield* settle
      yield* feed.deliver(0, distinct(3, 1))
      yield* open
      assert.deepStrictEqual(applied, [1, 3])
      assert.strictEqual(letters.length, 1)
    }))

  it.effect("has a Scope of its own per attempt", () =>
    Effect.gen(function*() {
      const closed: Array<string> = []
      const { feed } = yield* engine([
        batches((events) =>
          Effect.andThen(
            Effect.addFinalizer((exit) =>
              Effect.sync(() => closed.push(`${numbers(events).join(" ")} ${Exit.isSuccess(exit)}`))
            ),
            numbers(events).includes(1) ? Effect.fail("poison") : Effect.void
          )
        )
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, distinct(2))
      yield* settle
      assert.includeMembers(closed, ["1 false"])
    }))
})

/** Batches: how they form, and what a failing one costs. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import * as Batching from "../../../../src/Batching.ts"
import * as FailurePolicy from "../../../../src/FailurePolicy.ts"
import * as Feed from "../../../support/scriptedFeed.ts"

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
            assert.deepStrictEqual(inOrder(applied), upTo(n + 1).filter((i) => i !== 0 && i !== poison))
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

  it.effect("of which a part is left over has that finished within a drain, so that nothing above comes again", () =>
    Effect.gen(function*() {
      const gate = makeGate()
      const { feed, letters } = yield* engine([batches((events) => events.length > 1 ? gate.wait : Effect.void)])
      yield* feed.assign(0)
      // The second of "b" must wait for the first, which runs in the batch.
      yield* feed.deliver(0, [
        record(0, "a"),
        record(1, "b"),
        record(2, "b", { value: Buffer.from("{") }),
        record(3, "c")
      ])
      yield* settle
      const revoked = yield* Effect.forkChild(feed.revoke([0], Duration.seconds(10)))
      yield* settle
      yield* gate.open
      yield* Fiber.join(revoked)
      assert.deepStrictEqual([letters.length, feed.committed(0)], [1, 4n])
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

/** Applies batches whose outcome a test decides; notes each attempt with its time and the events' attempts. */
const makeScripted = (decide: (batch: ReadonlyArray<number>) => Effect.Effect<unknown, unknown>) => {
  const runs: Array<string> = []
  const applied: Array<number> = []
  const { handle, open } = gated((events) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      runs.push(`${now / 1_000}: ${numbers(events).join(" ")} #${events[0]!.attempt}`)
      return Effect.tap(decide(numbers(events)), () => Effect.sync(() => void applied.push(...numbers(events))))
    })
  )
  return { runs, applied, handle, open }
}

/** Runs `count` records behind a first one that the gate holds, so that they go together. */
const together = Effect.fnUntraced(function*(
  script: { readonly handle: ReturnType<typeof gated>["handle"]; readonly open: Effect.Effect<void> },
  events: ReadonlyArray<ReturnType<typeof record>>,
  options: Parameters<typeof batches>[1] = {},
  logLevel?: "Warn"
) {
  const running = yield* engine([batches(script.handle, { concurrency: 1, ...options })], logLevel && { logLevel })
  yield* running.feed.assign(0)
  yield* running.feed.deliver(0, distinct(1))
  yield* settle
  yield* running.feed.deliver(0, events)
  yield* script.open
  return running
})

const original = (letters: ReadonlyArray<Feed.Letter>) =>
  letters.map(({ record }) => Number(record.headers.dl_original_offset))

describe("a common cause", () => {
  it.effect("makes both halves wait and run again together, no more than half of them at a time", () =>
    Effect.gen(function*() {
      let down = true
      const script = makeScripted(() => Effect.suspend(() => down ? Effect.fail("down") : Effect.void))
      const { feed, letters } = yield* together(script, distinct(8, 1), {
        policy: { ...saving, retry: retries(9) }
      })
      assert.deepStrictEqual(script.runs, ["0: 1 2 3 4 5 6 7 8 #1", "0: 1 2 3 4 #1", "0: 5 6 7 8 #1"])
      script.runs.length = 0
      yield* pass(1_000)
      assert.deepStrictEqual(script.runs, [
        "1: 1 2 3 4 #2",
        "1: 1 2 #2",
        "1: 3 4 #2",
        "1: 5 6 7 8 #2",
        "1: 5 6 #2",
        "1: 7 8 #2"
      ])
      script.runs.length = 0
      down = false
      yield* pass(1_000)
      assert.deepStrictEqual(script.runs, ["2: 1 2 #3", "2: 3 4 #3", "2: 5 6 #3", "2: 7 8 #3"])
      assert.deepStrictEqual(letters, [])
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 9n)
    }))

  it.effect("says so in one line per batch", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) =>
        void lines.push(String(Array.isArray(message) ? message[0] : message))
      )
      const script = makeScripted(() => Effect.fail("down"))
      const policy = { ...saving, retry: retries(9) }
      yield* Effect.provide(together(script, distinct(8, 1), { policy }, "Warn"), Logger.layer([logger]))
      assert.deepStrictEqual(lines, [
        "A batch failed, and each half of it: its events wait and are tried again together"
      ])
    }))

  it.effect("of two poison records in different halves is told apart round by round; no innocent is given up on", () =>
    Effect.gen(function*() {
      const poison = new Set([2, 7])
      const script = makeScripted((batch) => batch.some((n) => poison.has(n)) ? Effect.fail("poison") : Effect.void)
      const { feed, letters } = yield* together(script, distinct(8, 1), {
        policy: { ...saving, retry: retries(2) }
      })
      assert.deepStrictEqual(script.applied, [])
      yield* pass(1_000)
      assert.deepStrictEqual(inOrder(script.applied), [1, 3, 4, 5, 6, 8])
      yield* pass(1_000)
      yield* pass(1_000)
      assert.deepStrictEqual(inOrder(script.applied), [1, 3, 4, 5, 6, 8])
      assert.deepStrictEqual(inOrder(original(letters)), [2, 7])
      assert.deepStrictEqual(letters.map(({ record }) => record.headers.dl_attempts), ["3", "3"])
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 9n)
    }))

  it.effect("at the end of the schedule is split on at once, and each event is given up on for itself", () =>
    Effect.gen(function*() {
      const script = makeScripted((batch) =>
        batch.includes(4) && batch.length === 1 ? Effect.void : Effect.fail("down")
      )
      const { letters } = yield* together(script, distinct(8, 1), { policy: { ...saving, retry: retries(1) } })
      assert.strictEqual(script.runs.length, 3)
      yield* pass(1_000)
      assert.deepStrictEqual(script.applied, [4])
      assert.deepStrictEqual(inOrder(original(letters)), [1, 2, 3, 5, 6, 7, 8])
      for (const n of [1, 2, 3, 5, 6, 7, 8]) assert.include(script.runs, `1: ${n} #2`, "each has failed alone")
    }))

  it.effect("that is permanent is not waited for", () =>
    Effect.gen(function*() {
      for (const failure of [Effect.fail("permanent"), Effect.die(new Error("a bug"))]) {
        const script = makeScripted(() => failure)
        const { letters } = yield* together(script, distinct(5, 1), {
          policy: { ...saving, retry: retries(9), permanent: (error) => error === "permanent" }
        })
        yield* settle
        assert.deepStrictEqual(inOrder(original(letters)), [1, 2, 3, 4, 5])
      }
    }))

  it.effect("under `block` never gives up, and goes through when it ends", () =>
    Effect.gen(function*() {
      let down = true
      const script = makeScripted(() => Effect.suspend(() => down ? Effect.fail("down") : Effect.void))
      const { feed, letters } = yield* together(script, distinct(20, 1), {
        policy: { ...FailurePolicy.block(), retry: retries(2) }
      })
      for (let i = 0; i < 30; i++) yield* pass(1_000)
      down = false
      yield* pass(1_000)
      yield* pass(1_000)
      assert.deepStrictEqual([inOrder(script.applied), letters], [upTo(21).slice(1), []])
      assert.strictEqual(feed.committed(0), 21n)
    }))

  it.effect("keeps the order of a key that both halves hold", () =>
    Effect.gen(function*() {
      let down = true
      const script = makeScripted(() => Effect.suspend(() => down ? Effect.fail("down") : Effect.void))
      const keys = ["a", "b", "a", "c", "d", "a", "b", "e"]
      const { feed } = yield* together(script, keys.map((key, i) => record(i + 1, key)), {
        policy: { ...saving, retry: retries(9) }
      })
      yield* pass(1_000)
      down = false
      for (let i = 0; i < 5; i++) yield* pass(1_000)
      for (const key of new Set(keys)) {
        const own = script.applied.filter((n) => keys[n - 1] === key)
        assert.deepStrictEqual(own, inOrder(own), key)
      }
      assert.deepStrictEqual(inOrder(script.applied), upTo(9).slice(1))
      assert.strictEqual(feed.committed(0), 9n)
    }))

  it.effect("keeps the order of a key of which a part is left over, when what follows of it runs next", () =>
    Effect.gen(function*() {
      let down = true
      const { applied, handle: apply } = makePoisoned(new Set([1]))
      const { handle, open } = gated((events) => Effect.suspend(() => down ? Effect.fail("down") : apply(events)))
      const { feed } = yield* engine([batches(handle, { concurrency: 1, policy: { ...saving, retry: retries(9) } })])
      yield* feed.assign(0)
      yield* feed.deliver(0, [record(0, "first")])
      yield* settle
      // Halved between the fifth and the sixth of "long".
      const keys = ["poison", ...upTo(5).map(() => "long"), "a", "b", "long", "long", "long", "c", "d", "e", "f", "g"]
      yield* feed.deliver(0, keys.map((key, i) => record(i + 1, key)))
      yield* open
      down = false
      for (let second = 0; second < 60; second++) yield* pass(1_000)
      const long = applied.filter((n) => keys[n - 1] === "long")
      assert.deepStrictEqual(long, [2, 3, 4, 5, 6, 9, 10, 11])
    }))
})

describe("an outage", () => {
  it.effect("of one half makes what shares its keys wait with it, and is no attempt", () =>
    Effect.gen(function*() {
      let first = true
      const script = makeScripted((batch) =>
        Effect.suspend(() => {
          if (batch.length === 4) return Effect.fail("no")
          if (batch.includes(1) && first) {
            first = false
            return Effect.fail("outage")
          }
          return Effect.void
        })
      )
      const { letters } = yield* together(script, ["a", "b", "a", "a"].map((key, i) => record(i + 1, key)), {
        maxSize: 4,
        isOutage: (error) => error === "outage"
      })
      assert.deepStrictEqual(script.runs, ["0: 1 3 4 2 #1", "0: 1 3 #1", "0: 2 #1"])
      yield* pass(1_000)
      assert.deepStrictEqual([script.applied, letters], [[2, 1, 3, 4], []])
    }))
})

describe("a batch that names the culprits", () => {
  const item = (n: number) => ({ topic: "orders", partition: 0, offset: BigInt(n) }) as Feed.Item

  /** Names the events with these numbers, as long as they are in the batch. */
  const naming = (culprits: ReadonlyArray<number>) => (batch: ReadonlyArray<number>) => {
    const named = culprits.filter((n) => batch.includes(n))
    return named.length === 0 ? Effect.void : Effect.fail(Batching.failed(named.map(item), `poison ${named.join(" ")}`))
  }

  it.effect("has applied the others, and only the culprits run again, alone", () =>
    Effect.gen(function*() {
      const script = makeScripted(naming([2, 5]))
      const { feed, letters } = yield* together(script, distinct(6, 1), {
        policy: { ...saving, retry: retries(1) }
      })
      yield* pass(1_000)
      assert.deepStrictEqual(script.runs, ["0: 1 2 3 4 5 6 #1", "1: 2 #2", "1: 5 #2"])
      assert.deepStrictEqual(original(letters), [2, 5])
      assert.deepStrictEqual(letters.map(({ record }) => record.headers.dl_error_message), ["poison 2", "poison 5"])
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 7n)
    }))

  it.effect("is judged by the error within", () =>
    Effect.gen(function*() {
      const seen: Array<unknown> = []
      const script = makeScripted(naming([2, 3]))
      const { letters } = yield* together(script, distinct(3, 1), {
        policy: {
          ...saving,
          retry: retries(5),
          permanent: (error) => {
            seen.push(error)
            return error === "poison 2 3"
          }
        }
      })
      assert.deepStrictEqual(seen, ["poison 2 3", "poison 2 3"])
      assert.deepStrictEqual(original(letters), [2, 3])
    }))

  it.effect("and rolls back runs the others again without them and without what follows of their keys", () =>
    Effect.gen(function*() {
      const script = makeScripted(naming([3]))
      const keys = ["a", "b", "a", "a", "c", "a"]
      const { feed, letters } = yield* together(script, keys.map((key, i) => record(i + 1, key)), {
        rollsBack: true,
        policy: { ...saving, retry: retries(1) }
      })
      // The lane of "a" comes first; 4 and 6 wait behind 3.
      assert.deepStrictEqual(script.runs, ["0: 1 3 4 6 2 5 #1", "0: 1 2 5 #1"])
      yield* pass(999)
      assert.strictEqual(script.runs.length, 2)
      yield* pass(1)
      assert.deepStrictEqual(script.runs.slice(2), ["1: 3 #2", "1: 4 6 #1"])
      assert.deepStrictEqual(original(letters), [3])
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 7n)
    }))

  it.effect("but names nobody, or somebody who is not of it, is a failure of the whole", () =>
    Effect.gen(function*() {
      for (const named of [[], [2, 77]]) {
        for (const rollsBack of [true, false]) {
          const script = makeScripted((batch) =>
            batch.includes(2) ? Effect.fail(Batching.failed(named.map(item), "poison")) : Effect.void
          )
          const { letters } = yield* together(script, distinct(4, 1), { rollsBack })
          assert.deepStrictEqual(inOrder(script.applied), [1, 3, 4])
          assert.deepStrictEqual(original(letters), [2])
          assert.strictEqual(letters[0]!.record.headers.dl_error_message, "poison")
        }
      }
    }))

  it.effect("of one key lets the second of them wait behind the first", () =>
    Effect.gen(function*() {
      const script = makeScripted(naming([1, 2]))
      const { letters } = yield* together(script, [record(1, "a"), record(2, "a"), record(3, "a")], {
        policy: { ...saving, retry: retries(1) }
      })
      assert.deepStrictEqual(script.applied, [])
      for (let i = 0; i < 5; i++) yield* pass(1_000)
      assert.deepStrictEqual(original(letters), [1, 2])
    }))
})

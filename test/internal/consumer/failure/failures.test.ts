/** What becomes of a record whose handler fails, and that it never harms another. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import type * as Scope from "effect/Scope"
import * as SqlError from "effect/sql/SqlError"
import { BrokerError, type HeaderValue, Unreachable } from "../../../../src/Broker.ts"
import * as Event from "../../../../src/Event.ts"
import * as FailurePolicy from "../../../../src/FailurePolicy.ts"
import * as Topic from "../../../../src/Topic.ts"
import * as Feed from "../../../support/scriptedFeed.ts"

const { each, engine, pass, record, records, retries, saving, settle } = Feed

const header = (letter: Feed.Letter, name: string) => letter.record.headers[name] as HeaderValue | undefined

/** A handler that notes the numbers that it has applied, and does something else to one of them. */
const makeApplying = () => {
  const applied: Array<number> = []
  const attempts: Array<number> = []
  const applying =
    (odd: number, instead: (event: Feed.Item) => Effect.Effect<unknown, unknown>) => (event: Feed.Item) =>
      Effect.suspend(() => {
        if (event.payload.n !== odd) return Effect.sync(() => void applied.push(event.payload.n))
        attempts.push(event.attempt)
        return instead(event)
      })
  return { applied, attempts, applying }
}

describe("a failing handler", () => {
  it.effect("is tried again as its policy says, and then its event is a dead letter with the reason", () =>
    Effect.gen(function*() {
      const { applied, applying, attempts } = makeApplying()
      const { feed, letters } = yield* engine([
        each(applying(0, () => Effect.fail(Object.assign(new Error("no money"), { _tag: "CardRefused" }))), {
          name: "bill",
          policy: { ...saving, retry: retries(2) }
        })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a"))
      yield* pass(1_000)
      assert.deepStrictEqual([attempts, applied, letters], [[1, 2], [], []])
      yield* pass(1_000)
      assert.deepStrictEqual([attempts, applied], [[1, 2, 3], [1]])
      assert.strictEqual(letters.length, 1)
      const letter = letters[0]!
      assert.strictEqual(letter.topic, "orders.group.dead-letter")
      assert.deepStrictEqual(letter.record.key, Buffer.from("a"))
      assert.strictEqual(header(letter, "dl_handler"), "bill")
      assert.strictEqual(header(letter, "dl_error_tag"), "CardRefused")
      assert.strictEqual(header(letter, "dl_error_message"), "no money")
      assert.strictEqual(header(letter, "dl_attempts"), "3")
      assert.strictEqual(header(letter, "dl_first_failure"), "1970-01-01T00:00:00.000Z")
      assert.strictEqual(header(letter, "dl_last_failure"), "1970-01-01T00:00:02.000Z")
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 2n)
    }))

  it.effect("that throws has failed for that event alone", () =>
    Effect.gen(function*() {
      const { applied, applying } = makeApplying()
      const { feed, letters } = yield* engine([
        each(
          applying(1, () => {
            throw new TypeError("oops")
          }),
          { concurrency: 1 }
        )
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "c"))
      yield* pass(1_000)
      assert.deepStrictEqual(applied, [0, 2])
      assert.deepStrictEqual(letters.map((letter) => header(letter, "dl_error_tag")), ["TypeError"])
      assert.strictEqual(feed.committed(0), 3n)
    }))

  it.effect("that throws anything, wherever, is given up on at once: a bug throws again", () =>
    Effect.gen(function*() {
      const thrown: ReadonlyArray<unknown> = [new TypeError("oops"), "a string", undefined, null, { odd: true }]
      const ways: ReadonlyArray<(value: unknown) => Effect.Effect<unknown, unknown, Scope.Scope>> = [
        (value) => {
          throw value
        },
        (value) =>
          Effect.sync(() => {
            throw value
          }),
        (value) => Effect.addFinalizer(() => Effect.die(value)),
        (value) => Effect.ensuring(Effect.void, Effect.die(value)),
        // Effect lets the defect win over the error.
        (value) => Effect.ensuring(Effect.fail("no"), Effect.die(value))
      ]
      let attempts = 0
      const { feed, letters } = yield* engine([
        each(({ payload }) => {
          attempts++
          return ways[payload.n % ways.length]!(thrown[Math.floor(payload.n / ways.length)])
        }, { policy: { ...saving, retry: retries(9) } })
      ])
      const all = ways.length * thrown.length
      yield* feed.assign(0)
      yield* feed.deliver(0, Array.from({ length: all }, (_, n) => record(n, `k${n % 3}`)))
      yield* settle
      assert.strictEqual(attempts, all)
      assert.strictEqual(letters.length, all)
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), BigInt(all))
    }))

  it.effect("that throws is tried for ever under `block`, at the schedule's delays", () =>
    Effect.gen(function*() {
      const { applied, applying, attempts } = makeApplying()
      const { feed, letters } = yield* engine([
        each(applying(0, () => Effect.die(new Error("a bug"))), {
          policy: { ...FailurePolicy.block(), retry: retries(2) }
        })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a"))
      for (let i = 0; i < 5; i++) yield* pass(1_000)
      assert.deepStrictEqual([attempts, applied, letters], [[1, 2, 3, 4, 5, 6], [], []])
    }))

  it.effect("whose ROLLBACK failed with its connection is tried again, although the SQL client makes that a defect", () =>
    Effect.gen(function*() {
      const { applying, attempts } = makeApplying()
      const lost = new SqlError.SqlError({
        reason: new SqlError.ConnectionError({ cause: undefined, message: "gone", operation: "rollback" })
      })
      const { feed, letters } = yield* engine([
        each(applying(0, () => Effect.ensuring(Effect.fail("no"), Effect.die(lost))), {
          policy: { ...saving, retry: retries(1) }
        })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* settle
      assert.deepStrictEqual([attempts, letters], [[1], []])
      yield* pass(1_000)
      assert.deepStrictEqual([attempts, letters.length], [[1, 2], 1])
    }))

  it.effect("under `block` is tried for ever at the last delay, and its key waits, but no other", () =>
    Effect.gen(function*() {
      const { applied, applying, attempts } = makeApplying()
      const { feed, letters } = yield* engine([
        each(applying(0, () => Effect.fail("no")), { policy: { ...FailurePolicy.block(), retry: retries(2) } })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a", "b"))
      for (let i = 0; i < 20; i++) yield* pass(1_000)
      assert.deepStrictEqual(attempts, Array.from({ length: 21 }, (_, i) => i + 1))
      assert.deepStrictEqual(applied, [2])
      assert.deepStrictEqual(letters, [])
      assert.isUndefined(feed.committed(0))
    }))

  it.effect("under `discard` loses its event after the retries, and writes nothing", () =>
    Effect.gen(function*() {
      const { applied, applying, attempts } = makeApplying()
      const { feed, letters } = yield* engine([
        each(applying(0, () => Effect.fail("no")), { policy: { ...FailurePolicy.discard(), retry: retries(1) } })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a"))
      yield* pass(1_000)
      yield* pass(1_000)
      assert.deepStrictEqual([attempts, applied, letters], [[1, 2], [1], []])
      assert.strictEqual(feed.committed(0), 2n)
    }))

  it.effect("gives up at once on what its policy calls permanent, and applies what it calls ignored", () =>
    Effect.gen(function*() {
      const attempts: Array<number> = []
      const { feed, letters } = yield* engine([
        each(({ payload }) => {
          attempts.push(payload.n)
          return Effect.fail(["permanent", "ignored", "other"][payload.n])
        }, {
          policy: {
            ...FailurePolicy.save(),
            retry: retries(1),
            permanent: (error) => error === "permanent",
            ignore: (error) => error === "ignored"
          }
        })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "c"))
      yield* settle
      assert.deepStrictEqual(attempts, [0, 1, 2])
      assert.deepStrictEqual(letters.map((letter) => header(letter, "ce_id")), ["id-0"])
      yield* pass(1_000)
      assert.deepStrictEqual(attempts, [0, 1, 2, 2])
      assert.deepStrictEqual(letters.map((letter) => header(letter, "ce_id")), ["id-0", "id-2"])
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 3n)
    }))

  it.effect("that takes too long is interrupted, its finalizers run, and the attempt counts", () =>
    Effect.gen(function*() {
      const { applied, applying, attempts } = makeApplying()
      const log: Array<string> = []
      const { feed, letters } = yield* engine([
        each(applying(0, () => Effect.ensuring(Effect.never, Effect.sync(() => log.push("finalized")))), {
          concurrency: 1,
          policy: { ...FailurePolicy.save(), timeout: "3 seconds", retry: retries(1) }
        })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b"))
      yield* pass(2_999)
      assert.deepStrictEqual([log, applied], [[], []])
      yield* pass(1)
      assert.deepStrictEqual([log, applied, attempts], [["finalized"], [1], [1]])
      yield* pass(1_000)
      yield* pass(3_000)
      assert.deepStrictEqual(attempts, [1, 2])
      assert.deepStrictEqual(letters.map((letter) => header(letter, "dl_error_tag")), ["HandlerTimeout"])
      assert.include(header(letters[0]!, "dl_error_message"), "did not end within 3000 ms")
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 2n)
    }))

  it.effect("bounds each attempt by itself, however many run at once", () =>
    Effect.gen(function*() {
      const timedOut: Array<number> = []
      const { feed } = yield* engine([
        each(
          ({ payload }) =>
            Effect.sleep(payload.n === 9 ? 5_000 : 1_500).pipe(
              Effect.onInterrupt(() => Effect.sync(() => void timedOut.push(payload.n)))
            ),
          { concurrency: 2, policy: { ...saving, timeout: "2 seconds" } }
        )
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, Array.from({ length: 20 }, (_, n) => record(n, `k${n}`)))
      yield* pass(60_000)
      assert.deepStrictEqual(timedOut, [9])
      assert.strictEqual(feed.committed(0), 20n)
    }))

  it.effect("that interrupts its own effect has failed for that event alone", () =>
    Effect.gen(function*() {
      const { applied, applying } = makeApplying()
      const { feed, letters } = yield* engine([each(applying(0, () => Effect.interrupt), { concurrency: 1 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "a"))
      yield* pass(1_000)
      assert.deepStrictEqual(applied, [1, 2])
      assert.strictEqual(letters.length, 1)
      assert.strictEqual(feed.committed(0), 3n)
    }))

  // The fiber stays interrupted, and the worker goes on with it: whatever it takes next fails without having run.
  it.effect("that interrupts its own fiber has failed for that event alone", () =>
    Effect.gen(function*() {
      const { applied, applying } = makeApplying()
      const { feed, letters } = yield* engine([
        each(
          applying(0, () =>
            Effect.withFiber((fiber) => {
              fiber.interruptUnsafe()
              return Effect.never
            })),
          { concurrency: 1 }
        )
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "a", "c"))
      for (let i = 0; i < 10; i++) yield* pass(1_000)
      assert.deepStrictEqual(letters.map((letter) => header(letter, "ce_id")), ["id-0"])
      assert.sameMembers(applied, [1, 2, 3])
      assert.strictEqual(feed.committed(0), 4n)
    }))

  it.effect("has a Scope of its own per attempt, closed with the attempt's result", () =>
    Effect.gen(function*() {
      const closed: Array<string> = []
      const { feed } = yield* engine([
        each((event) =>
          Effect.addFinalizer((exit) =>
            Effect.sync(() =>
              closed.push(`${event.payload.n}/${event.attempt} ${Exit.isSuccess(exit) ? "success" : "failure"}`)
            )
          ).pipe(
            Effect.andThen(event.payload.n === 0 && event.attempt === 1 ? Effect.fail("no") : Effect.void)
          ), { concurrency: 1, policy: { ...saving, retry: retries(1) } })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b"))
      yield* settle
      assert.deepStrictEqual(closed, ["0/1 failure", "1/1 success"])
      yield* pass(1_000)
      assert.deepStrictEqual(closed.slice(2), ["0/2 success"])
    }))

  it.effect("that takes too long closes its Scope completely before its record runs again", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { feed } = yield* engine([
        each(({ attempt }) =>
          Effect.sync(() => log.push(`start ${attempt}`)).pipe(
            Effect.andThen(Effect.addFinalizer(() =>
              Effect.andThen(Effect.sleep(5_000), Effect.sync(() => log.push(`closed ${attempt}`)))
            )),
            Effect.andThen(attempt === 1 ? Effect.never : Effect.void)
          ), { policy: { ...saving, timeout: "1 second", retry: retries(1, "1 milli") } })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      for (let i = 0; i < 20; i++) yield* pass(1_000)
      assert.deepStrictEqual(log, ["start 1", "closed 1", "start 2", "closed 2"])
    }))

  it.effect("knows the event that it was called for", () =>
    Effect.gen(function*() {
      const seen: Array<boolean> = []
      const { feed } = yield* engine([
        each((event) => Effect.map(Event.Current, (current) => void seen.push(current === event)))
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b"))
      yield* settle
      assert.deepStrictEqual(seen, [true, true])
    }))
})

describe("a record that cannot be read", () => {
  it.effect("becomes a dead letter without an attempt of the handler, and the next one runs", () =>
    Effect.gen(function*() {
      const seen: Array<number> = []
      const { feed, letters } = yield* engine([
        each(({ payload }) => Effect.sync(() => void seen.push(payload.n)), {
          policy: { ...saving, retry: retries(5) }
        })
      ])
      const values = ["no json", "{\"n\":\"text\"}", "{}", "[]", "null", ""].map((text) => Buffer.from(text))
      yield* feed.assign(0)
      yield* feed.deliver(0, [
        ...[...values, Buffer.from([0xff, 0xfe]), null].map((value, n) => record(n, "a", { value })),
        record(8, "a")
      ])
      yield* pass(1_000)
      assert.deepStrictEqual(seen, [8])
      assert.deepStrictEqual(letters.map((letter) => header(letter, "dl_original_offset")), [
        ..."01234567"
      ])
      for (const letter of letters) {
        assert.strictEqual(header(letter, "dl_error_tag"), "Undecodable")
        assert.notInclude(header(letter, "dl_error_message"), "[object Object]")
      }
      assert.include(header(letters[1]!, "dl_error_message"), "at [\"n\"]")
      assert.deepStrictEqual(letters[0]!.record.value, values[0])
      assert.strictEqual(feed.committed(0), 9n)
    }))

  it.effect("blocks its key under `block`, but no other", () =>
    Effect.gen(function*() {
      const { applied, applying } = makeApplying()
      const { feed } = yield* engine([each(applying(-1, () => Effect.void), { policy: FailurePolicy.block() })])
      yield* feed.assign(0)
      yield* feed.deliver(0, [record(0, "a", { value: Buffer.from("{") }), record(1, "a"), record(2, "b")])
      yield* pass(600_000)
      assert.deepStrictEqual(applied, [2])
      assert.isUndefined(feed.committed(0))
    }))

  it.effect("because its schema throws is a failure of that record", () =>
    Effect.gen(function*() {
      const Throwing = Schema.Struct({
        n: Schema.Number.pipe(Schema.decodeTo(Schema.Number, {
          decode: SchemaGetter.transform((n: number) => {
            if (n === 0) throw new Error("a bug in the schema")
            return n
          }),
          encode: SchemaGetter.passthrough()
        }))
      })
      const { applied, applying } = makeApplying()
      const topic = Topic.make("orders", { schema: Throwing }) as unknown as Topic.Any
      const { feed, letters } = yield* engine([each(applying(-1, () => Effect.void), { topic, concurrency: 1 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a", "b"))
      yield* pass(60_000)
      assert.deepStrictEqual(applied, [2, 1])
      assert.strictEqual(letters.length, 1)
      assert.strictEqual(feed.committed(0), 3n)
    }))

  // Anybody may write such headers. See envelope.test.ts: reading them throws, and the worker dies with the lane.
  it.effect("because its headers are nonsense does not stop its partition", () =>
    Effect.gen(function*() {
      const { applied, applying } = makeApplying()
      const { feed } = yield* engine([each(applying(-1, () => Effect.void))])
      yield* feed.assign(0)
      yield* feed.deliver(0, [
        record(0, "a", {
          value: Buffer.from("no json"),
          headers: { ce_id: undefined, dl_original_topic: "x", dl_original_offset: "x" }
        }),
        record(1, "a")
      ])
      yield* pass(60_000)
      assert.deepStrictEqual(applied, [1])
      assert.strictEqual(feed.committed(0), 2n)
    }))
})

describe("a policy that throws", () => {
  // The throw ends the worker's fiber after it has taken the task: its lane stays Busy for ever.
  it.effect("is a failure of that event, and neither stops its key nor loses it", () =>
    Effect.gen(function*() {
      const { applied, applying } = makeApplying()
      const { feed, letters } = yield* engine([
        each(applying(0, () => Effect.fail("no")), {
          policy: {
            ...saving,
            permanent: () => {
              throw new Error("a bug in the policy")
            }
          }
        })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a"))
      yield* pass(60_000)
      assert.deepStrictEqual(applied, [1])
      assert.strictEqual(letters.length, 1)
      assert.strictEqual(feed.committed(0), 2n)
    }))
})

describe("a dead letter that cannot be written", () => {
  const unreachable = new BrokerError({
    reason: new Unreachable({ address: "memory", tried: "sending", cause: undefined })
  })

  it.effect("holds its key and its position, is written later, and the handler does not run again", () =>
    Effect.gen(function*() {
      const { applied, applying, attempts } = makeApplying()
      let broken = true
      let tries = 0
      const { feed, letters } = yield* engine([each(applying(0, () => Effect.fail("no")))], {
        writeDeadLetter: () =>
          Effect.suspend(() => {
            tries++
            return broken ? Effect.fail(unreachable) : Effect.void
          })
      })
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a", "b"))
      yield* pass(4_999)
      assert.deepStrictEqual([tries, applied, letters], [1, [2], []])
      yield* pass(1)
      yield* pass(5_000)
      assert.deepStrictEqual([tries, applied, letters], [3, [2], []])
      assert.isUndefined(feed.committed(0))
      broken = false
      yield* pass(5_000)
      yield* pass(1_000)
      assert.deepStrictEqual([attempts, applied], [[1], [2, 1]])
      assert.strictEqual(letters.length, 1)
      assert.strictEqual(feed.committed(0), 3n)
    }))

  it.effect("because a timeout interrupted its handler is written by the next worker", () =>
    Effect.gen(function*() {
      const { applying, attempts } = makeApplying()
      const { feed, letters } = yield* engine([
        each(applying(0, () => Effect.never), { policy: { ...saving, timeout: "1 second" } })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* pass(1_000)
      assert.strictEqual(letters.length, 1)
      assert.deepStrictEqual(attempts, [1])
    }))
})

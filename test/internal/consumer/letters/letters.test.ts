/** Dead letters that come back, without workers: which are taken, when, and what is filed anew. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import { BrokerError, type ConsumerRecord, type ProducerRecord, UnknownTopic } from "../../../../src/Broker.ts"
import type { Reader } from "../../../../src/internal/consumer/handler.ts"
import * as Letters from "../../../../src/internal/consumer/letters/letters.ts"
import { maxWaiting } from "../../../../src/internal/consumer/letters/shelf.ts"
import { Assignment, type Task } from "../../../../src/internal/consumer/order/assignment.ts"
import { Ready } from "../../../../src/internal/consumer/order/ready.ts"
import { Meter } from "../../../../src/internal/metrics.ts"
import * as Wire from "../../../../src/internal/wire/deadLetter.ts"
import { pass, settle } from "../../../support/scriptedFeed.ts"

const group = "billing"
const topic = Wire.topicName("orders", group)
const minute = 60_000
const day = 1_440 * minute

const unwritable = new BrokerError({ reason: new UnknownTopic({ topic }) })

const idOf = (task: Task) => task.delivery.letter!.head.id

const setup = Effect.gen(function*() {
  const written: Array<ProducerRecord> = []
  const script: { write: Effect.Effect<void, BrokerError> } = { write: Effect.void }
  let finished = 0
  const letters = yield* Letters.make({
    group,
    sources: ["orders"],
    write: (to, record, partition) =>
      Effect.andThen(
        script.write,
        Effect.sync(() => {
          assert.deepStrictEqual([to, partition], [topic, 3])
          written.push(record)
        })
      )
  })
  const ready = new Ready<Task>()
  const reader: Reader = {
    topic: "orders",
    handler: "bill",
    open: false,
    timeoutMillis: 0,
    meter: new Meter({ group: "g", topic: "orders", handler: "bill" }, Context.empty()),
    running: () => [],
    draining: () => {},
    ordering: "key",
    takes: 1,
    ready,
    kick: () => {},
    interrupt: () => []
  }
  letters.serve([reader], () => void finished++)
  const assignment = new Assignment({ topic, partition: 3, epoch: 1 }, 0, { records: 0, bytes: 0 })
  let end = 0n

  /** A record as the broker would deliver it next. */
  const next = (record: ProducerRecord): ConsumerRecord => ({
    key: record.key === null ? null : Buffer.from(record.key),
    value: record.value,
    headers: record.headers,
    offset: end++,
    timestamp: 0
  })
  const deliver = (...records: ReadonlyArray<ProducerRecord>) => letters.deliver(assignment, records.map(next))

  /** Takes what is ready, as a worker does. */
  const take = (): Array<Task> => {
    const tasks: Array<Task> = []
    for (let task = ready.takeOne(); task !== undefined; task = ready.takeOne()) {
      assignment.start(task)
      tasks.push(task)
    }
    return tasks
  }
  /** Applies what is ready, as a worker does whose handler succeeds. */
  const apply = () =>
    take().map((task) => {
      letters.applied(task)
      ready.settle(task.lane)
      return idOf(task)
    })
  return {
    letters,
    assignment,
    script,
    written,
    deliver,
    take,
    apply,
    finished: () => finished,
    end: () => end,
    /** Kinds of what was written, with the letter's id. */
    kinds: () => written.map(({ headers }) => `${String(headers.dl_marker ?? "letter")} ${String(headers.dl_id)}`)
  }
}).pipe(Effect.provideService(References.MinimumLogLevel, "None"))

const letter = (id: string, due?: number, fields: { readonly [name: string]: string } = {}): ProducerRecord => ({
  key: "key",
  value: Buffer.from("{}"),
  headers: {
    ce_id: id,
    dl_id: id,
    dl_handler: "bill",
    dl_group: group,
    ...(due === undefined ? {} : { dl_due: String(due) }),
    ...fields
  }
})
const marker = (kind: string, id: string): ProducerRecord => ({
  ...letter(id),
  headers: { ...letter(id).headers, dl_marker: kind }
})
const many = (count: number, due: (n: number) => number, prefix = "n") =>
  Array.from({ length: count }, (_, n) => letter(`${prefix}-${n}`, due(n)))

describe("letters", () => {
  it.effect("that nobody wants are finished at once: saved ones, markers, those of others, anything else", () =>
    Effect.gen(function*() {
      const { assignment, deliver, end, take, written } = yield* setup
      deliver(
        letter("saved"),
        marker("drop", "x"),
        marker("done", "x"),
        letter("other", minute, { dl_group: "shipping" }),
        letter("gone", minute, { dl_handler: "no such handler" }),
        { key: null, value: null, headers: {} }
      )
      assert.strictEqual(assignment.buffered, 0)
      assert.strictEqual(assignment.watermark.position, end())
      yield* pass("1 hour")
      assert.deepStrictEqual(take(), [])
      assert.deepStrictEqual(written, [])
    }))

  it.effect("of other topics are none of theirs", () =>
    Effect.gen(function*() {
      const { letters } = yield* setup
      assert.isFalse(letters.deliver(new Assignment({ topic: "orders", partition: 0, epoch: 1 }, 1), []))
    }))

  it.effect("come when they are due, whatever lies in front of them, and are done once that is written", () =>
    Effect.gen(function*() {
      const { apply, assignment, deliver, kinds } = yield* setup
      deliver(letter("long", day), letter("short", minute), letter("now", 0), letter("middle", 5 * minute))
      assert.deepStrictEqual(apply(), ["now"])
      yield* pass(minute - 1)
      assert.deepStrictEqual(apply(), [])
      yield* pass(1)
      assert.deepStrictEqual(apply(), ["short"])
      yield* pass(4 * minute)
      assert.deepStrictEqual(apply(), ["middle"])
      yield* settle
      assert.deepStrictEqual(kinds(), ["done now", "done short", "done middle"])
      assert.strictEqual(assignment.buffered, 1)
      assert.strictEqual(assignment.watermark.position, 0n)
      yield* pass(day)
      assert.deepStrictEqual(apply(), ["long"])
    }))

  it.effect("that are replayed come at once, and no more when they would have been due", () =>
    Effect.gen(function*() {
      const { apply, deliver } = yield* setup
      deliver(letter("a", minute))
      deliver(marker("replay", "a"))
      assert.deepStrictEqual(apply(), ["a"])
      yield* pass("1 hour")
      assert.deepStrictEqual(apply(), [])
    }))

  it.effect("that are dropped or done before they started never start", () =>
    Effect.gen(function*() {
      const { apply, assignment, deliver, end } = yield* setup
      deliver(letter("a", minute), letter("b", 0), letter("c", minute))
      deliver(marker("drop", "a"), marker("done", "b"), marker("drop", "c"))
      assert.deepStrictEqual(apply(), [])
      assert.strictEqual(assignment.watermark.position, end())
      yield* pass("1 hour")
      assert.deepStrictEqual(apply(), [])
    }))

  it.effect("that are replayed while they run are not taken twice, but the next round is", () =>
    Effect.gen(function*() {
      const { apply, deliver, take } = yield* setup
      deliver(letter("a", 0))
      const [running] = take()
      deliver(marker("replay", "a"), letter("a", 0))
      assert.deepStrictEqual(take(), [])
      deliver(letter("a", 0, { dl_round: "1" }))
      running!.delivery.assignment.finish(running!)
      assert.deepStrictEqual(apply(), ["a"])
    }))

  it.effect("whose end cannot be written hold the watermark, until it can", () =>
    Effect.gen(function*() {
      const { apply, assignment, deliver, end, script } = yield* setup
      script.write = Effect.fail(unwritable)
      deliver(letter("a", 0))
      apply()
      yield* pass("1 minute")
      assert.strictEqual(assignment.watermark.position, 0n)
      let drained = false
      assignment.drain(() => void (drained = true))
      assert.isFalse(drained)
      script.write = Effect.void
      yield* pass("5 seconds")
      assert.isTrue(drained)
      assert.strictEqual(assignment.watermark.position, end())
    }))
})

describe("letters are filed anew", () => {
  it.effect("before their assignment ends, if one above them was applied or runs", () =>
    Effect.gen(function*() {
      const { apply, assignment, deliver, kinds, letters, take } = yield* setup
      deliver(letter("a", day), letter("b", 0), letter("c", day), letter("d", 0), letter("e", day))
      take()
      yield* letters.settle([assignment])
      assert.deepStrictEqual(kinds(), ["letter a", "letter c"])
      assert.strictEqual(assignment.watermark.position, 1n)
      assert.deepStrictEqual(apply(), [])
    }))

  it.effect("and are not, if nothing above them would come again", () =>
    Effect.gen(function*() {
      const { apply, assignment, deliver, kinds, letters } = yield* setup
      deliver(letter("a", 0), letter("b", day), letter("saved"), marker("drop", "x"))
      apply()
      yield* settle
      yield* letters.settle([assignment])
      assert.deepStrictEqual(kinds(), ["done a"])
    }))

  it.effect("when a hundred above them were applied", () =>
    Effect.gen(function*() {
      const { apply, assignment, deliver, end, kinds } = yield* setup
      deliver(letter("a", day), ...many(99, () => 0))
      apply()
      yield* pass("1 minute")
      assert.notInclude(kinds(), "letter a")
      deliver(letter("b", 0))
      apply()
      yield* pass("1 second")
      assert.strictEqual(kinds().filter((kind) => kind === "letter a").length, 1)
      assert.strictEqual(assignment.watermark.position, end())
    }))

  it.effect("when too many wait: those due last, at most once in five seconds, so that one behind them all comes in time", () =>
    Effect.gen(function*() {
      const { apply, assignment, deliver, written } = yield* setup
      deliver(...many(maxWaiting, (n) => day + n))
      yield* pass("1 minute")
      assert.strictEqual(written.length, 0)
      deliver(letter("soon", 20 * minute))
      yield* pass(1)
      const first = written.splice(0)
      assert.strictEqual(first.length, maxWaiting / 2 + 1)
      // 128 stay: the one that is due soon, and the first 127 of the others.
      const numbers = first.map(({ headers }) => Number(String(headers.dl_id).slice(2)))
      assert.strictEqual(Math.min(...numbers), maxWaiting / 2 - 1)
      assert.strictEqual(assignment.buffered, maxWaiting / 2)
      // They come again behind.
      deliver(...first)
      assert.strictEqual(assignment.buffered, maxWaiting + 1)
      yield* pass("4 seconds")
      assert.strictEqual(written.length, 0)
      yield* pass("2 seconds")
      assert.strictEqual(written.length, maxWaiting / 2 + 1)
      yield* pass(20 * minute)
      assert.deepStrictEqual(apply(), ["soon"])
    }))

  it.effect("and dropped meanwhile: then the drop is written once more, behind the copy", () =>
    Effect.gen(function*() {
      const { apply, assignment, deliver, kinds, letters, take, written } = yield* setup
      deliver(letter("a", day), letter("b", 0))
      take()
      yield* letters.settle([assignment])
      const [copy] = written.splice(0)
      deliver(marker("drop", "a"), copy!)
      yield* pass(2 * day)
      assert.deepStrictEqual(apply(), [])
      assert.deepStrictEqual(kinds(), ["drop a"])
    }))

  it.effect("or stay where they are if they cannot be written, and come when they are due", () =>
    Effect.gen(function*() {
      const { apply, assignment, deliver, letters, script, take } = yield* setup
      deliver(letter("a", minute), letter("b", 0))
      take()
      script.write = Effect.fail(unwritable)
      yield* letters.settle([assignment])
      assert.strictEqual(assignment.buffered, 2)
      yield* pass(minute)
      assert.deepStrictEqual(apply(), ["a"])
    }))

  it.effect("and do not hold up the end of their assignment for long", () =>
    Effect.gen(function*() {
      const { assignment, deliver, letters, script, take } = yield* setup
      deliver(letter("a", day), letter("b", 0))
      take()
      script.write = Effect.never
      const settling = yield* Effect.forkChild(letters.settle([assignment]))
      yield* pass("5 seconds")
      yield* Fiber.join(settling)
      assert.strictEqual(assignment.buffered, 2)
    }))
})

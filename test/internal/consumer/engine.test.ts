/** The engine under random keys, durations, failures, rebalances and limits; and how slots and lanes share work. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Semaphore from "effect/Semaphore"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import * as Batching from "../../../src/Batching.ts"
import type { ConsumerRecord } from "../../../src/Broker.ts"
import * as Feed from "../../support/scriptedFeed.ts"

const { batches, each, engine, makeGate, pass, record, records, retries, saving, settle } = Feed

// --- the property ---

/** What happens to one record: its key, how long an attempt takes, how many fail before one succeeds. */
interface Fate {
  readonly partition: number
  readonly gap: number
  readonly key: string | null
  readonly millis: number
  readonly failures: number
  /** Whether it decodes. */
  readonly readable: boolean
}

type Step =
  | { readonly _tag: "Deliver"; readonly partition: number; readonly count: number }
  | { readonly _tag: "Pass"; readonly millis: number }
  | { readonly _tag: "Revoke"; readonly partition: number; readonly within: number }
  | { readonly _tag: "Lose"; readonly partition: number }
  | { readonly _tag: "Resize"; readonly which: number; readonly permits: number }
  | { readonly _tag: "Down"; readonly down: boolean }

/** How handlers take events, and how they fail. */
type Mode = "each" | "batches" | "batches that name culprits" | "batches that name culprits and roll back"

const partitions = [0, 1]
const maxAttempts = 3

const fate: fc.Arbitrary<Fate> = fc.record({
  partition: fc.constantFrom(...partitions),
  gap: fc.nat(3),
  key: fc.constantFrom("a", "b", "c", null),
  millis: fc.oneof(fc.constant(0), fc.nat(200)),
  failures: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(4) }),
  readable: fc.oneof({ weight: 9, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) })
})

const partition = fc.constantFrom(...partitions)

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ _tag: fc.constant("Deliver" as const), partition, count: fc.nat(8) }) },
  { weight: 5, arbitrary: fc.record({ _tag: fc.constant("Pass" as const), millis: fc.nat(300) }) },
  { weight: 2, arbitrary: fc.record({ _tag: fc.constant("Revoke" as const), partition, within: fc.nat(300) }) },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("Lose" as const), partition }) },
  {
    weight: 1,
    arbitrary: fc.record({
      _tag: fc.constant("Resize" as const),
      which: fc.nat(2),
      permits: fc.integer({ min: 1, max: 5 })
    })
  },
  { weight: 1, arbitrary: fc.record({ _tag: fc.constant("Down" as const), down: fc.boolean() }) }
)

interface Plan {
  readonly fates: ReadonlyArray<Fate>
  readonly steps: ReadonlyArray<Step>
  /** Of the handler, its group and the process. */
  readonly permits: ReadonlyArray<number>
  readonly minSize: number
}

const plan: fc.Arbitrary<Plan> = fc.record({
  fates: fc.array(fate, { minLength: 1, maxLength: 40 }),
  steps: fc.array(step, { minLength: 1, maxLength: 25 }),
  permits: fc.tuple(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 })),
  minSize: fc.oneof({ weight: 2, arbitrary: fc.constant(1) }, { weight: 1, arbitrary: fc.integer({ min: 2, max: 6 }) })
})

/** Nothing fails, nothing is lost, and every drain has time for all that runs. */
const calm = plan.map((plan): Plan => ({
  ...plan,
  fates: plan.fates.map((fate) => ({ ...fate, failures: 0 })),
  steps: plan.steps.flatMap((step): ReadonlyArray<Step> =>
    step._tag === "Lose" || step._tag === "Down" ? [] : step._tag === "Revoke" ? [{ ...step, within: 10_000 }] : [step]
  )
}))

/** A partition as the broker keeps it, and what the engine was told and said about it. */
interface Log {
  readonly records: ReadonlyArray<ConsumerRecord>
  readonly fates: ReadonlyMap<bigint, Fate>
  /** Index of the next record to deliver. */
  next: number
  epoch: number
  /** Offsets delivered in this epoch, and those finished in it. */
  delivered: Set<bigint>
  finished: Set<bigint>
}

const logOf = (partition: number, fates: ReadonlyArray<Fate>): Log => {
  let offset = 0
  const own = fates.filter((fate) => fate.partition === partition).map((fate) => {
    const at = offset + fate.gap
    offset = at + 1
    const value = fate.readable ? undefined : { value: Buffer.from("{") }
    return [record(at, fate.key === null ? null : `${fate.key}${partition}`, value), fate] as const
  })
  return {
    records: own.map(([record]) => record),
    fates: new Map(own.map(([record, fate]) => [record.offset, fate])),
    next: 0,
    epoch: 0,
    delivered: new Set(),
    finished: new Set()
  }
}

const run = Effect.fnUntraced(function*({ fates, minSize, permits, steps }: Plan, mode: Mode) {
  const logs = partitions.map((partition) => logOf(partition, fates))
  const limits = permits.map((permits) => Semaphore.makeUnsafe(permits))
  const allowed = Array.from(permits)
  let limit = Math.min(...allowed)
  /** Whether every attempt fails, whoever takes part in it. */
  let down = false
  let running = 0
  /** Keys of the running handlers. */
  const busy = new Set<string>()
  const runningIn = partitions.map(() => 0)
  const attempts = new Map<string, number>()
  /** Who has failed alone, or was named; and with others while nobody was named. */
  const failedAlone = new Set<string>()
  const failedWithOthers = new Set<string>()
  const applied = new Map<string, number>()
  const wrong: Array<string> = []
  const check = (ok: boolean, what: string) => {
    if (!ok) wrong.push(what)
  }

  const idOf = ({ offset, partition }: Feed.Item) => `${partition}/${offset}`
  const fateOf = ({ offset, partition }: Feed.Item) => logs[partition]!.fates.get(offset)!

  /** Whether an event of a batch may run now: its key is free, and what was before it is finished, or in front of it. */
  const checkTurn = (event: Feed.Item, batch: ReadonlyArray<Feed.Item>) => {
    const { key, offset, partition } = event
    const log = logs[partition]!
    const id = idOf(event)
    check(!log.finished.has(offset), `${id}: runs after it was finished`)
    if (key === null) return
    check(!busy.has(key), `${id}: ${key} runs already`)
    const inFront = batch.slice(0, batch.indexOf(event))
    for (const { key: other, offset: before } of log.records) {
      if (before >= offset || other === null || Buffer.from(other).toString() !== key) continue
      check(
        !log.delivered.has(before) || log.finished.has(before) ||
          inFront.some((event) => event.partition === partition && event.offset === before),
        `${id}: runs before ${before} of its key`
      )
    }
  }

  /** Who is at fault if an attempt fails; alone, or named, it is an attempt of that record. */
  const culpritsOf = (events: ReadonlyArray<Feed.Item>): ReadonlyArray<Feed.Item> => {
    const names = mode.startsWith("batches that name") && !down
    const culprits = down ? events : events.filter((event) => (attempts.get(idOf(event)) ?? 0) < fateOf(event).failures)
    for (const event of culprits) {
      const id = idOf(event)
      if (names || events.length === 1) {
        attempts.set(id, (attempts.get(id) ?? 0) + 1)
        failedAlone.add(id)
      }
    }
    if (culprits.length > 0 && events.length > 1 && !names) {
      for (const event of events) failedWithOthers.add(idOf(event))
    }
    return culprits
  }

  const handle = (events: ReadonlyArray<Feed.Item>) =>
    Effect.suspend(() => {
      check(running < limit, `${events.map(idOf).join()}: more than ${limit} run`)
      for (const event of events) checkTurn(event, events)
      const epochs = events.map(({ partition }) => logs[partition]!.epoch)
      const keys = new Set(events.flatMap(({ key }) => key === null ? [] : [key]))
      running++
      for (const { partition } of events) runningIn[partition]!++
      for (const key of keys) busy.add(key)
      const culprits = culpritsOf(events)
      const unnamed = down || !mode.startsWith("batches that name")
      return Effect.sleep(Math.max(...events.map((event) => fateOf(event).millis))).pipe(
        Effect.andThen(Effect.suspend((): Effect.Effect<void, unknown> => {
          if (culprits.length > 0 && unnamed) return Effect.fail("failed")
          const failure = culprits.length === 0 ? Effect.void : Effect.fail(Batching.failed(culprits, "failed"))
          if (culprits.length > 0 && mode.endsWith("roll back")) return failure
          events.forEach((event, i) => {
            if (culprits.includes(event)) return
            const id = idOf(event)
            const log = logs[event.partition]!
            check(log.epoch === epochs[i], `${id}: succeeds after its assignment has ended`)
            applied.set(id, (applied.get(id) ?? 0) + 1)
            log.finished.add(event.offset)
          })
          return failure
        })),
        Effect.ensuring(Effect.sync(() => {
          running--
          for (const { partition } of events) runningIn[partition]!--
          for (const key of keys) busy.delete(key)
        }))
      )
    })

  const options = {
    concurrency: limits[0]!,
    limits: limits.slice(1),
    policy: { ...saving, retry: retries(maxAttempts - 1, "50 millis") }
  }
  const { feed, letters, stop } = yield* engine(
    [
      mode === "each"
        ? each((event) => handle([event]), options)
        : batches(handle, {
          ...options,
          maxSize: 8,
          minSize,
          maxWait: "70 millis",
          rollsBack: mode.endsWith("roll back")
        })
    ],
    {
      writeDeadLetter: ({ record }) =>
        Effect.sync(() => {
          const at = { partition: Number(record.headers.dl_original_partition) }
          logs[at.partition]!.finished.add(BigInt(record.headers.dl_original_offset as string))
        })
    }
  )

  feed.script.commit = (positions) =>
    Effect.sync(() => {
      for (const { offset, partition } of positions) {
        const log = logs[partition]!
        for (const { offset: below } of log.records) {
          check(
            below >= offset || !log.delivered.has(below) || log.finished.has(below),
            `${partition}: ${offset} was committed, but ${below} is not finished`
          )
        }
        check(offset >= (feed.committed(partition) ?? 0n), `${partition}: the commit moved back to ${offset}`)
      }
    })

  const assign = (partition: number) =>
    Effect.suspend(() => {
      const log = logs[partition]!
      const from = feed.committed(partition) ?? 0n
      log.epoch++
      log.next = log.records.findIndex(({ offset }) => offset >= from)
      if (log.next < 0) log.next = log.records.length
      log.delivered = new Set()
      // What was finished below the position stays so; above it, it is delivered again.
      log.finished = new Set()
      return feed.assign(partition)
    })

  const deliver = (partition: number, count: number) =>
    Effect.suspend(() => {
      const log = logs[partition]!
      const chunk = log.records.slice(log.next, log.next + count)
      log.next += chunk.length
      for (const { offset } of chunk) log.delivered.add(offset)
      return chunk.length === 0 ? Effect.void : feed.deliver(partition, chunk)
    })

  /** Takes a partition away. As soon as the signal has returned somebody else may have it. */
  const end = (partition: number, signal: Effect.Effect<void>) =>
    Effect.andThen(
      signal,
      Effect.sync(() => {
        check(runningIn[partition] === 0, `${partition}: a handler outlived its assignment`)
        logs[partition]!.epoch++
      })
    )

  /** Waits for a signal that needs time to pass. */
  const timed = Effect.fnUntraced(function*(signal: Effect.Effect<void>, millis: number) {
    const fiber = yield* Effect.forkChild(signal)
    yield* pass(millis)
    yield* pass(0)
    check(fiber.pollUnsafe() !== undefined, `a signal did not return within ${millis} ms`)
    yield* Fiber.join(fiber)
  })

  for (const partition of partitions) yield* assign(partition)
  for (const step of steps) {
    switch (step._tag) {
      case "Deliver":
        yield* deliver(step.partition, step.count)
        break
      case "Pass":
        yield* pass(step.millis)
        break
      case "Revoke":
        yield* timed(end(step.partition, feed.revoke([step.partition], Duration.millis(step.within))), step.within)
        yield* assign(step.partition)
        break
      case "Lose": {
        const before = feed.commits.length
        yield* end(step.partition, feed.lose(step.partition))
        check(feed.commits.length === before, "a loss committed something")
        yield* assign(step.partition)
        break
      }
      case "Resize":
        // Workers that hold a slot keep it while they find work.
        allowed[step.which] = step.permits
        limit = Math.max(Math.min(...allowed), limit)
        yield* limits[step.which]!.resize(step.permits)
        for (let i = 0; i < 100; i++) {
          if (running === 0) break
          yield* pass(500)
        }
        limit = Math.min(...allowed)
        break
      case "Down":
        down = step.down
        break
    }
    yield* settle
  }

  down = false
  for (const partition of partitions) yield* deliver(partition, 1_000)
  for (let i = 0; i < 100; i++) yield* pass(1_000)
  for (const partition of partitions) {
    const log = logs[partition]!
    for (const { offset } of log.records) {
      const id = `${partition}/${offset}`
      const { failures, readable } = log.fates.get(offset)!
      const letter = letters.some(({ record }) =>
        record.headers.dl_original_partition === String(partition) && record.headers.dl_original_offset === `${offset}`
      )
      check(applied.has(id) || letter, `${id} was lost`)
      check(!letter || !readable || failedAlone.has(id), `${id} is a dead letter, but it was others that failed`)
      // An attempt together with others counts, too, if the cause was common.
      const enough = !readable || failures >= maxAttempts || failures > 0 && failedWithOthers.has(id) ||
        steps.some((step) => step._tag === "Down" && step.down)
      check(!letter || enough, `${id} is a dead letter for nothing`)
    }
    const last = log.records.at(-1)
    const position = last === undefined ? undefined : last.offset + 1n
    check(feed.committed(partition) === position, `${partition}: ${feed.committed(partition)} is committed at the end`)
  }
  // Only what a loss takes, or a drain cuts off, or what backs off meanwhile, is applied again.
  const troubled = fates.some(({ failures }) => failures > 0) ||
    steps.some((step) => step._tag === "Down" || step._tag === "Revoke" && step.within < 10_000)
  if (!steps.some(({ _tag }) => _tag === "Lose" || _tag === "Revoke" && troubled)) {
    for (const [id, times] of applied) check(times === 1, `${id} was applied ${times} times`)
    check(applied.size + letters.length === fates.length, "something was finished twice, or not at all")
  }
  yield* stop
  assert.deepStrictEqual(wrong, [])
})

describe("the engine", () => {
  const holds = (mode: Mode, plans: fc.Arbitrary<Plan> = plan) =>
    fc.assert(
      fc.asyncProperty(plans, (plan) =>
        Effect.runPromise(run(plan, mode).pipe(Effect.scoped, Effect.provide(TestClock.layer())))),
      { numRuns: 60, interruptAfterTimeLimit: 8_000 }
    )

  it("keeps order, exclusion, limits and watermark, and loses nothing, whatever happens", () => holds("each"), 30_000)

  for (const mode of ["batches", "batches that name culprits", "batches that name culprits and roll back"] as const) {
    it(`keeps them with ${mode}, too`, () => holds(mode), 30_000)
  }

  for (const mode of ["each", "batches"] as const) {
    it(`drains without repeating anything, if nothing backs off: ${mode}`, () => holds(mode, calm), 30_000)
  }
})

// --- lanes and slots ---

/** Notes who runs. */
const makeNotes = () => {
  const notes = { log: [] as Array<string>, running: 0, most: 0 }
  return {
    notes,
    noting: (name: string) => <E>(effect: Effect.Effect<unknown, E>) =>
      Effect.sync(() => {
        notes.log.push(`start ${name}`)
        notes.most = Math.max(notes.most, ++notes.running)
      }).pipe(
        Effect.andThen(effect),
        Effect.tap(() => Effect.sync(() => notes.log.push(`done ${name}`))),
        Effect.ensuring(Effect.sync(() => notes.running--))
      )
  }
}

const name = (event: Feed.Item) => `${event.key ?? ""}${event.payload.n}`

describe("lanes and slots of the engine", () => {
  it.effect("records of one key run one after another, those of others and without a key at the same time", () =>
    Effect.gen(function*() {
      const { notes, noting } = makeNotes()
      const { feed } = yield* engine([each((event) => noting(name(event))(Effect.sleep(100)))])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a", "b", null, null))
      yield* settle
      assert.deepStrictEqual(notes.log, ["start a0", "start b2", "start 3", "start 4"])
      yield* pass(99)
      assert.notInclude(notes.log, "start a1")
      yield* pass(1)
      assert.include(notes.log, "start a1")
      yield* pass(100)
      assert.deepStrictEqual(notes.log.slice(-1), ["done a1"])
    }))

  it.effect("under partition ordering one runs after another, partitions side by side", () =>
    Effect.gen(function*() {
      const { notes, noting } = makeNotes()
      const { feed } = yield* engine([
        each((event) => noting(`${event.partition}/${event.offset}`)(Effect.sleep(100)), { ordering: "partition" })
      ])
      yield* feed.assign(0, 1)
      yield* feed.deliver(0, records("a", "b", null))
      yield* feed.deliver(1, records("a"))
      yield* settle
      assert.deepStrictEqual(notes.log, ["start 0/0", "start 1/0"])
      yield* pass(300)
      assert.deepStrictEqual(notes.log.filter((line) => line.startsWith("start 0")), [
        "start 0/0",
        "start 0/1",
        "start 0/2"
      ])
      assert.strictEqual(notes.most, 2)
    }))

  it.effect("unordered, all run as slots come free", () =>
    Effect.gen(function*() {
      const { notes, noting } = makeNotes()
      const { feed } = yield* engine([
        each((event) => noting(name(event))(Effect.sleep(100)), { ordering: "unordered", concurrency: 3 })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a", "a", "a"))
      yield* settle
      assert.strictEqual(notes.running, 3)
      yield* pass(100)
      assert.strictEqual(notes.running, 1)
    }))

  it.effect("no more run than there are slots, and every slot is used", () =>
    Effect.gen(function*() {
      const { notes, noting } = makeNotes()
      const { feed } = yield* engine([each((event) => noting(name(event))(Effect.sleep(100)), { concurrency: 3 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records(...Array.from({ length: 30 }, (_, i) => `k${i}`)))
      yield* settle
      assert.strictEqual(notes.running, 3)
      yield* pass(1_000)
      assert.strictEqual(notes.most, 3)
      assert.strictEqual(notes.log.filter((line) => line.startsWith("done")).length, 30)
    }))

  it.effect("two handlers that share a Semaphore share its slots, and neither starves", () =>
    Effect.gen(function*() {
      const { notes, noting } = makeNotes()
      const concurrency = Semaphore.makeUnsafe(2)
      const handler = (handler: string) =>
        each((event) => noting(`${handler} ${name(event)}`)(Effect.sleep(10)), { name: handler, concurrency })
      const { feed } = yield* engine([handler("one"), handler("two")])
      yield* feed.assign(0)
      yield* feed.deliver(0, records(...Array.from({ length: 1_000 }, (_, i) => `k${i}`)))
      const done = (handler: string) => notes.log.filter((line) => line.startsWith(`done ${handler}`)).length
      yield* pass(5_000)
      assert.strictEqual(notes.most, 2)
      assert.isAbove(done("one"), 200)
      assert.isAbove(done("two"), 200)
      yield* pass(10_000)
      assert.deepStrictEqual([done("one"), done("two")], [1_000, 1_000])
      assert.strictEqual(feed.committed(0), 1_000n)
    }))

  it.effect("a Semaphore that is resized while handlers run takes effect at once", () =>
    Effect.gen(function*() {
      const { notes, noting } = makeNotes()
      const concurrency = Semaphore.makeUnsafe(1)
      const { feed } = yield* engine([each((event) => noting(name(event))(Effect.sleep(100)), { concurrency })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records(...Array.from({ length: 200 }, (_, i) => `k${i}`)))
      yield* pass(300)
      assert.strictEqual(notes.most, 1)
      yield* concurrency.resize(5)
      yield* settle
      assert.strictEqual(notes.running, 5)
      yield* concurrency.resize(2)
      // Workers go on with the slots that they hold until their quantum is through.
      yield* pass(10_000)
      assert.strictEqual(notes.most, 5)
      assert.strictEqual(feed.committed(0), 200n)
    }))

  it.effect("a failed record keeps its key waiting until it is through, and then order goes on", () =>
    Effect.gen(function*() {
      const { notes, noting } = makeNotes()
      const { feed } = yield* engine([
        each(
          (event) =>
            noting(`${name(event)} attempt ${event.attempt}`)(
              event.payload.n === 0 && event.attempt < 3 ? Effect.fail("not yet") : Effect.void
            ),
          { policy: { ...saving, retry: retries(5) } }
        )
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "a", "b"))
      yield* settle
      assert.deepStrictEqual(notes.log, ["start a0 attempt 1", "start b2 attempt 1", "done b2 attempt 1"])
      yield* pass(1_000)
      yield* pass(1_000)
      assert.deepStrictEqual(notes.log.slice(3), [
        "start a0 attempt 2",
        "start a0 attempt 3",
        "done a0 attempt 3",
        "start a1 attempt 1",
        "done a1 attempt 1"
      ])
    }))

  it.effect("a record that backs off gives up its slot", () =>
    Effect.gen(function*() {
      const { notes, noting } = makeNotes()
      const { feed } = yield* engine([
        each(
          (event) => noting(name(event))(event.key === "a" && event.attempt === 1 ? Effect.fail("no") : Effect.void),
          { concurrency: 1, policy: { ...saving, retry: retries(3) } }
        )
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "c"))
      yield* settle
      assert.deepStrictEqual(notes.log, ["start a0", "start b1", "done b1", "start c2", "done c2"])
      yield* pass(1_000)
      assert.deepStrictEqual(notes.log.slice(5), ["start a0", "done a0"])
    }))

  it.effect("a hot key does not starve the others", () =>
    Effect.gen(function*() {
      const { notes, noting } = makeNotes()
      const { feed } = yield* engine([each((event) => noting(name(event))(Effect.sleep(10)), { concurrency: 1 })])
      yield* feed.assign(0)
      yield* feed.deliver(0, [...Array.from({ length: 500 }, (_, n) => record(n, "hot")), record(500, "cold")])
      yield* pass(1_000)
      assert.include(notes.log, "done cold500")
    }))

  it.effect("each handler of a topic gets every record, and the slowest holds the position", () =>
    Effect.gen(function*() {
      const gate = makeGate()
      const seen: Array<number> = []
      const { feed } = yield* engine([
        each((event) => Effect.sync(() => void seen.push(event.payload.n)), { name: "fast" }),
        each(() => gate.wait, { name: "slow", concurrency: 1 })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b"))
      yield* pass(1_000)
      assert.deepStrictEqual(seen, [0, 1])
      assert.isUndefined(feed.committed(0))
      yield* gate.open
      yield* pass(1_000)
      assert.strictEqual(feed.committed(0), 2n)
    }))

  it.effect("while nothing arrives the engine is idle: no fiber holds a slot, and the clock has nobody waiting", () =>
    Effect.gen(function*() {
      const slots = Semaphore.makeUnsafe(2)
      const { feed } = yield* engine([each(() => Effect.void, { concurrency: slots })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "c"))
      yield* pass(1_000)
      const took = yield* Effect.timeoutOption(slots.withPermits(2)(Clock.currentTimeMillis), 1)
      assert.strictEqual(took._tag, "Some")
    }))
})

/** Bounded memory: what pauses a partition, and that it is always resumed. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import type { PauseReason } from "../../../../src/ConsumerGroup.ts"
import { Assignment, type Task } from "../../../../src/internal/consumer/order/assignment.ts"
import type { Ordering } from "../../../../src/internal/consumer/order/lanes.ts"
import { Ready } from "../../../../src/internal/consumer/order/ready.ts"
import * as Room from "../../../../src/internal/consumer/order/room.ts"
import { pass, record, settle } from "../../../support/scriptedFeed.ts"

/** A room with partitions, of one handler; tasks are finished by hand. */
const makeHouse = Effect.fnUntraced(function*(partitions: number, takes = 1) {
  const flow: Array<string> = []
  const context = yield* Effect.context<never>()
  const room = Room.make({
    takes: [takes],
    partitions: () => assignments.filter(({ mayCommit }) => mayCommit).length,
    flow: Effect.succeed({
      pause: ([grant]) => Effect.sync(() => void flow.push(`pause ${grant!.partition}`)),
      resume: ([grant]) => Effect.sync(() => void flow.push(`resume ${grant!.partition}`))
    }),
    fork: (effect) => void Effect.runForkWith(context)(effect)
  })
  const assignments = Array.from(
    { length: partitions },
    (_, partition) => new Assignment({ topic: "orders", partition, epoch: 1 }, 1, room.total)
  )
  const ready = new Ready<Task>()
  const open = assignments.map((): Array<Task> => [])
  let offset = 0

  /** Takes records in; returns once the partition flows or is paused. */
  const deliver = (partition: number, count: number, fields?: {
    readonly key?: (n: number) => string | null
    readonly bytes?: number
    readonly gap?: number
    readonly ordering?: Ordering
  }): Effect.Effect<Fiber.Fiber<void>> =>
    Effect.suspend(() => {
      const assignment = assignments[partition]!
      for (let n = 0; n < count; n++) {
        const key = fields?.key === undefined ? `k${offset}` : fields.key(n)
        const value = fields?.bytes === undefined ? null : Buffer.alloc(fields.bytes)
        const task = assignment.task(
          assignment.deliver(record(offset, key, { value })),
          0,
          fields?.ordering ?? "key"
        )
        offset += fields?.gap ?? 1
        ready.offer(task)
        room.offered(task)
        open[partition]!.push(task)
      }
      return Effect.forkChild(room.entered(assignment))
    })

  const finish = (partition: number, count: number) =>
    Effect.sync(() => {
      for (const task of open[partition]!.splice(0, count)) {
        // As a worker does: out of its lane, and done.
        task.lane.shift()
        task.delivery.assignment.finish(task)
        room.finished(task.delivery.assignment)
      }
    })

  const end = (partition: number, how: "release" | "lose") =>
    Effect.sync(() => {
      const assignment = assignments[partition]!
      assignment[how]()
      room.ended(assignment)
    })

  const paused = (): Array<PauseReason | undefined> => assignments.map(({ paused }) => paused)

  return { room, flow, assignments, open, deliver, finish, end, paused }
})

describe("a partition is paused", () => {
  it.effect("25 ms after it was full, and not at all if there is room by then", () =>
    Effect.gen(function*() {
      const { deliver, finish, flow, paused } = yield* makeHouse(1)
      const first = yield* deliver(0, 1_024)
      yield* pass(24)
      assert.isUndefined(first.pollUnsafe())
      yield* finish(0, 512)
      yield* settle
      assert.isDefined(first.pollUnsafe())
      assert.deepStrictEqual([flow, paused()], [[], [undefined]])
      yield* deliver(0, 512)
      yield* pass(25)
      assert.deepStrictEqual([flow, paused()], [["pause 0"], ["prefetch"]])
      yield* finish(0, 511)
      yield* settle
      assert.deepStrictEqual(flow, ["pause 0"])
      yield* finish(0, 1)
      yield* settle
      assert.deepStrictEqual([flow, paused()], [["pause 0", "resume 0"], [undefined]])
    }))

  it.effect("when it holds eight batches, if that is more", () =>
    Effect.gen(function*() {
      const { deliver, paused } = yield* makeHouse(1, 500)
      yield* deliver(0, 3_999)
      yield* pass(25)
      assert.deepStrictEqual(paused(), [undefined])
      yield* deliver(0, 1)
      yield* pass(25)
      assert.deepStrictEqual(paused(), ["prefetch"])
    }))

  it.effect("when 10,000 offsets lie between, and then until half of them are gone", () =>
    Effect.gen(function*() {
      const { deliver, finish, paused } = yield* makeHouse(1)
      yield* deliver(0, 21, { gap: 500 })
      yield* pass(25)
      assert.deepStrictEqual(paused(), ["span"])
      yield* finish(0, 9)
      yield* settle
      assert.deepStrictEqual(paused(), ["span"])
      yield* finish(0, 2)
      yield* settle
      assert.deepStrictEqual(paused(), [undefined])
    }))

  it.effect("for its prefetch is resumed although many offsets lie between, as long as they are not too many", () =>
    Effect.gen(function*() {
      const { assignments, deliver, flow, open, room } = yield* makeHouse(1)
      yield* deliver(0, 1_024, { gap: 9 })
      yield* pass(25)
      for (const task of open[0]!.splice(1)) {
        assignments[0]!.finish(task)
        room.finished(assignments[0]!)
      }
      yield* settle
      assert.isAbove(assignments[0]!.watermark.span, 9_000)
      assert.deepStrictEqual(flow, ["pause 0", "resume 0"])
    }))

  it.effect("when one key holds half of its buffer, until that is down to a quarter; other partitions go on", () =>
    Effect.gen(function*() {
      const { deliver, finish, flow, paused } = yield* makeHouse(2)
      yield* deliver(0, 511, { key: () => "hot" })
      yield* pass(25)
      assert.deepStrictEqual(paused(), [undefined, undefined])
      yield* deliver(0, 1, { key: () => "hot" })
      yield* deliver(1, 100)
      yield* pass(25)
      assert.deepStrictEqual(paused(), ["key", undefined])
      yield* finish(0, 255)
      yield* settle
      assert.deepStrictEqual(flow, ["pause 0"])
      yield* finish(0, 1)
      yield* settle
      assert.deepStrictEqual(flow, ["pause 0", "resume 0"])
    }))

  it.effect("when all hold 20,480 records; those that hold little go on", () =>
    Effect.gen(function*() {
      const { deliver, end, finish, flow, paused, room } = yield* makeHouse(21)
      for (let partition = 0; partition < 20; partition++) {
        yield* deliver(partition, 1_023)
        yield* pass(25)
      }
      assert.deepStrictEqual(flow, [])
      yield* deliver(20, 21)
      yield* pass(25)
      assert.deepStrictEqual([room.total.records, flow], [20_481, []], "its share is not used up")
      yield* deliver(20, 479)
      yield* pass(25)
      assert.strictEqual(paused()[20], "total")
      // Another partition frees the total.
      for (let partition = 0; partition < 10; partition++) yield* finish(partition, 1_000)
      yield* settle
      assert.deepStrictEqual(flow, ["pause 20"])
      yield* end(11, "release")
      yield* settle
      assert.deepStrictEqual(flow, ["pause 20", "resume 20"])
      assert.strictEqual(paused()[20], undefined)
    }))

  it.effect("when all hold 64 MiB, which a lost partition frees", () =>
    Effect.gen(function*() {
      const { deliver, end, flow, paused, room } = yield* makeHouse(2)
      const MiB = 1024 * 1024
      yield* deliver(0, 33, { bytes: MiB, key: () => null })
      yield* deliver(1, 30, { bytes: MiB, key: () => null })
      yield* pass(25)
      assert.deepStrictEqual(paused(), [undefined, undefined])
      yield* deliver(1, 1, { bytes: MiB, key: () => null })
      yield* pass(25)
      assert.deepStrictEqual(paused(), [undefined, "bytes"])
      yield* end(0, "lose")
      yield* settle
      assert.strictEqual(room.total.bytes, 31 * MiB)
      assert.deepStrictEqual(flow, ["pause 1", "resume 1"])
    }))

  it.effect("and not resumed once it has ended; what finishes late changes nothing", () =>
    Effect.gen(function*() {
      const { deliver, end, finish, flow, room } = yield* makeHouse(1)
      yield* deliver(0, 2_000)
      yield* pass(25)
      yield* end(0, "release")
      yield* finish(0, 2_000)
      yield* settle
      assert.deepStrictEqual([flow, room.total], [["pause 0"], { records: 0, bytes: 0 }])
    }))
})

describe("whatever happens", () => {
  type Step =
    | { readonly _tag: "Deliver"; readonly partition: number; readonly count: number; readonly hot: boolean }
    | { readonly _tag: "Finish"; readonly partition: number; readonly count: number }
    | { readonly _tag: "End"; readonly partition: number; readonly how: "release" | "lose" }
    | { readonly _tag: "Pass"; readonly millis: number }

  const partition = fc.nat(5)
  const count = fc.integer({ min: 1, max: 9_000 })
  const step: fc.Arbitrary<Step> = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ _tag: fc.constant("Deliver" as const), partition, count, hot: fc.boolean() })
    },
    { weight: 6, arbitrary: fc.record({ _tag: fc.constant("Finish" as const), partition, count }) },
    {
      weight: 1,
      arbitrary: fc.record({
        _tag: fc.constant("End" as const),
        partition,
        how: fc.constantFrom("release" as const, "lose" as const)
      })
    },
    { weight: 4, arbitrary: fc.record({ _tag: fc.constant("Pass" as const), millis: fc.nat(50) }) }
  )

  it(
    "pauses and resumes alternate, and what still lives is resumed in the end; the total is what is held",
    () =>
      fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 40 }), (steps) =>
          Effect.runPromise(
            Effect.gen(function*() {
              const { assignments, deliver, end, finish, flow, open, room } = yield* makeHouse(6)
              for (const step of steps) {
                switch (step._tag) {
                  case "Deliver":
                    if (!assignments[step.partition]!.mayCommit) break
                    yield* deliver(step.partition, step.count, step.hot ? { key: () => "hot" } : { bytes: 2_000 })
                    break
                  case "Finish":
                    yield* finish(step.partition, step.count)
                    break
                  case "End":
                    yield* end(step.partition, step.how)
                    break
                  case "Pass":
                    yield* pass(step.millis)
                }
                const living = assignments.filter(({ mayCommit }) => mayCommit)
                assert.strictEqual(room.total.records, living.reduce((sum, { buffered }) => sum + buffered, 0))
                assert.strictEqual(room.total.bytes, living.reduce((sum, { bufferedBytes }) => sum + bufferedBytes, 0))
              }
              for (let partition = 0; partition < 6; partition++) yield* finish(partition, open[partition]!.length)
              yield* pass(100)
              for (const assignment of assignments) {
                const { partition } = assignment.grant
                const own = flow.filter((word) => word.endsWith(` ${partition}`))
                own.forEach((word, i) => assert.isTrue(word.startsWith(i % 2 === 0 ? "pause" : "resume"), own.join()))
                if (!assignment.mayCommit) continue
                assert.strictEqual(own.length % 2, 0, `${partition} stays paused`)
                assert.isUndefined(assignment.paused)
              }
            }).pipe(Effect.scoped, Effect.provide(TestClock.layer()))
          )),
        { numRuns: 60 }
      ),
    30_000
  )
})

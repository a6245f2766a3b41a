/** Lanes against a naive model: one list of tasks per lane, and who holds it. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { KeyedLanes, Lane, type LaneTask } from "../../../../src/internal/consumer/order/lanes.ts"
import { Ready, type TakeLimits } from "../../../../src/internal/consumer/order/ready.ts"

class Task implements LaneTask<Task> {
  dropped = false
  dueMillis: number | undefined = undefined
  behind: Task | undefined = undefined
  readonly lane: Lane<Task>
  readonly n: number
  readonly bytes: number
  constructor(lane: Lane<Task>, n: number, bytes = 1) {
    this.lane = lane
    this.n = n
    this.bytes = bytes
  }
}

const everything: TakeLimits = { maxSize: 10_000, maxBytes: Infinity }

const one = (ready: Ready<Task>): Array<Task> => {
  const task = ready.takeOne()
  return task === undefined ? [] : [task]
}

const key = (text: string) => Buffer.from(text)

const numbers = (tasks: ReadonlyArray<Task>) => tasks.map(({ n }) => n)

/** What is in a lane, in order, and whether somebody holds it. */
interface ModelLane {
  readonly waiting: Array<Task>
  held: "nobody" | "worker" | "back-off"
}

class Model {
  readonly lanes = new Map<Lane<Task>, ModelLane>()
  /** What workers hold, by take. */
  readonly takes: Array<ReadonlyArray<Task>> = []
  next = 0
}

type Real = Ready<Task>

const laneCount = 6

class Offer implements fc.Command<Model, Real> {
  readonly at: number
  readonly bytes: number
  constructor(at: number, bytes: number) {
    this.at = at
    this.bytes = bytes
  }
  check = () => true
  run(model: Model, ready: Real) {
    const lane = Array.from(model.lanes.keys())[this.at]!
    const task = new Task(lane, model.next++, this.bytes)
    model.lanes.get(lane)!.waiting.push(task)
    ready.offer(task)
  }
  toString = () => `offer(lane ${this.at}, ${this.bytes} bytes)`
}

/** Hands back a task that waits. */
class Drop implements fc.Command<Model, Real> {
  readonly at: number
  constructor(at: number) {
    this.at = at
  }
  check = () => true
  run(model: Model) {
    const waiting = Array.from(model.lanes.values()).flatMap(({ waiting }) => waiting)
    if (waiting.length > 0) waiting[this.at % waiting.length]!.dropped = true
  }
  toString = () => `drop(${this.at})`
}

/** Takes a batch within limits, or one task. */
class Take implements fc.Command<Model, Real> {
  readonly limits: TakeLimits | "one"
  constructor(limits: TakeLimits | "one") {
    this.limits = limits
  }
  check = () => true
  run(model: Model, ready: Real) {
    const { maxBytes, maxSize } = this.limits === "one" ? { maxBytes: Infinity, maxSize: 1 } : this.limits
    const available = Array.from(model.lanes.values())
      .some(({ held, waiting }) => held === "nobody" && waiting.some(({ dropped }) => !dropped))
    const taken = this.limits === "one" ? one(ready) : ready.take(this.limits)
    assert.isTrue(taken.length <= maxSize, "more than maxSize")
    assert.isTrue(
      taken.length <= 1 || taken.reduce((sum, { bytes }) => sum + bytes, 0) <= maxBytes,
      "more than maxBytes"
    )
    assert.strictEqual(taken.length > 0, available, "something is taken exactly if something may run")
    const byLane = new Map<Lane<Task>, Array<Task>>()
    for (const task of taken) byLane.set(task.lane, [...byLane.get(task.lane) ?? [], task])
    for (const [lane, tasks] of byLane) {
      const known = model.lanes.get(lane)!
      assert.strictEqual(known.held, "nobody", "a lane that is held gave tasks away")
      const runnable = known.waiting.filter(({ dropped }) => !dropped)
      assert.deepStrictEqual(numbers(tasks), numbers(runnable.slice(0, tasks.length)), "in order, from the front")
      known.waiting.splice(0, known.waiting.indexOf(tasks.at(-1)!) + 1)
      known.held = "worker"
      assert.strictEqual(lane.state, "Busy")
    }
    if (taken.length > 0) model.takes.push(taken)
  }
  toString = () => `take(${JSON.stringify(this.limits)})`
}

/** Ends a take: the first `done` tasks are through; the others of their lanes run again, at once or after a back-off. */
class Settle implements fc.Command<Model, Real> {
  readonly at: number
  readonly done: number
  readonly backOff: boolean
  constructor(at: number, done: number, backOff: boolean) {
    this.at = at
    this.done = done
    this.backOff = backOff
  }
  check = (model: Readonly<Model>) => model.takes.length > 0
  run(model: Model, ready: Real) {
    const [taken] = model.takes.splice(this.at % model.takes.length, 1)
    const again = taken!.slice(this.done)
    for (const lane of new Set(taken!.map(({ lane }) => lane))) {
      const known = model.lanes.get(lane)!
      const rest = again.filter((task) => task.lane === lane)
      if (rest.length === 0) {
        known.held = "nobody"
        ready.settle(lane)
        continue
      }
      known.waiting.unshift(...rest)
      known.held = "back-off"
      ready.wait(lane, rest)
      assert.strictEqual(lane.state, "Waiting")
      if (this.backOff) continue
      known.held = "nobody"
      ready.wake(lane)
    }
  }
  toString = () => `settle(${this.at}, ${this.done} done, ${this.backOff ? "back-off" : "at once"})`
}

/** Wakes a lane; only one that backs off takes notice. */
class Wake implements fc.Command<Model, Real> {
  readonly at: number
  constructor(at: number) {
    this.at = at
  }
  check = () => true
  run(model: Model, ready: Real) {
    const lane = Array.from(model.lanes.keys())[this.at]!
    const known = model.lanes.get(lane)!
    if (known.held === "back-off") known.held = "nobody"
    ready.wake(lane)
  }
  toString = () => `wake(lane ${this.at})`
}

const start = () => {
  const model = new Model()
  for (let i = 0; i < laneCount; i++) model.lanes.set(new Lane<Task>(), { waiting: [], held: "nobody" })
  return { model, real: new Ready<Task>() }
}

const limits = fc.record({
  maxSize: fc.integer({ min: 1, max: 6 }),
  maxBytes: fc.oneof(fc.integer({ min: 1, max: 12 }), fc.constant(Infinity))
})

const commands = fc.commands([
  fc.tuple(fc.nat(laneCount - 1), fc.integer({ min: 0, max: 8 })).map(([at, bytes]) => new Offer(at, bytes)),
  fc.tuple(fc.nat(laneCount - 1), fc.integer({ min: 0, max: 8 })).map(([at, bytes]) => new Offer(at, bytes)),
  fc.nat(50).map((at) => new Drop(at)),
  limits.map((limits) => new Take(limits)),
  fc.constant(new Take("one")),
  fc.tuple(fc.nat(10), fc.nat(6), fc.boolean()).map(([at, done, backOff]) => new Settle(at, done, backOff)),
  fc.nat(laneCount - 1).map((at) => new Wake(at))
], { maxCommands: 80 })

/** Takes whatever is left: nothing may be missing at the end. */
const runOut = ({ model, real }: ReturnType<typeof start>) => {
  while (model.takes.length > 0) new Settle(0, 1, false).run(model, real)
  for (let at = 0; at < laneCount; at++) new Wake(at).run(model, real)
  while (Array.from(model.lanes.values()).some(({ waiting }) => waiting.some(({ dropped }) => !dropped))) {
    const before = model.takes.length
    new Take(everything).run(model, real)
    assert.isAbove(model.takes.length, before, "what waits is taken some time")
    new Settle(0, 10_000, false).run(model, real)
  }
}

describe("lanes", () => {
  it("keep order and exclusion, lose nothing and pass over what was dropped, whatever happens", () => {
    fc.assert(
      fc.property(commands, (steps) => {
        const both = start()
        fc.modelRun(() => both, steps)
        runOut(both)
      }),
      { numRuns: 500 }
    )
  })

  it("a lane that is busy gives nothing away, however much piles up in it", () => {
    const ready = new Ready<Task>()
    const lane = new Lane<Task>()
    ready.offer(new Task(lane, 0))
    assert.deepStrictEqual(numbers(ready.take(everything)), [0])
    for (let n = 1; n < 5; n++) ready.offer(new Task(lane, n))
    assert.deepStrictEqual(ready.take(everything), [])
    ready.settle(lane)
    assert.deepStrictEqual(numbers(ready.take(everything)), [1, 2, 3, 4])
  })

  it("a lane that backs off gives nothing away until it wakes, and then what was put back first", () => {
    const ready = new Ready<Task>()
    const lane = new Lane<Task>()
    for (let n = 0; n < 3; n++) ready.offer(new Task(lane, n))
    const taken = ready.take({ ...everything, maxSize: 2 })
    ready.wait(lane, taken)
    ready.offer(new Task(lane, 3))
    assert.deepStrictEqual(ready.take(everything), [])
    ready.wake(lane)
    ready.wake(lane)
    assert.deepStrictEqual(numbers(ready.take(everything)), [0, 1, 2, 3])
    assert.deepStrictEqual(ready.take(everything), [])
  })

  it("a task that backs off behind others is not taken with them, and the batch goes on with other lanes", () => {
    const ready = new Ready<Task>()
    const [a, b] = [new Lane<Task>(), new Lane<Task>()]
    for (const n of [0, 1, 2]) ready.offer(Object.assign(new Task(a, n), n === 1 ? { dueMillis: 5 } : {}))
    ready.offer(new Task(b, 3))
    assert.deepStrictEqual(numbers(ready.take(everything)), [0, 3])
    assert.strictEqual(ready.end, "empty")
    assert.deepStrictEqual(ready.take(everything), [])
  })

  it("says what ended a take, and counts what could be taken", () => {
    const ready = new Ready<Task>()
    const lane = new Lane<Task>()
    for (const n of [0, 1, 2]) ready.offer(new Task(lane, n, 10))
    for (const n of [3, 4]) ready.offer(new Task(new Lane(), n, 10))
    assert.deepStrictEqual([ready.tasks, lane.length], [5, 3])
    assert.strictEqual(ready.take({ maxSize: 2, maxBytes: 100 }).length, 2)
    assert.deepStrictEqual([ready.end, ready.tasks, lane.length], ["size", 2, 1])
    assert.strictEqual(ready.take({ maxSize: 9, maxBytes: 15 }).length, 1)
    assert.deepStrictEqual([ready.end, ready.tasks], ["bytes", 1])
    ready.settle(lane)
    assert.strictEqual(ready.tasks, 2)
    assert.strictEqual(ready.take({ maxSize: 9, maxBytes: 100 }).length, 2)
    assert.deepStrictEqual([ready.end, ready.tasks, lane.length], ["empty", 0, 0])
    assert.isUndefined(ready.takeOne())
  })

  it("a hot lane takes its turn like others", () => {
    const ready = new Ready<Task>()
    const [hot, cold] = [new Lane<Task>(), new Lane<Task>()]
    for (let n = 0; n < 10; n++) ready.offer(new Task(hot, n))
    ready.offer(new Task(cold, 100))
    assert.deepStrictEqual(numbers(one(ready)), [0])
    ready.settle(hot)
    assert.deepStrictEqual(numbers(one(ready)), [100])
    assert.deepStrictEqual(numbers(one(ready)), [1])
  })

  it("every fourth turn goes to the longest lane, the others to those that wait longest", () => {
    const ready = new Ready<Task>()
    const cold = Array.from({ length: 100 }, () => new Lane<Task>())
    const hot = new Lane<Task>()
    const warm = new Lane<Task>()
    for (const lane of cold) ready.offer(new Task(lane, 0))
    for (let n = 0; n < 10; n++) ready.offer(new Task(hot, n + 1))
    for (let n = 0; n < 5; n++) ready.offer(new Task(warm, 100 + n))
    const taken: Array<Lane<Task>> = []
    for (let turn = 1; turn <= 12; turn++) {
      const [task] = one(ready)
      taken.push(task!.lane)
      ready.settle(task!.lane)
    }
    const expected = cold.slice(0, 9)
    for (const at of [3, 7, 11]) expected.splice(at, 0, hot)
    assert.isTrue(taken.every((lane, i) => lane === expected[i]))
    // While the longest is busy its turn is the next one's.
    const busy = [one(ready), one(ready), one(ready), one(ready)].flat()
    assert.strictEqual(busy[3]!.lane, hot)
    for (const task of busy.slice(0, 3)) ready.settle(task.lane)
    ready.offer(new Task(warm, 105))
    assert.strictEqual([one(ready), one(ready), one(ready), one(ready)].flat()[3]!.lane, warm)
  })

  it("no ready lane is passed over for long, and the count of ready lanes is exact, whatever is offered and settled", () => {
    const steps = fc.array(
      fc.oneof(
        fc.record({ offer: fc.nat(9), tasks: fc.integer({ min: 1, max: 20 }) }),
        fc.record({ settle: fc.nat(7) }),
        fc.constant("take" as const),
        fc.constant("turns" as const)
      ),
      { maxLength: 300 }
    )
    fc.assert(
      fc.property(steps, (steps) => {
        const ready = new Ready<Task>()
        const lanes = Array.from({ length: 10 }, () => new Lane<Task>())
        const held: Array<Lane<Task>> = []
        const passedOver = new Map<Lane<Task>, number>()
        const take = () => {
          const [task] = one(ready)
          if (task === undefined) return
          assert.isFalse(held.includes(task.lane), "one at a time")
          held.push(task.lane)
          passedOver.delete(task.lane)
          for (const lane of lanes) {
            if (lane.state === "Ready") passedOver.set(lane, (passedOver.get(lane) ?? 0) + 1)
          }
          // Nine lanes before it at most, and a turn of the longest between each three.
          for (const turns of passedOver.values()) assert.isAtMost(turns, 13)
        }
        for (const step of steps) {
          if (step === "take") take()
          else if (step === "turns") {
            for (let n = 0; n < 15; n++) {
              take()
              held.splice(-1).forEach((lane) => ready.settle(lane))
            }
          } else if ("settle" in step) held.splice(step.settle, 1).forEach((lane) => ready.settle(lane))
          else for (let n = 0; n < step.tasks; n++) ready.offer(new Task(lanes[step.offer]!, n))
          assert.strictEqual(ready.size, lanes.filter(({ state }) => state === "Ready").length)
          assert.strictEqual(
            ready.tasks,
            lanes.reduce((sum, lane) => sum + (lane.state === "Ready" ? lane.length : 0), 0)
          )
        }
        while (ready.size > 0) take()
        assert.isTrue(lanes.every(({ state }) => state !== "Ready"))
      }),
      { numRuns: 300 }
    )
  })

  it("a single task that is larger than a batch goes alone", () => {
    const ready = new Ready<Task>()
    const lane = new Lane<Task>()
    ready.offer(new Task(lane, 0, 1_000))
    ready.offer(new Task(lane, 1, 1))
    assert.deepStrictEqual(numbers(ready.take({ ...everything, maxBytes: 10 })), [0])
  })

  it("a lane leaves its home when nothing is left in it, and only then", () => {
    const ready = new Ready<Task>()
    const home = new KeyedLanes<Task>()
    const lane = home.of(key("a"), "key")
    for (const n of [0, 1]) ready.offer(new Task(lane, n))
    one(ready)
    ready.settle(lane)
    assert.strictEqual(home.of(key("a"), "key"), lane)
    one(ready)
    assert.strictEqual(home.of(key("a"), "key"), lane, "while its last task runs, others must find it")
    ready.settle(lane)
    assert.notStrictEqual(home.of(key("a"), "key"), lane)
  })

  it("a lane whose tasks were all dropped leaves its home without a task", () => {
    for (const take of [one, (ready: Ready<Task>) => ready.take(everything)]) {
      const ready = new Ready<Task>()
      const home = new KeyedLanes<Task>()
      const lane = home.of(key("a"), "key")
      ready.offer(Object.assign(new Task(lane, 0), { dropped: true }))
      ready.offer(new Task(new Lane(), 1))
      assert.deepStrictEqual(numbers(take(ready)), [1])
      assert.notStrictEqual(home.of(key("a"), "key"), lane)
      assert.strictEqual(ready.size, 0)
    }
  })

  it("lanes by key: one each for as long as it lives, for any keys in any order", () => {
    fc.assert(fc.property(
      fc.array(fc.tuple(fc.nat(300), fc.boolean()), { maxLength: 2_000 }),
      (steps) => {
        const home = new KeyedLanes<Task>()
        const model = new Map<number, Lane<Task>>()
        for (const [n, retires] of steps) {
          const lane = home.of(key(`customer-${n}`), "key")
          const known = model.get(n)
          if (known === undefined) assert.isFalse(Array.from(model.values()).includes(lane))
          else assert.strictEqual(lane, known)
          if (retires) {
            lane.retire()
            model.delete(n)
          } else model.set(n, lane)
        }
        for (const [n, lane] of model) assert.strictEqual(home.of(key(`customer-${n}`), "key"), lane)
      }
    ))
  })

  it("a lane that was retired twice does not take its successor with it", () => {
    const home = new KeyedLanes<Task>()
    const first = home.of(key("a"), "key")
    first.retire()
    const second = home.of(key("a"), "key")
    first.retire()
    assert.strictEqual(home.of(key("a"), "key"), second)
  })

  it("events without a key, and those that need no order, have a lane each; a partition in order has one", () => {
    const home = new KeyedLanes<Task>()
    assert.notStrictEqual(home.of(null, "key"), home.of(null, "key"))
    assert.notStrictEqual(home.of(key("a"), "unordered"), home.of(key("a"), "unordered"))
    assert.strictEqual(home.of(key("a"), "partition"), home.of(null, "partition"))
  })

  it("a key of many bytes has the lane that its bytes say", () => {
    const home = new KeyedLanes<Task>()
    const long = "x".repeat(100_000)
    const lane = home.of(key(long), "key")
    assert.strictEqual(home.of(key(long), "key"), lane)
    assert.notStrictEqual(home.of(key(`${long}y`), "key"), lane)
  })

  it("serves ten thousand lanes in the order in which they became ready", () => {
    const ready = new Ready<Task>()
    const all = Array.from({ length: 10_000 }, (_, n) => new Task(new Lane(), n))
    for (const task of all) ready.offer(task)
    const taken: Array<number> = []
    while (ready.size > 0) {
      const tasks = ready.take({ ...everything, maxSize: 7 })
      taken.push(...numbers(tasks))
      for (const { lane } of tasks) ready.settle(lane)
    }
    assert.deepStrictEqual(taken, numbers(all))
  })
})

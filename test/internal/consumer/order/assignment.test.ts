/** One assignment against a naive model: a table of tasks, each with what happened to it. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { ConsumerRecord } from "../../../../src/Broker.ts"
import { Assignment, type Task } from "../../../../src/internal/consumer/order/assignment.ts"
import type { Ordering } from "../../../../src/internal/consumer/order/lanes.ts"
import { Ready } from "../../../../src/internal/consumer/order/ready.ts"

const grant = { topic: "orders", partition: 0, epoch: 1 }

const record = (offset: number, key: string | null): ConsumerRecord => ({
  key: key === null ? null : Buffer.from(key),
  value: Buffer.from("value"),
  headers: {},
  offset: BigInt(offset),
  timestamp: 0
})

interface Row {
  readonly task: Task
  readonly offset: number
  readonly handler: number
  state: "waiting" | "running" | "backing off" | "finished"
}

/** An assignment with the lanes of its handlers, as the group and the workers use it. */
class House {
  readonly assignment: Assignment
  readonly ready: ReadonlyArray<Ready<Task>>
  readonly rows: Array<Row> = []
  readonly ordering: Ordering
  next = 0
  drained = 0
  phase: "Owned" | "Draining" | "Released" | "Lost" = "Owned"
  /** What a drain handed back. */
  handedBack = new Set<Row>()

  constructor(handlers: number, ordering: Ordering) {
    this.assignment = new Assignment(grant, handlers)
    this.ready = Array.from({ length: handlers }, () => new Ready<Task>())
    this.ordering = ordering
  }

  deliver(gap: number, key: string | null) {
    const offset = this.next + gap
    this.next = offset + 1
    const delivery = this.assignment.deliver(record(offset, key))
    this.ready.forEach((ready, handler) => {
      const task = this.assignment.task(delivery, handler, this.ordering)
      this.rows.push({ task, offset, handler, state: "waiting" })
      ready.offer(task)
    })
    return delivery
  }

  row(task: Task): Row {
    return this.rows.find((row) => row.task === task)!
  }

  start(handler: number): Row | undefined {
    const task = this.ready[handler]!.takeOne()
    if (task === undefined) return undefined
    this.assignment.start(task)
    const row = this.row(task)
    row.state = "running"
    return row
  }

  finish(row: Row) {
    row.state = "finished"
    this.assignment.finish(row.task)
    this.ready[row.handler]!.settle(row.task.lane)
  }

  backOff(row: Row) {
    row.state = "backing off"
    this.ready[row.handler]!.wait(row.task.lane, [row.task])
    if (this.phase !== "Owned") {
      for (let task: Task | undefined = row.task; task !== undefined; task = task.behind) {
        this.assignment.handBack(task)
        this.handedBack.add(this.row(task))
      }
    }
  }

  wake(row: Row) {
    row.state = "waiting"
    this.ready[row.handler]!.wake(row.task.lane)
  }

  drain() {
    const started = Math.max(-1, ...this.rows.filter(({ state }) => state !== "waiting").map(({ offset }) => offset))
    const backingOff = new Set(this.rows.filter(({ state }) => state === "backing off").map(({ task }) => task.lane))
    for (const row of this.rows) {
      if (row.state === "finished") continue
      if (row.offset > Math.max(started, this.everStarted) || backingOff.has(row.task.lane)) this.handedBack.add(row)
    }
    this.phase = "Draining"
    this.assignment.drain(() => this.drained++)
  }

  /** Highest offset of a task that ever ran, also if it waits again. */
  everStarted = -1

  firstUnfinished(): bigint | undefined {
    const offsets = this.rows.filter(({ state }) => state !== "finished").map(({ offset }) => offset)
    return offsets.length > 0 ? BigInt(Math.min(...offsets)) : this.next === 0 ? undefined : BigInt(this.next)
  }

  agree() {
    const { assignment, rows } = this
    assert.strictEqual(assignment.watermark.position, this.firstUnfinished())
    const unfinished = new Set(rows.filter(({ state }) => state !== "finished").map(({ offset }) => offset))
    assert.strictEqual(assignment.buffered, unfinished.size)
    assert.strictEqual(assignment.phase._tag, this.phase)
    assert.strictEqual(assignment.mayCommit, this.phase === "Owned" || this.phase === "Draining")
    if (this.phase === "Owned") assert.strictEqual(this.drained, 0)
    if (this.phase !== "Draining") return
    const open = rows.filter((row) => row.state !== "finished" && !this.handedBack.has(row))
    assert.strictEqual(this.drained, open.length === 0 ? 1 : 0, "drained is told once, when nothing is waited for")
    for (const row of rows) {
      if (row.state === "finished") continue
      assert.strictEqual(row.task.dropped, this.handedBack.has(row), `task ${row.handler} of ${row.offset}`)
    }
  }
}

type Step =
  | { readonly _tag: "Deliver"; readonly gap: number; readonly key: string | null }
  | { readonly _tag: "Start"; readonly handler: number }
  | { readonly _tag: "Finish" | "BackOff" | "Wake"; readonly at: number }
  | { readonly _tag: "Drain" }

const key = fc.constantFrom("a", "b", "c", null)

const tag = <Tag extends Step["_tag"]>(tag: Tag) => fc.constant(tag)

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ _tag: tag("Deliver"), gap: fc.nat(2), key }) },
  { weight: 5, arbitrary: fc.record({ _tag: tag("Start"), handler: fc.nat(2) }) },
  { weight: 4, arbitrary: fc.record({ _tag: tag("Finish"), at: fc.nat(20) }) },
  { weight: 2, arbitrary: fc.record({ _tag: tag("BackOff"), at: fc.nat(20) }) },
  { weight: 1, arbitrary: fc.record({ _tag: tag("Wake"), at: fc.nat(20) }) },
  { weight: 1, arbitrary: fc.record({ _tag: tag("Drain") }) }
)

const carryOut = (house: House, step: Step): void => {
  const nth = (state: Row["state"], at: number) => {
    const rows = house.rows.filter((row) => row.state === state && !house.handedBack.has(row))
    return rows.length === 0 ? undefined : rows[at % rows.length]
  }
  switch (step._tag) {
    case "Deliver":
      // A draining assignment takes nothing in.
      if (house.phase === "Owned") house.deliver(step.gap, step.key)
      return
    case "Start": {
      const row = house.start(step.handler % house.ready.length)
      if (row !== undefined) {
        house.everStarted = Math.max(house.everStarted, row.offset)
        assert.isFalse(house.handedBack.has(row), "what was handed back does not run any more")
      }
      return
    }
    case "Finish": {
      const row = nth("running", step.at)
      return row && house.finish(row)
    }
    case "BackOff": {
      const row = nth("running", step.at)
      return row && house.backOff(row)
    }
    case "Wake": {
      const row = nth("backing off", step.at)
      return row && house.wake(row)
    }
    case "Drain":
      return house.phase === "Owned" ? house.drain() : undefined
  }
}

/** Runs what a drain waits for to its end. */
const runOut = (house: House): void => {
  for (const row of house.rows) if (row.state === "running") house.finish(row)
  for (let handler = 0; handler < house.ready.length; handler++) {
    for (let row = house.start(handler); row !== undefined; row = house.start(handler)) house.finish(row)
  }
}

const plans = fc.tuple(
  fc.integer({ min: 1, max: 3 }),
  fc.constantFrom<Ordering>("key", "partition", "unordered"),
  fc.array(step, { maxLength: 60 })
)

const played = ([handlers, ordering, steps]: [number, Ordering, Array<Step>]): House => {
  const house = new House(handlers, ordering)
  for (const step of steps) {
    carryOut(house, step)
    house.agree()
  }
  return house
}

describe("assignment", () => {
  it("commits no further than the first record that some handler has not finished, and drains exactly once", () => {
    fc.assert(
      fc.property(plans, (plan) => {
        const house = played(plan)
        if (house.phase === "Owned") house.drain()
        house.agree()
        runOut(house)
        assert.strictEqual(house.drained, 1)
        for (const row of house.handedBack) assert.isTrue(BigInt(row.offset) >= house.assignment.watermark.position!)
      }),
      { numRuns: 500 }
    )
  })

  it("after a release or a loss nothing that comes late may be committed, and nothing waits any more", () => {
    fc.assert(
      fc.property(plans, fc.boolean(), (plan, lost) => {
        const house = played(plan)
        const { assignment } = house
        const running = house.rows.filter(({ state }) => state === "running")
        const drained = house.drained
        house.phase = lost ? "Lost" : "Released"
        if (lost) assignment.lose()
        else assignment.release()
        assert.isFalse(assignment.mayCommit)
        for (const row of house.rows) assert.isTrue(row.task.dropped || row.state === "finished")
        for (const ready of house.ready) assert.isUndefined(ready.takeOne())
        for (const row of running) house.finish(row)
        assert.isFalse(assignment.mayCommit)
        assert.strictEqual(assignment.phase._tag, house.phase)
        assert.strictEqual(house.drained, drained, "a late result ends no drain")
      }),
      { numRuns: 300 }
    )
  })

  it("a record is finished with the last of its handlers", () => {
    const house = new House(3, "key")
    house.deliver(0, "a")
    const rows = [0, 1, 2].map((handler) => house.start(handler)!)
    for (const row of rows.slice(0, 2)) house.finish(row)
    assert.strictEqual(house.assignment.watermark.position, 0n)
    house.finish(rows[2]!)
    assert.strictEqual(house.assignment.watermark.position, 1n)
    assert.strictEqual(house.assignment.buffered, 0)
  })

  it("finishing a task again changes nothing, for its record and for others", () => {
    const house = new House(2, "key")
    house.deliver(0, "a")
    const first = house.start(0)!
    house.finish(first)
    house.assignment.finish(first.task)
    assert.strictEqual(house.assignment.watermark.position, 0n)
    assert.strictEqual(house.assignment.buffered, 1)
  })

  it("a record that no handler wants is finished at once", () => {
    const assignment = new Assignment(grant, 0)
    const delivery = assignment.deliver(record(4, "a"))
    assignment.finishDelivery(delivery)
    assignment.finishDelivery(delivery)
    assert.strictEqual(assignment.watermark.position, 5n)
    assert.strictEqual(assignment.buffered, 0)
  })

  it("one handler's lane does not hold up another's", () => {
    const house = new House(2, "key")
    house.deliver(0, "a")
    house.deliver(0, "a")
    assert.strictEqual(house.start(0)!.offset, 0)
    assert.isUndefined(house.start(0), "its key is busy")
    assert.strictEqual(house.start(1)!.offset, 0)
  })

  it.each(
    [
      ["key", ["a", "a", "b", null, null], 4],
      ["partition", ["a", "a", "b", null, null], 1],
      ["unordered", ["a", "a", "b", null, null], 5]
    ] as const
  )("under %s ordering as many records run at once as there are lanes", (ordering, keys, lanes) => {
    const house = new House(1, ordering)
    for (const key of keys) house.deliver(0, key)
    let running = 0
    while (house.start(0) !== undefined) running++
    assert.strictEqual(running, lanes)
  })

  it("an empty key is a key, unlike a missing one", () => {
    const house = new House(1, "key")
    for (const key of ["", "", null, null]) house.deliver(0, key)
    let running = 0
    while (house.start(0) !== undefined) running++
    assert.strictEqual(running, 3)
  })

  it("drain hands back what lies above the highest started, and what backs off with all behind it", () => {
    const house = new House(1, "key")
    for (const key of ["a", "b", "a", "b", "c"]) house.deliver(0, key)
    const [a, b] = [house.start(0)!, house.start(0)!]
    house.finish(b)
    house.finish(house.start(0)!)
    house.backOff(a)
    house.drain()
    house.agree()
    assert.isTrue(a.task.dropped)
    assert.isTrue(house.rows[2]!.task.dropped, "the key that backs off")
    runOut(house)
    assert.strictEqual(house.drained, 1)
    assert.strictEqual(house.assignment.watermark.position, 0n)
  })

  it("drain waits for a hole below what has started, since everything above would come again", () => {
    const house = new House(1, "key")
    for (const key of ["a", "a", "b", "c"]) house.deliver(0, key)
    house.start(0)
    const b = house.start(0)!
    house.finish(b)
    house.drain()
    assert.strictEqual(house.drained, 0)
    assert.deepStrictEqual(house.rows.map(({ task }) => task.dropped), [false, false, false, true])
    runOut(house)
    assert.strictEqual(house.drained, 1)
    assert.strictEqual(house.assignment.watermark.position, 3n)
  })

  it("drain of an assignment without work is told at once, and so is one of an ended assignment", () => {
    for (const prepare of [() => {}, (a: Assignment) => a.lose(), (a: Assignment) => a.release()]) {
      const assignment = new Assignment(grant, 1)
      prepare(assignment)
      let drained = 0
      assignment.drain(() => drained++)
      assert.strictEqual(drained, 1)
    }
  })

  it("remembers where delivery began, so that nothing is committed before something moved", () => {
    const assignment = new Assignment(grant, 1)
    assert.isUndefined(assignment.committed)
    assignment.deliver(record(40, "a"))
    assignment.deliver(record(41, "a"))
    assert.strictEqual(assignment.committed, 40n)
  })
})

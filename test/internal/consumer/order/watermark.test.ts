/** The watermark against a naive model: an array of what was delivered, searched from the start. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as fc from "fast-check"
import { type Entry, Watermark } from "../../../../src/internal/consumer/order/watermark.ts"
import { collectGarbage } from "../../../support/collectGarbage.ts"

class Model {
  readonly delivered: Array<{ readonly offset: bigint; done: boolean }> = []
  next: bigint | undefined
  deliver(offset: bigint) {
    this.delivered.push({ offset, done: false })
    this.next = offset + 1n
  }
  pass(offset: bigint) {
    if (this.next === undefined || offset > this.next) this.next = offset
  }
  unfinished(): Array<bigint> {
    return this.delivered.filter(({ done }) => !done).map(({ offset }) => offset)
  }
  position(): bigint | undefined {
    return this.unfinished()[0] ?? this.next
  }
  span(): number {
    const first = this.unfinished()[0]
    return first === undefined ? 0 : Number(this.next! - first)
  }
}

interface Both {
  readonly model: Model
  readonly entries: Array<Entry>
}

/** A few that have finished above the watermark are let go, and not each of them. */
const bytesEach = 300_000

const agree = (model: Model, watermark: Watermark<Entry>): void => {
  assert.strictEqual(watermark.position, model.position())
  assert.strictEqual(watermark.span, model.span())
  assert.deepStrictEqual(watermark.unfinished().map(({ offset }) => offset), model.unfinished())
}

/** Delivers records; the gaps before them are those of compaction and control records. */
class Deliver implements fc.Command<Both, Watermark<Entry>> {
  readonly gaps: ReadonlyArray<number>
  constructor(gaps: ReadonlyArray<number>) {
    this.gaps = gaps
  }
  check = () => true
  run({ entries, model }: Both, watermark: Watermark<Entry>) {
    for (const gap of this.gaps) {
      const offset = (model.next ?? 0n) + BigInt(gap)
      const entry: Entry = { offset, bytes: bytesEach, done: false }
      entries.push(entry)
      model.deliver(offset)
      watermark.deliver(entry)
    }
    agree(model, watermark)
  }
  toString = () => `deliver(${this.gaps.join(", ")})`
}

/** Says that offsets were passed without a record. */
class Pass implements fc.Command<Both, Watermark<Entry>> {
  readonly by: number
  constructor(by: number) {
    this.by = by
  }
  check = () => true
  run({ model }: Both, watermark: Watermark<Entry>) {
    const offset = (model.next ?? 0n) + BigInt(this.by)
    model.pass(offset)
    watermark.pass(offset)
    agree(model, watermark)
  }
  toString = () => `pass(${this.by})`
}

/** Finishes a share of all records ever delivered, repeats included. */
class Finish implements fc.Command<Both, Watermark<Entry>> {
  readonly seed: number
  readonly percent: number
  constructor(seed: number, percent: number) {
    this.seed = seed
    this.percent = percent
  }
  check = () => true
  run({ entries, model }: Both, watermark: Watermark<Entry>) {
    for (let i = 0; i < entries.length; i++) {
      const at = (i * 7_919 + this.seed) % entries.length
      if ((at * 31 + this.seed) % 100 >= this.percent) continue
      const before = watermark.position
      model.delivered[at]!.done = true
      watermark.finish(entries[at]!)
      assert.isTrue(watermark.position! >= before!, "it moved back")
    }
    agree(model, watermark)
  }
  toString = () => `finish(seed ${this.seed}, ${this.percent} %)`
}

/** Finishes the first of the records that are not finished: the watermark moves. */
class FinishFirst implements fc.Command<Both, Watermark<Entry>> {
  readonly percent: number
  constructor(percent: number) {
    this.percent = percent
  }
  check = () => true
  run({ entries, model }: Both, watermark: Watermark<Entry>) {
    const open = model.delivered.flatMap(({ done }, at) => done ? [] : [at])
    open.slice(0, Math.ceil(open.length * this.percent / 100)).forEach((at, i) => {
      model.delivered[at]!.done = true
      watermark.finish(entries[at]!)
      const first = open[i + 1]
      assert.strictEqual(watermark.position, first === undefined ? model.next : entries[first]!.offset)
    })
    agree(model, watermark)
  }
  toString = () => `finish the first ${this.percent} %`
}

const commands = fc.commands([
  fc.array(fc.oneof(fc.constant(0), fc.nat(20)), { maxLength: 12 }).map((gaps) => new Deliver(gaps)),
  fc.integer({ min: -5, max: 50 }).map((by) => new Pass(by)),
  fc.tuple(fc.nat(1_000), fc.nat(100)).map(([seed, percent]) => new Finish(seed, percent)),
  fc.nat(99).map((percent) => new FinishFirst(percent))
], { maxCommands: 25 })

describe("watermark", () => {
  it("is the first unfinished offset, whatever is delivered, passed and finished in whatever order", () => {
    fc.assert(
      fc.property(commands, (steps) => {
        fc.modelRun(() => ({ model: { model: new Model(), entries: [] }, real: new Watermark<Entry>() }), steps)
      }),
      { numRuns: 300 }
    )
  })

  it("holds for thousands of records, past the points where finished ones are let go", () => {
    const counts = fc.array(fc.tuple(fc.integer({ min: 500, max: 3_000 }), fc.nat(100), fc.nat(5)), { maxLength: 4 })
    fc.assert(
      fc.property(counts, (counts) => {
        const both: Both = { model: new Model(), entries: [] }
        const watermark = new Watermark<Entry>()
        for (const [count, percent, stray] of counts) {
          new Deliver(Array.from({ length: count }, (_, i) => i % 7 === 0 ? 1 : 0)).run(both, watermark)
          new Finish(stray, stray).run(both, watermark)
          for (const share of [percent / 2, percent, 30]) new FinishFirst(share).run(both, watermark)
        }
      }),
      { numRuns: 30 }
    )
  })

  it("says nothing before anything came", () => {
    const watermark = new Watermark<Entry>()
    assert.isUndefined(watermark.position)
    assert.strictEqual(watermark.span, 0)
    assert.deepStrictEqual(watermark.unfinished(), [])
  })

  it("does not pass an unfinished record, however many behind it are finished", () => {
    const watermark = new Watermark<Entry>()
    const entries = Array.from({ length: 5_000 }, (_, i): Entry => ({ offset: BigInt(i), bytes: 1, done: false }))
    for (const entry of entries) watermark.deliver(entry)
    for (const entry of entries.slice(1)) watermark.finish(entry)
    assert.strictEqual(watermark.position, 0n)
    assert.strictEqual(watermark.span, 5_000)
    watermark.finish(entries[0]!)
    assert.strictEqual(watermark.position, 5_000n)
    assert.strictEqual(watermark.span, 0)
  })

  it("moves over a gap once the record below it is finished, and not before", () => {
    const watermark = new Watermark<Entry>()
    const [low, high]: [Entry, Entry] = [{ offset: 3n, bytes: 1, done: false }, { offset: 900n, bytes: 1, done: false }]
    watermark.deliver(low)
    watermark.deliver(high)
    assert.strictEqual(watermark.position, 3n)
    watermark.finish(low)
    assert.strictEqual(watermark.position, 900n)
    assert.strictEqual(watermark.span, 1)
  })

  it("passes offsets without a record only behind what is finished", () => {
    const watermark = new Watermark<Entry>()
    watermark.pass(7n)
    assert.strictEqual(watermark.position, 7n)
    const entry: Entry = { offset: 9n, bytes: 1, done: false }
    watermark.deliver(entry)
    watermark.pass(20n)
    assert.strictEqual(watermark.position, 9n)
    assert.strictEqual(watermark.span, 11)
    watermark.finish(entry)
    assert.strictEqual(watermark.position, 20n)
  })

  it("never moves back, also when told to pass what lies behind it", () => {
    const watermark = new Watermark<Entry>()
    watermark.pass(7n)
    watermark.pass(3n)
    assert.strictEqual(watermark.position, 7n)
  })

  it("counts in whole offsets beyond 2^53", () => {
    const watermark = new Watermark<Entry>()
    const start = 2n ** 60n
    const entry: Entry = { offset: start, bytes: 1, done: false }
    watermark.deliver(entry)
    watermark.deliver({ offset: start + 1n, bytes: 1, done: false })
    watermark.finish(entry)
    assert.strictEqual(watermark.position, start + 1n)
    assert.strictEqual(watermark.span, 1)
  })

  /** Delivers large records, finishes some, and says how many of those are still in memory. */
  const held = (finished: (all: ReadonlyArray<Entry>) => ReadonlyArray<Entry>) =>
    Effect.gen(function*() {
      const watermark = new Watermark<Entry>()
      const left = (() => {
        const all = Array.from({ length: 500 }, (_, i): Entry => ({ offset: BigInt(i), bytes: 100_000, done: false }))
        for (const entry of all) watermark.deliver(entry)
        const some = finished(all)
        for (const entry of some) watermark.finish(entry)
        return some.map((entry) => new WeakRef(entry))
      })()
      // References are kept until the turn of the event loop ends.
      yield* Effect.sleep(1)
      collectGarbage()
      assert.isDefined(watermark.first)
      return left.filter((entry) => entry.deref() !== undefined).length
    })

  it.live("holds no record that it has passed", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* held((all) => all.slice(0, 499)), 0)
    }))

  it.live("holds of the records that finish above it a mebibyte at most", () =>
    Effect.gen(function*() {
      assert.isAtMost(yield* held((all) => all.slice(1)), 10)
    }))
})

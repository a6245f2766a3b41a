/** One timer for many deadlines. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { type Bounded, Deadlines } from "../../../src/internal/publisher/deadlines.ts"

interface Named extends Bounded {
  readonly name: number
}

/** A clock of its own, whose timers ring when it is set. */
const timed = () => {
  let now = 0
  let timers: Array<{ readonly at: number; readonly ring: () => void }> = []
  const due: Array<readonly [name: number, at: number]> = []
  const deadlines: Deadlines<Named> = new Deadlines<Named>({
    now: () => now,
    after: (millis, ring) => void timers.push({ at: now + millis, ring }),
    onDue: (bounded) => {
      due.push([bounded.name, now])
      deadlines.delete(bounded)
    }
  })
  const pass = (to: number) => {
    for (;;) {
      const next = timers.reduce((least, { at }) => Math.min(least, at), Infinity)
      if (next > to) break
      now = Math.max(now, next)
      const ringing = timers.filter(({ at }) => at <= now)
      timers = timers.filter(({ at }) => at > now)
      for (const { ring } of ringing) ring()
    }
    now = to
  }
  return { deadlines, due, pass, timers: () => timers.length }
}

describe("deadlines", () => {
  it("of many are one timer, as long as no earlier one comes", () => {
    const { deadlines, timers } = timed()
    for (let name = 0; name < 100; name++) deadlines.add({ name, deadline: 1_000 + name })
    assert.strictEqual(timers(), 1)
    deadlines.add({ name: 100, deadline: 500 })
    assert.strictEqual(timers(), 2)
  })

  it("of two patiences never are more than two timers, whatever comes and goes", () => {
    const { deadlines, pass, timers } = timed()
    deadlines.add({ name: 0, deadline: 100_000 })
    for (let name = 1; name < 500; name++) {
      const bounded = { name, deadline: name * 100 + 50 }
      deadlines.add(bounded)
      deadlines.delete(bounded)
      assert.isAtMost(timers(), 2)
      pass(name * 100 + 100)
    }
  })

  it("that are Infinity need none", () => {
    const { deadlines, timers } = timed()
    deadlines.add({ name: 0, deadline: Infinity })
    assert.strictEqual(timers(), 0)
  })

  it("ring once each, at their time, whatever comes and goes meanwhile", () => {
    const step = fc.record({
      wait: fc.nat(50),
      patience: fc.nat(200),
      leaves: fc.option(fc.nat(300), { nil: Infinity })
    })
    fc.assert(fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const { deadlines, due, pass } = timed()
      const leaving: Array<{ readonly bounded: Named; readonly at: number }> = []
      const expected: Array<readonly [number, number]> = []
      let now = 0
      const passing = (to: number) => {
        for (const { at, bounded } of leaving.filter(({ at }) => at > now && at <= to).sort((a, b) => a.at - b.at)) {
          pass(at)
          deadlines.delete(bounded)
        }
        now = to
        pass(to)
      }
      for (const [name, { leaves, patience, wait }] of steps.entries()) {
        const bounded = { name, deadline: now + patience }
        deadlines.add(bounded)
        leaving.push({ bounded, at: now + 1 + leaves })
        if (now + 1 + leaves >= bounded.deadline) expected.push([name, bounded.deadline])
        passing(now + wait)
      }
      passing(10_000)
      const byName = (a: readonly [number, number], b: readonly [number, number]) => a[0] - b[0]
      assert.deepStrictEqual(due.sort(byName), expected.sort(byName))
    }))
  })
})

/** Leases: never trusted longer than the database grants them, and shared evenly. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Lease from "../../../src/internal/outbox/lease.ts"
import { parts } from "../../../src/MessageStore.ts"

const millis = (n: number) => BigInt(n) * 1_000_000n

const range = (count: number) => Array.from({ length: count }, (_, i) => i)

describe("the deadline of leases", () => {
  it("lies before the end that the database knows, however long the answer took", () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: 2n ** 62n }),
        fc.integer({ min: 3_000, max: 600_000 }),
        fc.nat(1_000_000),
        (asked, ttl, answerTook) => {
          const held = Lease.held([{ part: 1, epoch: 1n }], asked, ttl)
          const databaseEnd = asked + millis(ttl) // at the earliest: the request had to get there
          assert.isTrue(held.deadlineNanos < databaseEnd)
          // What is left counts from before the renewal was sent, not from its answer.
          assert.isAtMost(Lease.leftMillis(held, asked + millis(answerTook)), ttl - answerTook)
        }
      )
    )
  })

  it("leaves four fifths of the lease for sending", () => {
    const held = Lease.held([], millis(1_000), 15_000)
    assert.strictEqual(Lease.leftMillis(held, millis(1_000)), 12_000)
    assert.strictEqual(Lease.leftMillis(held, millis(12_999)), 1)
    assert.strictEqual(Lease.leftMillis(held, millis(13_000)), 0)
  })

  it("has passed for an owner that was frozen", () => {
    const held = Lease.held([{ part: 1, epoch: 1n }], 0n, 15_000)
    assert.isBelow(Lease.leftMillis(held, millis(3_600_000)), 0)
  })

  it("of none has always passed", () => {
    fc.assert(fc.property(fc.bigInt({ min: 0n, max: 2n ** 62n }), (now) => {
      assert.isAtMost(Lease.leftMillis(Lease.none, now), 0)
    }))
    assert.strictEqual(Lease.none.leases.size, 0)
  })

  it("knows the epoch of each part", () => {
    const held = Lease.held([{ part: 3, epoch: 7n }, { part: 1, epoch: 2n }], 0n, 15_000)
    assert.deepStrictEqual(Array.from(held.leases.values()), [{ part: 3, epoch: 7n }, { part: 1, epoch: 2n }])
    assert.strictEqual(held.leases.get(3)!.epoch, 7n)
  })
})

describe("the plan of a renewal", () => {
  const plans = fc.tuple(
    fc.uniqueArray(fc.nat(parts - 1), { maxLength: parts }),
    fc.integer({ min: 0, max: 100 })
  )

  it("keeps and gives back what it has, no part twice, and nothing else", () => {
    fc.assert(fc.property(plans, ([mine, living]) => {
      const { keep, surplus } = Lease.plan(mine, living, parts)
      assert.sameMembers([...keep, ...surplus], mine)
      assert.strictEqual(keep.length + surplus.length, mine.length)
    }))
  })

  it("gives back or takes, never both, and ends at its share", () => {
    fc.assert(fc.property(plans, ([mine, living]) => {
      const { keep, surplus, wanted } = Lease.plan(mine, living, parts)
      assert.isTrue(surplus.length === 0 || wanted === 0)
      assert.strictEqual(keep.length + wanted, Math.ceil(parts / Math.max(1, living)))
    }))
  })

  it("one instance alone wants all parts", () => {
    assert.deepStrictEqual(Lease.plan([], 1, parts), { keep: [], surplus: [], wanted: parts })
    assert.strictEqual(Lease.plan([], 0, parts).wanted, parts)
  })

  it("whoever plans again gives back the same parts: order does not matter", () => {
    assert.deepStrictEqual(Lease.plan([5, 1, 40, 2], 32, parts), Lease.plan([40, 2, 5, 1], 32, parts))
    assert.deepStrictEqual(Lease.plan([5, 1, 40, 2], 32, parts), { keep: [1, 2], surplus: [5, 40], wanted: 0 })
  })

  it("instances that come and go end with every part owned once, and nobody above the share", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 6 }), (generations) => {
        let owners = new Map<number, Array<number>>()
        for (const living of generations) {
          // Those that have gone left their parts behind.
          owners = new Map(range(living).map((i) => [i, owners.get(i) ?? []]))
          // Each plans twice: the second time it takes what the others gave back.
          for (const _ of [1, 2]) {
            for (const [i, mine] of owners) {
              const { keep, wanted } = Lease.plan(mine, living, parts)
              const taken = new Set(Array.from(owners.values()).flat())
              owners.set(i, [...keep, ...range(parts).filter((part) => !taken.has(part)).slice(0, wanted)])
            }
          }
          const all = Array.from(owners.values()).flat()
          assert.strictEqual(new Set(all).size, all.length, "a part has one owner")
          assert.strictEqual(all.length, parts, "every part has an owner")
          for (const mine of owners.values()) assert.isAtMost(mine.length, Math.ceil(parts / living))
        }
      })
    )
  })
})

/** Which parts a relay reads next: full reads starve nobody. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Parts from "../../../src/internal/outbox/parts.ts"
import type { StoredRow } from "../../../src/MessageStore.ts"

const row = (part: number, id = 0): StoredRow => ({
  part,
  id: BigInt(id),
  messageKey: "",
  topic: "orders",
  key: null,
  headers: {},
  payload: null
})

describe("parts", () => {
  it("a read that was not full begins again with all parts", () => {
    assert.isUndefined(Parts.after([row(1), row(3)], 3))
    assert.isUndefined(Parts.after([], 3))
    assert.deepStrictEqual(Parts.next([1, 2, 3], undefined), [1, 2, 3])
  })

  it("a full read goes on above the last part seen, and wraps round", () => {
    assert.strictEqual(Parts.after([row(1), row(3)], 2), 3)
    assert.deepStrictEqual(Parts.next([1, 3, 4, 9], 3), [4, 9])
    assert.deepStrictEqual(Parts.next([1, 3, 4, 9], 9), [1, 3, 4, 9])
  })

  it("goes on where the part last seen is not owned any more", () => {
    assert.deepStrictEqual(Parts.next([1, 4], 3), [4])
    assert.deepStrictEqual(Parts.next([1, 2], 3), [1, 2])
    assert.deepStrictEqual(Parts.next([], 3), [])
  })

  it("every part that has rows is read within as many reads as there are parts, however full the others are", () => {
    const backlogs = fc.array(fc.nat(30), { minLength: 1, maxLength: 12 })
    fc.assert(fc.property(backlogs, fc.integer({ min: 1, max: 10 }), (backlog, limit) => {
      const owned = backlog.map((_, part) => part)
      const seen = new Set<number>()
      let after: number | undefined
      for (let read = 0; read <= owned.length; read++) {
        const asked = Parts.next(owned, after)
        // Nothing goes: the backlog refills as fast as it is relayed.
        const rows = asked.flatMap((part) => Array.from({ length: backlog[part]! }, (_, id) => row(part, id)))
          .slice(0, limit)
        for (const { part } of rows) seen.add(part)
        after = Parts.after(rows, limit)
      }
      assert.deepStrictEqual(Array.from(seen).sort((a, b) => a - b), owned.filter((part) => backlog[part]! > 0))
    }))
  })
})

/** Who wants an event: found by look-up, as a walk over everybody would find it. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Audience } from "../../../src/internal/broadcast/audience.ts"

const key = fc.constantFrom(undefined, "a", "b", "c")
const step = fc.record({ add: fc.boolean(), id: fc.nat(8) })

const sorted = (ids: Iterable<number>): ReadonlyArray<number> => [...ids].toSorted((a, b) => a - b)

describe("an audience", () => {
  it("is what a list of everybody would be", () => {
    fc.assert(fc.property(fc.array(key, { minLength: 9, maxLength: 9 }), fc.array(step), (keys, steps) => {
      const audience = new Audience<number>()
      const list = new Set<number>()
      for (const { add, id } of steps) {
        if (add) {
          audience.add(id, keys[id])
          list.add(id)
        } else {
          audience.remove(id, keys[id])
          list.delete(id)
        }
        const wanting = (wanted: string | undefined) => sorted([...list].filter((id) => keys[id] === wanted))
        assert.deepStrictEqual(sorted(audience.everything), wanting(undefined))
        for (const wanted of ["a", "b", "c", "d"]) {
          assert.deepStrictEqual(sorted(audience.following(wanted)), wanting(wanted))
        }
        assert.strictEqual(audience.isEmpty, list.size === 0)
        assert.strictEqual(audience.hasKeys, [...list].some((id) => keys[id] !== undefined))
      }
    }))
  })

  it("of ten thousand followers is asked once: an event costs no walk over them", () => {
    const audience = new Audience<{ readonly name: string }>()
    let looks = 0
    for (let i = 0; i < 10_000; i++) {
      const follower = {
        get name() {
          looks++
          return `key-${i}`
        }
      }
      audience.add(follower, `key-${i}`)
    }
    assert.strictEqual(audience.following("key-777").size, 1)
    assert.strictEqual(looks, 0)
  })
})

/** Limits of batches: defaults, and what is refused. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as fc from "fast-check"
import * as Batching from "../src/Batching.ts"

describe("Batching", () => {
  it("fills in 100 events and 1 MiB", () => {
    const defaults = { maxSize: 100, maxBytes: 1_048_576, minSize: 1, maxWait: "50 millis" as const }
    assert.deepStrictEqual(Batching.defaults, defaults)
    for (const options of [undefined, {}, { maxSize: undefined, minSize: undefined }]) {
      assert.deepStrictEqual(Batching.limits(options), defaults)
    }
    assert.deepStrictEqual(Batching.limits({ maxSize: 7 }), { ...defaults, maxSize: 7 })
    assert.deepStrictEqual(Batching.limits({ maxBytes: 7 }), { ...defaults, maxBytes: 7 })
  })

  it("takes whole numbers in range", () => {
    assert.isUndefined(Batching.illegal(Batching.defaults))
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 10_000 }), fc.integer({ min: 1 }), fc.nat(), (maxSize, maxBytes, n) => {
        assert.isUndefined(Batching.illegal({ maxSize, maxBytes, minSize: 1 + n % maxSize, maxWait: "1 second" }))
      })
    )
  })

  it.each([0, -1, 1.5, 10_001, Infinity, NaN])("refuses a maxSize of %s, and says what is allowed", (maxSize) => {
    assert.strictEqual(
      Batching.illegal({ ...Batching.defaults, maxSize }),
      `batch.maxSize is ${maxSize}; use a whole number from 1 to 10,000`
    )
  })

  it.each([0, -1, 1.5, Infinity, NaN])("refuses maxBytes of %s", (maxBytes) => {
    assert.strictEqual(
      Batching.illegal({ ...Batching.defaults, maxBytes }),
      `batch.maxBytes is ${maxBytes}; use a whole number of bytes`
    )
  })

  it.each([0, -1, 1.5, 101, NaN])("refuses a minSize of %s for a maxSize of 100", (minSize) => {
    assert.strictEqual(
      Batching.illegal({ ...Batching.defaults, minSize }),
      `batch.minSize is ${minSize}; use a whole number from 1 to maxSize, which is 100`
    )
  })

  it.each([
    [0, "0"],
    [-5, "-5"],
    [NaN, "NaN"],
    ["-1 seconds", "-1 seconds"],
    ["soon", "soon"],
    [Duration.zero, "0"],
    [null, "null"]
  ])("refuses a maxWait of %s", (maxWait, shown) => {
    assert.strictEqual(
      Batching.illegal({ ...Batching.defaults, maxWait: maxWait as Duration.Input }),
      `batch.maxWait is ${shown}; use a duration above 0, as in "5 seconds"`
    )
  })
})

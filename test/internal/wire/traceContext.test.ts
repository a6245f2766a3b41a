/** W3C trace context there and back. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { format, parse } from "../../../src/internal/wire/traceContext.ts"

const hex = (length: number) =>
  fc.string({ unit: fc.constantFrom(..."0123456789abcdef"), minLength: length, maxLength: length })
    .filter((text) => !/^0+$/.test(text))

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736"
const spanId = "00f067aa0ba902b7"

describe("traceContext", () => {
  it("reads what it writes", () => {
    fc.assert(fc.property(hex(32), hex(16), fc.boolean(), (traceId, spanId, sampled) => {
      assert.deepStrictEqual(parse(format({ traceId, spanId, sampled })), { traceId, spanId, sampled })
    }))
  })

  it("reads the example of the specification", () => {
    assert.deepStrictEqual(parse(`00-${traceId}-${spanId}-01`), { traceId, spanId, sampled: true })
    assert.deepStrictEqual(parse(`00-${traceId}-${spanId}-00`), { traceId, spanId, sampled: false })
  })

  it("only the lowest flag says whether a trace is sampled", () => {
    assert.strictEqual(parse(`00-${traceId}-${spanId}-ff`)?.sampled, true)
    assert.strictEqual(parse(`00-${traceId}-${spanId}-fe`)?.sampled, false)
  })

  it.each([
    ["nothing", ""],
    ["ids that are all zero", `00-${"0".repeat(32)}-${spanId}-01`],
    ["a span that is all zero", `00-${traceId}-${"0".repeat(16)}-01`],
    ["upper case", `00-${traceId.toUpperCase()}-${spanId}-01`],
    ["too few digits", `00-${traceId.slice(1)}-${spanId}-01`],
    ["something behind it", `00-${traceId}-${spanId}-01-x`],
    ["the forbidden version", `ff-${traceId}-${spanId}-01`]
  ])("takes %s for no trace", (_, header) => {
    assert.isUndefined(parse(header))
  })
})

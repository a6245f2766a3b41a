/** The checksum of record batches. */
import { assert, describe, it } from "@effect/vitest"
import { crc32c as platformatic } from "@platformatic/kafka"
import * as fc from "fast-check"
import { crc32c } from "../../../src/Layers/internal/kafka/crc32c.ts"

describe("CRC-32C", () => {
  // RFC 3720, B.4, and the check value of the catalogue of CRCs.
  it("of known bytes is what is known of them", () => {
    assert.strictEqual(crc32c(Buffer.from("123456789")), 0xe3069283)
    assert.strictEqual(crc32c(Buffer.alloc(32)), 0x8a9136aa)
    assert.strictEqual(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43)
    assert.strictEqual(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e)
    assert.strictEqual(crc32c(new Uint8Array()), 0)
  })

  it("of any bytes is what a byte at a time makes of them", () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
      assert.strictEqual(crc32c(bytes), platformatic(Buffer.from(bytes)) >>> 0)
    }))
  })
})

/** Names of topics, and what a dead letter carries. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { ConsumerRecord } from "../../../src/Broker.ts"
import { type Grave, illegalName, topicName, write } from "../../../src/internal/wire/deadLetter.ts"
import * as Envelope from "../../../src/internal/wire/envelope.ts"

const grave: Grave = {
  topic: "orders",
  partition: 2,
  group: "billing",
  handler: "bill",
  errorTag: "CardRefused",
  errorMessage: "no money",
  attempts: 3,
  firstFailure: "2026-01-01T00:00:00.000Z",
  lastFailure: "2026-01-01T00:01:00.000Z"
}

const record = (fields: Partial<ConsumerRecord> = {}): ConsumerRecord => ({
  key: Buffer.from("key"),
  value: Buffer.from("value"),
  headers: { ce_id: "id-1", tenant: "a" },
  offset: 7n,
  timestamp: 1_000,
  ...fields
})

/** As the broker would deliver what was written. */
const delivered = (written: ReturnType<typeof write>, fields: Partial<ConsumerRecord>): ConsumerRecord => ({
  ...record(fields),
  key: written.key === null ? null : Buffer.from(written.key),
  value: written.value,
  headers: written.headers
})

describe("illegalName", () => {
  it("takes every name of legal characters up to 249 of them", () => {
    fc.assert(fc.property(fc.stringMatching(/^[a-zA-Z0-9._-]{1,249}$/), (name) => {
      fc.pre(name !== "." && name !== "..")
      assert.isUndefined(illegalName(name))
    }))
    assert.isUndefined(illegalName("x".repeat(249)))
  })

  it("refuses 250 characters, and says how many are allowed", () => {
    assert.strictEqual(illegalName("x".repeat(250)), "it has 250 characters, 249 are allowed")
  })

  it("refuses the empty name and the reserved ones", () => {
    assert.strictEqual(illegalName(""), "it is empty")
    assert.strictEqual(illegalName("."), `"." is reserved`)
    assert.strictEqual(illegalName(".."), `".." is reserved`)
    assert.isUndefined(illegalName("..."))
  })

  it("refuses any other character, wherever it stands", () => {
    fc.assert(
      fc.property(
        fc.stringMatching(/^[a-z]{0,5}$/),
        fc.string({ unit: "binary", minLength: 1, maxLength: 1 }).filter((c) => !/[a-zA-Z0-9._-]/.test(c)),
        fc.stringMatching(/^[a-z]{0,5}$/),
        (before, c, after) => {
          assert.strictEqual(illegalName(before + c + after), "only letters, digits, '.', '_' and '-' are allowed")
        }
      )
    )
    assert.isDefined(illegalName("orders\n"))
  })
})

describe("dead letters", () => {
  it("lie in a topic named after topic and group", () => {
    assert.strictEqual(topicName("orders.placed", "billing"), "orders.placed.billing.dead-letter")
  })

  it("keep key, value and headers as they came, and say whose they are and why", () => {
    const letter = write(record(), grave)
    assert.deepStrictEqual(letter.key, Buffer.from("key"))
    assert.deepStrictEqual(letter.value, Buffer.from("value"))
    assert.deepStrictEqual(letter.headers, {
      ce_id: "id-1",
      tenant: "a",
      dl_handler: "bill",
      dl_group: "billing",
      dl_error_tag: "CardRefused",
      dl_error_message: "no money",
      dl_attempts: "3",
      dl_first_failure: "2026-01-01T00:00:00.000Z",
      dl_last_failure: "2026-01-01T00:01:00.000Z",
      dl_original_topic: "orders",
      dl_original_partition: "2",
      dl_original_offset: "7",
      dl_original_timestamp: "1000"
    })
  })

  it("keep several values of one header, and binary ones", () => {
    const headers = { several: ["a", Buffer.from("b")], binary: new Uint8Array([0, 255]) }
    const letter = write(record({ headers }), grave)
    assert.deepStrictEqual(letter.headers.several, headers.several)
    assert.deepStrictEqual(letter.headers.binary, headers.binary)
  })

  it("keep a missing key and a tombstone apart from empty ones", () => {
    const none = write(record({ key: null, value: null }), grave)
    assert.isNull(none.key)
    assert.isNull(none.value)
    const empty = write(record({ key: new Uint8Array(), value: new Uint8Array() }), grave)
    assert.strictEqual(empty.key?.length, 0)
    assert.deepStrictEqual(empty.value, new Uint8Array())
  })

  it("that fail again keep the place and time of the first failure", () => {
    const first = write(record(), grave)
    const again = write(delivered(first, { offset: 99n, timestamp: 9_999 }), {
      ...grave,
      topic: "orders.billing.dead-letter",
      partition: 0,
      errorTag: "Other",
      attempts: 1,
      firstFailure: "2027-01-01T00:00:00.000Z",
      lastFailure: "2027-01-01T00:00:00.000Z"
    })
    for (
      const name of [
        "dl_original_topic",
        "dl_original_partition",
        "dl_original_offset",
        "dl_original_timestamp",
        "dl_first_failure"
      ]
    ) {
      assert.strictEqual(again.headers[name], first.headers[name], name)
    }
    assert.strictEqual(again.headers.dl_error_tag, "Other")
    assert.strictEqual(again.headers.dl_last_failure, "2027-01-01T00:00:00.000Z")
  })

  it("cut a long error message, so that the letter stays below the broker's limit", () => {
    const letter = write(record(), { ...grave, errorMessage: "x".repeat(100_000) })
    assert.strictEqual(Envelope.header(letter.headers, "dl_error_message")?.length, 1_024)
  })

  it("of a record without an id derive the id that the record had", () => {
    fc.assert(
      fc.property(
        fc.nat(100),
        fc.bigInt({ min: 0n, max: 2n ** 60n }),
        fc.nat(),
        (partition, offset, timestamp) => {
          const original = record({ headers: {}, offset, timestamp })
          const before = Envelope.read("orders", partition, original)
          const letter = write(original, { ...grave, partition })
          const after = Envelope.read("orders.billing.dead-letter", 0, delivered(letter, { offset: 0n, timestamp: 1 }))
          assert.strictEqual(after.id, before.id)
        }
      )
    )
  })
})

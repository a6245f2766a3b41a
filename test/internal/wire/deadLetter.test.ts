/** Names of topics, and what a dead letter carries. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { ConsumerRecord } from "../../../src/Broker.ts"
import {
  copy,
  type Grave,
  head,
  illegalName,
  letterId,
  marker,
  replay,
  restore,
  topicName,
  write
} from "../../../src/internal/wire/deadLetter.ts"
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
  lastFailure: "2026-01-01T00:01:00.000Z",
  due: undefined,
  before: undefined
}

const idOfLetter = letterId("billing", "bill", "id-1", "")

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
  }, 30_000)
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
      dl_id: idOfLetter,
      dl_round: "0",
      dl_replays: "0",
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

  it("of dead letters keep the place and time of the first failure", () => {
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

  it("cut a long error message after 4 KiB, between two characters, and a long tag", () => {
    for (const [text, length] of [["x", 4_096], ["\u00e9", 4_096], ["\u20ac", 4_095], ["\u{1F600}", 4_096]] as const) {
      const letter = write(record(), { ...grave, errorMessage: text.repeat(100_000), errorTag: "T".repeat(100_000) })
      const message = Envelope.header(letter.headers, "dl_error_message")!
      assert.strictEqual(Buffer.byteLength(message), length)
      assert.strictEqual(message, text.repeat(length / Buffer.byteLength(text)))
      assert.strictEqual(Envelope.header(letter.headers, "dl_error_tag")?.length, 256)
    }
    const short = "\u20ac".repeat(1_365)
    assert.strictEqual(
      Envelope.header(write(record(), { ...grave, errorMessage: short }).headers, "dl_error_message"),
      short
    )
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

  it("of one message and handler have one id, and others another", () => {
    const idOf = (fields: Partial<ConsumerRecord>, change: Partial<Grave> = {}) =>
      write(record(fields), { ...grave, ...change }).headers.dl_id
    assert.strictEqual(idOf({}), idOf({ offset: 99n, timestamp: 5, value: null }))
    assert.notStrictEqual(idOf({}), idOf({}, { handler: "ship" }))
    assert.notStrictEqual(idOf({}), idOf({}, { group: "shipping" }))
    assert.notStrictEqual(idOf({}), idOf({ headers: { ce_id: "id-2" } }))
    assert.notStrictEqual(idOf({}), idOf({ headers: { ce_id: "id-1", ce_source: "/elsewhere" } }))
    assert.notStrictEqual(idOf({ headers: {} }), idOf({ headers: {}, offset: 8n }))
  })
})

const letterTopic = "orders.billing.dead-letter"

describe("dead letters that come back", () => {
  const at = { offset: 99n, timestamp: 9_999 }

  it("are the record that they were, with its place, time and headers", () => {
    const first = record({ headers: { ce_id: "id-1", tenant: ["a", "b"] } })
    const raw = delivered(write(first, grave), at)
    const returned = restore(head(letterTopic, 0, raw)!, 0, raw)
    assert.deepStrictEqual(returned.record, first)
    assert.strictEqual(returned.partition, 2)
    assert.strictEqual(returned.topic, "orders")
  })

  it("without an id of their own have the id that they had", () => {
    const first = record({ headers: {} })
    const raw = delivered(write(first, grave), at)
    const { partition, record: again } = restore(head(letterTopic, 0, raw)!, 0, raw)
    assert.strictEqual(Envelope.read("orders", partition, again).id, Envelope.read("orders", 2, first).id)
  })

  it("and fail again keep id, first failure and place, and count rounds and attempts", () => {
    const raw = delivered(
      replay(delivered(write(record(), grave), at), head(letterTopic, 0, delivered(write(record(), grave), at))!),
      at
    )
    const before = restore(head(letterTopic, 0, raw)!, 0, raw)
    const again = write(before.record, {
      ...grave,
      errorTag: "Other",
      attempts: 2,
      firstFailure: "2027-01-01T00:00:00.000Z",
      lastFailure: "2027-01-01T00:00:00.000Z",
      due: 5_000,
      before
    })
    assert.deepStrictEqual(again.headers, {
      ...write(record(), grave).headers,
      dl_error_tag: "Other",
      dl_attempts: "5",
      dl_last_failure: "2027-01-01T00:00:00.000Z",
      dl_round: "1",
      dl_replays: "1",
      dl_due: "5000"
    })
  })

  it("say by their headers what they are", () => {
    const raw = delivered(write(record(), { ...grave, due: 7_000 }), at)
    const letter = head(letterTopic, 0, raw)!
    assert.deepStrictEqual(letter, {
      kind: "letter",
      id: idOfLetter,
      group: "billing",
      handler: "bill",
      round: 0,
      replays: 0,
      due: 7_000
    })
    assert.deepStrictEqual(head(letterTopic, 0, delivered(copy(raw), at)), letter)
    assert.deepStrictEqual(head(letterTopic, 0, delivered(replay(raw, letter), at)), {
      ...letter,
      kind: "replay",
      replays: 1,
      due: undefined
    })
    for (const kind of ["drop", "done"] as const) {
      assert.deepStrictEqual(head(letterTopic, 0, delivered(marker(kind, letter, raw.key), at)), {
        ...letter,
        kind,
        due: undefined
      })
    }
  })

  it("are told apart from anything else that somebody wrote there", () => {
    assert.isUndefined(head(letterTopic, 0, record()))
    assert.isUndefined(head(letterTopic, 0, record({ headers: { dl_handler: "bill" } })))
    assert.isUndefined(head(letterTopic, 0, record({ headers: { dl_handler: "b", dl_group: "g", dl_marker: "what" } })))
  })

  it("with headers that make no sense come back as from where they lie", () => {
    const raw = record({
      ...at,
      headers: {
        dl_handler: "bill",
        dl_group: "billing",
        dl_due: "soon",
        dl_round: "-1",
        dl_original_partition: "x",
        dl_original_offset: "1e9",
        dl_original_timestamp: ""
      }
    })
    const letter = head(letterTopic, 3, raw)!
    assert.strictEqual(letter.due, undefined)
    assert.strictEqual(letter.round, 0)
    const { partition, record: again } = restore(letter, 3, raw)
    assert.deepStrictEqual([partition, again.offset, again.timestamp], [3, 99n, 9_999])
  })

  it("from before letters had ids get the one that they would have", () => {
    const raw = delivered(write(record(), grave), at)
    const { dl_id: id, ...headers } = raw.headers
    assert.strictEqual(head(letterTopic, 0, { ...raw, headers })!.id, id)
  })
})

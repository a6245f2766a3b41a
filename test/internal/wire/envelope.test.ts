/** CloudEvents on the wire: what is written is read, and what others write is read liberally. */
import { assert, describe, it } from "@effect/vitest"
import * as DateTime from "effect/DateTime"
import * as fc from "fast-check"
import type { ConsumerRecord, Headers } from "../../../src/Broker.ts"
import * as Event from "../../../src/Event.ts"
import * as Envelope from "../../../src/internal/wire/envelope.ts"

const record = (headers: Headers, value: Uint8Array | null = Buffer.from("{}")): ConsumerRecord => ({
  key: null,
  value,
  headers,
  offset: 7n,
  timestamp: 1_000
})

/** All of an envelope: it reads each attribute when it is asked for. */
const read = (headers: Headers, value?: Uint8Array | null): Envelope.Envelope => {
  const { data, id, source, time, type } = Envelope.read("orders", 3, record(headers, value))
  return { id, source, time, type, data }
}

const structured = (event: unknown, contentType = "application/cloudevents+json") =>
  read({ "content-type": contentType }, Buffer.from(JSON.stringify(event)))

const bytes = (value: Uint8Array | null) => ({ _tag: "Bytes" as const, bytes: value })

const text = fc.oneof(fc.string({ minLength: 1 }), fc.string({ unit: "binary", minLength: 1 }))

/** The three ways in which a client may hand over a header. */
const asText = (value: string) => value
const asBuffer = (value: string) => Buffer.from(value)
const asBytes = (value: string) => new TextEncoder().encode(value)

describe("envelope, binary mode", () => {
  it("reads what it writes, in whatever form the client hands over headers", () => {
    const attributes = fc.record({
      id: text,
      type: text,
      source: text,
      time: text,
      key: fc.option(text),
      contentType: text,
      dataSchema: fc.option(text, { nil: undefined })
    })
    fc.assert(
      fc.property(attributes, fc.constantFrom(asText, asBuffer, asBytes), (attributes, form) => {
        // A byte order mark is not part of a text.
        fc.pre(!JSON.stringify(attributes).includes("\ufeff"))
        const value = Buffer.from("payload")
        const headers = Object.fromEntries(
          Object.entries(Envelope.write(attributes)).map(([name, value]) => [name, form(value)])
        )
        const { id, source, time, type } = attributes
        assert.deepStrictEqual(read(headers, value), { id, source, time, type, data: bytes(value) })
      })
    )
  })

  it("writes the attributes that CloudEvents asks for, and no others", () => {
    const written = { id: "1", type: "t", source: "s", time: "2026-01-01T00:00:00Z", key: "k" }
    assert.deepStrictEqual(
      Envelope.write({ ...written, contentType: "application/json", dataSchema: "https://schema" }),
      {
        ce_specversion: "1.0",
        ce_id: "1",
        ce_type: "t",
        ce_source: "s",
        ce_time: "2026-01-01T00:00:00Z",
        ce_subject: "k",
        ce_dataschema: "https://schema",
        "content-type": "application/json"
      }
    )
    assert.hasAllKeys(
      Envelope.write({ ...written, source: undefined, key: null, contentType: "c", dataSchema: undefined }),
      ["ce_specversion", "ce_id", "ce_type", "ce_time", "content-type"]
    )
  })

  it("takes `application/json; charset=UTF-8` for plain JSON bytes", () => {
    const value = Buffer.from("{\"a\":1}")
    for (const contentType of ["application/json; charset=UTF-8", "application/json", "APPLICATION/JSON"]) {
      assert.deepStrictEqual(read({ ce_id: "1", "content-type": contentType }, value).data, bytes(value))
      assert.deepStrictEqual(read({ "content-type": contentType }, value).data, bytes(value))
    }
  })

  it("the first of several values of one header counts", () => {
    const envelope = read({ ce_id: ["a", "b"], ce_source: [Buffer.from("s"), "t"], ce_type: [] })
    assert.strictEqual(envelope.id, "a")
    assert.strictEqual(envelope.source, "s")
    assert.strictEqual(envelope.type, "")
  })

  it("binary header values that are no text neither fail nor disturb others", () => {
    const envelope = read({ ce_id: "1", ce_type: new Uint8Array([0xff, 0xfe]), other: new Uint8Array([0xc3]) })
    assert.strictEqual(envelope.id, "1")
    assert.strictEqual(envelope.type, "\ufffd\ufffd")
  })

  it("a tombstone has no bytes", () => {
    assert.deepStrictEqual(read({ ce_id: "1" }, null).data, bytes(null))
    assert.deepStrictEqual(read({}, null).data, bytes(null))
  })

  it("an id makes it binary mode, whatever the content type says", () => {
    const value = Buffer.from(JSON.stringify({ id: "inner", data: 1 }))
    const envelope = read({ ce_id: "outer", "content-type": "application/cloudevents+json" }, value)
    assert.strictEqual(envelope.id, "outer")
    assert.deepStrictEqual(envelope.data, bytes(value))
  })
})

describe("envelope, without attributes", () => {
  it("a record without headers has an id by its place, and nothing else", () => {
    const value = Buffer.from("x")
    assert.deepStrictEqual(read({}, value), {
      id: "orders/3/7/1000",
      type: "",
      source: "",
      time: undefined,
      data: bytes(value)
    })
  })

  it("attributes without an id are still read", () => {
    const envelope = read({ ce_type: "t", ce_source: "s", ce_time: "2026-01-01T00:00:00Z" })
    assert.strictEqual(envelope.id, "orders/3/7/1000")
    assert.strictEqual(envelope.type, "t")
    assert.strictEqual(envelope.source, "s")
    assert.strictEqual(envelope.time, "2026-01-01T00:00:00Z")
  })

  it("a dead letter's id derives from where its record lay first", () => {
    const envelope = read({
      dl_original_topic: "invoices",
      dl_original_partition: Buffer.from("5"),
      dl_original_offset: "9007199254740993",
      dl_original_timestamp: "12"
    })
    assert.strictEqual(envelope.id, "invoices/5/9007199254740993/12")
  })

  it("a dead letter that names its id keeps it", () => {
    const envelope = read({
      ce_id: "1",
      dl_original_topic: "invoices",
      dl_original_partition: "5",
      dl_original_offset: "6",
      dl_original_timestamp: "12"
    })
    assert.strictEqual(envelope.id, "1")
  })

  // Anybody may write headers: what they say must not stop a consumer.
  it("headers of a dead letter that are no numbers do not throw", () => {
    for (const offset of ["no number", "1.5", "", undefined]) {
      const { id } = read({ dl_original_topic: "invoices", dl_original_partition: "x", dl_original_offset: offset })
      assert.isString(id)
    }
  })
})

describe("envelope, structured mode", () => {
  it("takes attributes and data from the body", () => {
    assert.deepStrictEqual(
      structured({
        specversion: "1.0",
        id: "1",
        type: "t",
        source: "s",
        time: "2026-01-01T00:00:00Z",
        data: { a: [1, null] }
      }),
      { id: "1", type: "t", source: "s", time: "2026-01-01T00:00:00Z", data: { _tag: "Json", json: { a: [1, null] } } }
    )
  })

  it("is recognised with parameters and in any case", () => {
    for (
      const contentType of [
        "application/cloudevents+json; charset=UTF-8",
        "Application/CloudEvents+JSON",
        "application/cloudevents+json;charset=utf-8"
      ]
    ) {
      assert.strictEqual(structured({ id: "1", data: 1 }, contentType).id, "1", contentType)
    }
  })

  it("reads data in base64 as bytes", () => {
    const { data } = structured({ id: "1", data_base64: Buffer.from([0, 255, 1]).toString("base64") })
    assert.deepStrictEqual(data, bytes(Buffer.from([0, 255, 1])))
  })

  it("without data it is a tombstone", () => {
    assert.deepStrictEqual(structured({ id: "1" }).data, { _tag: "Json", json: null })
  })

  it("a body that is no event is read as plain bytes, with an id by its place", () => {
    for (const body of ["", "no json", "[1]", "null", "\"text\"", "{}", "{\"id\":1}"]) {
      const value = Buffer.from(body)
      const envelope = read({ "content-type": "application/cloudevents+json" }, value)
      assert.strictEqual(envelope.id, "orders/3/7/1000", body)
      assert.deepStrictEqual(envelope.data, bytes(value), body)
    }
    assert.deepStrictEqual(read({ "content-type": "application/cloudevents+json" }, null).data, bytes(null))
  })

  it("attributes of the wrong type count as missing", () => {
    const { source, time, type } = structured({ id: "1", type: 1, source: null, time: {} })
    assert.deepStrictEqual({ source, time, type }, { source: "", time: undefined, type: "" })
  })
})

describe("Event", () => {
  const event = (headers: Headers, fields: Partial<ConsumerRecord> = {}) => {
    const from = { ...record(headers), ...fields }
    return Event.make("orders", 3, from, { a: 1 }, 2)
  }

  it("says what the record and its envelope say", () => {
    const headers = { ce_id: "1", ce_type: "t", ce_source: "s", ce_time: "2026-01-01T00:00:00Z", tenant: "x" }
    const made = event(headers, { key: Buffer.from("käse") })
    assert.strictEqual(made.id, "1")
    assert.strictEqual(made.type, "t")
    assert.strictEqual(made.source, "s")
    assert.strictEqual(made.key, "käse")
    assert.strictEqual(DateTime.formatIso(made.time), "2026-01-01T00:00:00.000Z")
    assert.strictEqual(made.headers, headers)
    assert.strictEqual(made.topic, "orders")
    assert.strictEqual(made.partition, 3)
    assert.strictEqual(made.offset, 7n)
    assert.strictEqual(made.attempt, 2)
    assert.deepStrictEqual(made.payload, { a: 1 })
  })

  it("a time that is no time, or none, falls back to the broker's timestamp", () => {
    for (const ce_time of ["yesterday", "", "2026-99-99T00:00:00Z", undefined]) {
      assert.strictEqual(DateTime.toEpochMillis(event({ ce_id: "1", ce_time }).time), 1_000, ce_time)
    }
  })

  it("a time in another zone is the same moment in UTC", () => {
    const { time } = event({ ce_id: "1", ce_time: "2026-01-01T02:00:00.5+02:00" })
    assert.strictEqual(DateTime.formatIso(time), "2026-01-01T00:00:00.500Z")
  })

  it("tells no key from an empty one", () => {
    assert.isNull(event({}, { key: null }).key)
    assert.strictEqual(event({}, { key: new Uint8Array() }).key, "")
  })

  it("header reads the first value as text, and undefined for a name that is not there", () => {
    const made = event({ a: ["1", "2"], b: Buffer.from("ü"), c: [] })
    assert.strictEqual(Event.header(made, "a"), "1")
    assert.strictEqual(Event.header(made, "b"), "ü")
    assert.isUndefined(Event.header(made, "c"))
    assert.isUndefined(Event.header(made, "d"))
  })
})

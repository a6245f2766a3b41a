/** What counts as the same message. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { ConsumerRecord } from "../../../src/Broker.ts"
import * as Envelope from "../../../src/internal/wire/envelope.ts"
import { derivedId, messageKey, uuidV7Of } from "../../../src/internal/wire/messageId.ts"

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const v7 = fc.uuid({ version: 7 })
const notV7 = fc.oneof(
  fc.string(),
  fc.string({ unit: "binary" }),
  fc.uuid({ version: 4 }),
  fc.uuid({ version: 1 }),
  v7.map((id) => id.replaceAll("-", "")),
  v7.map((id) => ` ${id}`),
  v7.map((id) => `${id}\n`)
)

const keyOfRecord = (record: Partial<ConsumerRecord>) => {
  const { id, source } = Envelope.read("orders", 0, {
    key: null,
    value: null,
    headers: {},
    offset: 0n,
    timestamp: 0,
    ...record
  })
  return messageKey({ id, source })
}

describe("a new id", () => {
  it("is a UUIDv7 that begins with its time, and else is random", () => {
    fc.assert(fc.property(fc.nat(2 ** 48 - 1), fc.uuid({ version: 4 }), (millis, random) => {
      const id = uuidV7Of(millis, random)
      assert.strictEqual(messageKey({ id, source: "any" }), id)
      assert.strictEqual(Number.parseInt(id.replaceAll("-", "").slice(0, 12), 16), millis)
      assert.strictEqual(id.slice(15), random.slice(15))
    }))
  })
})

describe("messageKey", () => {
  it("a UUIDv7 is its own key, whatever its source and case", () => {
    fc.assert(fc.property(v7, fc.string(), (id, source) => {
      assert.strictEqual(messageKey({ id, source }), id)
      assert.strictEqual(messageKey({ id: id.toUpperCase(), source }), id)
    }))
  })

  it("any other id becomes a key of the same form, and not its own text", () => {
    fc.assert(fc.property(notV7, fc.string(), (id, source) => {
      const key = messageKey({ id, source })
      assert.match(key, uuid)
      assert.notStrictEqual(key, id)
    }))
  })

  it("a UUIDv7 with an illegal variant is hashed", () => {
    const id = "01890a5d-ac96-774b-0cce-b302099a8057"
    assert.notStrictEqual(messageKey({ id, source: "source" }), id)
  })

  it("the same id of the same source is the same message", () => {
    fc.assert(fc.property(notV7, fc.string(), (id, source) => {
      assert.strictEqual(messageKey({ id, source }), messageKey({ id, source }))
    }))
  })

  it("the same id of two sources is two messages", () => {
    fc.assert(fc.property(notV7, fc.string(), fc.string(), (id, a, b) => {
      fc.pre(a !== b)
      assert.notStrictEqual(messageKey({ id, source: a }), messageKey({ id, source: b }))
    }))
  })

  it("where the source ends and the id begins matters", () => {
    assert.notStrictEqual(messageKey({ id: "bc", source: "a" }), messageKey({ id: "c", source: "ab" }))
    assert.notStrictEqual(messageKey({ id: "c", source: "" }), messageKey({ id: "", source: "c" }))
  })

  it("ids that differ in case are two messages, unless they are UUIDv7", () => {
    assert.notStrictEqual(messageKey({ id: "order-A", source: "shop" }), messageKey({ id: "order-a", source: "shop" }))
  })

  it("neither time nor place belong to the identity of a record that names its id", () => {
    const headers = { ce_id: "order-1", ce_source: "shop" }
    const once = keyOfRecord({ headers: { ...headers, ce_time: "2026-01-01T00:00:00Z" }, offset: 1n, timestamp: 1 })
    const again = keyOfRecord({ headers: { ...headers, ce_time: "2026-02-02T00:00:00Z" }, offset: 2n, timestamp: 2 })
    assert.strictEqual(once, again)
  })

  it("a record that names no id is told apart by place and broker timestamp", () => {
    const here = keyOfRecord({ offset: 5n, timestamp: 10 })
    assert.strictEqual(here, keyOfRecord({ offset: 5n, timestamp: 10 }))
    // The topic was deleted and created anew: offsets start again.
    assert.notStrictEqual(here, keyOfRecord({ offset: 5n, timestamp: 11 }))
    assert.notStrictEqual(here, keyOfRecord({ offset: 6n, timestamp: 10 }))
  })

  it("derived ids differ when any of topic, partition, offset and timestamp does", () => {
    const place = fc.tuple(
      fc.stringMatching(/^[a-zA-Z0-9._-]{1,20}$/),
      fc.nat(),
      fc.bigInt({ min: 0n, max: 2n ** 62n }),
      fc.nat()
    )
    fc.assert(fc.property(place, place, (a, b) => {
      fc.pre(a.some((part, i) => part !== b[i]))
      assert.notStrictEqual(derivedId(...a), derivedId(...b))
    }))
  })
})

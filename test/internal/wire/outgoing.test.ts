/** From a payload to a message: what cannot be sent fails here, with nothing sent. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import type { Headers } from "../../../src/Broker.ts"
import * as Event from "../../../src/Event.ts"
import * as Outgoing from "../../../src/internal/wire/outgoing.ts"
import { parse } from "../../../src/internal/wire/traceContext.ts"
import * as Topic from "../../../src/Topic.ts"

class Order extends Schema.Class<Order>("Order")({
  id: Schema.String,
  total: Schema.Number.check(Schema.isGreaterThan(0))
}) {
  get customer() {
    return `customer of ${this.id}`
  }
}

const Orders = Topic.make("orders", { schema: Order, key: (order) => order.customer })

const order = new Order({ id: "o-1", total: 5 })

const decoded = (message: Outgoing.Outgoing): unknown =>
  message.value === null ? null : JSON.parse(new TextDecoder().decode(message.value))

const reasonOf = <A, R>(effect: Effect.Effect<A, Outgoing.PublishError, R>) =>
  Effect.map(Effect.flip(effect), ({ reason }) => reason)

/** An event as a handler receives it. */
const eventWith = (headers: Headers) =>
  Event.make("causes", 0, { key: null, value: null, headers, offset: 7n, timestamp: 0 }, undefined, 1)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

describe("payloads", () => {
  it.effect("an instance of a class is taken as it is", () =>
    Effect.gen(function*() {
      const message = yield* Outgoing.prepare(Orders, order, "shop")
      assert.deepStrictEqual(decoded(message), { id: "o-1", total: 5 })
      assert.strictEqual(message.topic, "orders")
      assert.strictEqual(message.key, "customer of o-1")
    }))

  it.effect("a plain object becomes an instance first, so that the key function may use it as one", () =>
    Effect.gen(function*() {
      const message = yield* Outgoing.prepare(Orders, { id: "o-2", total: 5 }, "shop")
      assert.deepStrictEqual(decoded(message), { id: "o-2", total: 5 })
      assert.strictEqual(message.key, "customer of o-2")
    }))

  it.effect("defaults of the schema's constructor are filled in", () =>
    Effect.gen(function*() {
      const schema = Schema.Struct({
        id: Schema.String,
        currency: Schema.String.pipe(Schema.withConstructorDefault(Effect.succeed("EUR")))
      })
      const message = yield* Outgoing.prepare(Topic.make("orders", { schema }), { id: "o-1" }, "shop")
      assert.deepStrictEqual(decoded(message), { id: "o-1", currency: "EUR" })
    }))

  it.effect("what JSON cannot hold is encoded by the schema", () =>
    Effect.gen(function*() {
      const schema = Schema.Struct({ at: Schema.Date, amount: Schema.BigInt, tags: Schema.ReadonlySet(Schema.String) })
      const message = yield* Outgoing.prepare(
        Topic.make("orders", { schema }),
        { at: new Date(0), amount: 3n, tags: new Set(["a"]) },
        "shop"
      )
      assert.deepStrictEqual(decoded(message), { at: "1970-01-01T00:00:00.000Z", amount: "3", tags: ["a"] })
    }))

  it.effect("a payload that does not fit fails with the topic and what is wrong", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(Outgoing.prepare(Orders, { id: "o-1", total: 0 }, "shop"))
      if (reason._tag !== "InvalidPayload") return assert.fail(reason._tag)
      assert.strictEqual(reason.topic, "orders")
      assert.include(reason.message, "The payload for \"orders\" does not encode")
      assert.include(reason.detail, "greater than 0")
      assert.include(reason.detail, "total")
    }))

  it.effect("an instance that was made invalid afterwards fails, too", () =>
    Effect.gen(function*() {
      const broken = Object.assign(new Order({ id: "o-1", total: 5 }), { total: "many" })
      const reason = yield* reasonOf(Outgoing.prepare(Orders, broken, "shop"))
      assert.strictEqual(reason._tag, "InvalidPayload")
    }))

  it.effect("a codec that throws is a typed error", () =>
    Effect.gen(function*() {
      const codec = {
        contentType: "text/plain",
        encode: () => {
          throw new Error("cannot")
        },
        decode: () => undefined
      }
      const reason = yield* reasonOf(Outgoing.prepare(Topic.make("orders", { schema: Order, codec }), order, "shop"))
      if (reason._tag !== "InvalidPayload") return assert.fail(reason._tag)
      assert.strictEqual(reason.detail, "cannot")
    }))

  it.effect("null of a schema that takes null is a tombstone", () =>
    Effect.gen(function*() {
      const topic = Topic.make("orders", { schema: Schema.NullOr(Order), key: (order) => order?.id ?? "gone" })
      const message = yield* Outgoing.prepare(topic, null, "shop")
      assert.isNull(message.value)
      assert.strictEqual(message.key, "gone")
      assert.strictEqual(decoded(yield* Outgoing.prepare(topic, order, "shop")) === null, false)
    }))

  it.effect("null of another schema is invalid", () =>
    Effect.gen(function*() {
      const reason = yield* reasonOf(Outgoing.prepare(Orders, null as never, "shop"))
      assert.strictEqual(reason._tag, "InvalidPayload")
    }))

  it.effect("of many, the first that does not encode fails them all", () =>
    Effect.gen(function*() {
      const all = [order, { id: "o-2", total: -1 }, order]
      const reason = yield* reasonOf(Outgoing.prepareAll(Orders, all, "shop"))
      assert.strictEqual(reason._tag, "InvalidPayload")
      const good = yield* Outgoing.prepareAll(Orders, [order, { id: "o-2", total: 1 }], "shop")
      assert.deepStrictEqual(good.map(({ key }) => key), ["customer of o-1", "customer of o-2"])
      assert.notStrictEqual(good[0]!.id, good[1]!.id)
    }))
})

describe("topics", () => {
  it.effect("that cannot exist are a typed error that names the rule", () =>
    Effect.gen(function*() {
      for (const name of ["", "a b", "x".repeat(250), "..", "größe"]) {
        const reason = yield* reasonOf(Outgoing.prepare(Topic.make(name, { schema: Order }), order, "shop"))
        assert.strictEqual(reason._tag, "InvalidTopic", name)
        assert.include(reason.message, "Change the name in Topic.make.")
      }
    }))
})

describe("size", () => {
  it.effect("counts key, value and headers in UTF-8, and the limit itself is allowed", () =>
    Effect.gen(function*() {
      const topic = (maxBytes?: number) =>
        Topic.make("orders", { schema: Schema.Struct({ text: Schema.String }), key: () => "schlüssel", maxBytes })
      const options = { id: "id-1", headers: { größe: "€" } }
      const message = yield* Outgoing.prepare(topic(), { text: "ä" }, "shop", options)
      const expected = Buffer.byteLength("schlüssel") + message.value!.length +
        Object.entries(message.headers).reduce(
          (sum, [name, value]) => sum + Buffer.byteLength(name) + Buffer.byteLength(value),
          0
        )
      assert.strictEqual(message.bytes, expected)
      yield* Outgoing.prepare(topic(expected), { text: "ä" }, "shop", options)
      const reason = yield* reasonOf(Outgoing.prepare(topic(expected - 1), { text: "ä" }, "shop", options))
      if (reason._tag !== "PayloadTooLarge") return assert.fail(reason._tag)
      assert.strictEqual(reason.bytes, expected)
      assert.strictEqual(reason.maxBytes, expected - 1)
      assert.include(reason.message, `has ${expected} bytes, ${expected - 1} are allowed`)
    }))

  it.effect("is limited to a million bytes by default", () =>
    Effect.gen(function*() {
      const topic = Topic.make("orders", { schema: Schema.String })
      yield* Outgoing.prepare(topic, "x".repeat(999_000), "shop")
      const reason = yield* reasonOf(Outgoing.prepare(topic, "x".repeat(1_000_000), "shop"))
      assert.strictEqual(reason._tag, "PayloadTooLarge")
    }))
})

describe("keys", () => {
  const keyed = (key: ((payload: { readonly k: string | null }) => string | null | undefined) | undefined) =>
    Topic.make("orders", { schema: Schema.Struct({ k: Schema.NullOr(Schema.String) }), key })

  it.effect("without a key function there is none", () =>
    Effect.gen(function*() {
      const message = yield* Outgoing.prepare(keyed(undefined), { k: "a" }, "shop")
      assert.isNull(message.key)
      assert.notProperty(message.headers, "ce_subject")
    }))

  it.effect("null and undefined mean none; the empty text is a key", () =>
    Effect.gen(function*() {
      assert.isNull((yield* Outgoing.prepare(keyed(() => null), { k: "a" }, "shop")).key)
      assert.isNull((yield* Outgoing.prepare(keyed(() => undefined), { k: "a" }, "shop")).key)
      const empty = yield* Outgoing.prepare(keyed(() => ""), { k: "a" }, "shop")
      assert.strictEqual(empty.key, "")
      assert.strictEqual(empty.headers.ce_subject, "")
    }))

  it.effect("a call's own key goes before the topic's, null as well", () =>
    Effect.gen(function*() {
      const topic = keyed((payload) => payload.k)
      assert.strictEqual((yield* Outgoing.prepare(topic, { k: "a" }, "shop")).key, "a")
      assert.strictEqual((yield* Outgoing.prepare(topic, { k: "a" }, "shop", { key: "b" })).key, "b")
      assert.isNull((yield* Outgoing.prepare(topic, { k: "a" }, "shop", { key: null })).key)
      assert.strictEqual((yield* Outgoing.prepare(topic, { k: "a" }, "shop", { key: undefined })).key, "a")
    }))
})

describe("headers", () => {
  it.effect("say id, type, source, time, key and media type", () =>
    Effect.gen(function*() {
      yield* TestClock.setTime(1_000)
      const message = yield* Outgoing.prepare(Orders, order, "shop", { id: "my-id" })
      assert.strictEqual(message.id, "my-id")
      assert.deepStrictEqual(message.headers, {
        ce_specversion: "1.0",
        ce_id: "my-id",
        ce_type: "Order",
        ce_source: "shop",
        ce_time: "1970-01-01T00:00:01.000Z",
        ce_subject: "customer of o-1",
        "content-type": "application/json"
      })
    }))

  it.effect("name the topic's own type and data schema", () =>
    Effect.gen(function*() {
      const topic = Topic.make("orders", { schema: Order, type: "order.placed", dataSchema: "https://schema" })
      const { headers } = yield* Outgoing.prepare(topic, order, "shop")
      assert.strictEqual(headers.ce_type, "order.placed")
      assert.strictEqual(headers.ce_dataschema, "https://schema")
      const anonymous = Topic.make("orders", { schema: Schema.Struct({}) })
      assert.strictEqual((yield* Outgoing.prepare(anonymous, {}, "shop")).headers.ce_type, "orders")
    }))

  it.effect("leave the source open if nobody knows it yet", () =>
    Effect.gen(function*() {
      assert.notProperty((yield* Outgoing.prepare(Orders, order, undefined)).headers, "ce_source")
    }))

  it.effect("get a new UUIDv7 as id, unlike any other", () =>
    Effect.gen(function*() {
      const a = yield* Outgoing.prepare(Orders, order, "shop")
      const b = yield* Outgoing.prepare(Orders, order, "shop")
      assert.match(a.id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
      assert.strictEqual(a.headers.ce_id, a.id)
      assert.notStrictEqual(a.id, b.id)
    }))

  it.effect("a caller's own go along, but never in place of the envelope's", () =>
    Effect.gen(function*() {
      const { headers } = yield* Outgoing.prepare(Orders, order, "shop", {
        id: "my-id",
        headers: {
          tenant: "a",
          ce_id: "forged",
          ce_anything: "forged",
          "content-type": "forged",
          "Content-Type": "forged",
          dl_original_topic: "forged",
          traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        }
      })
      assert.strictEqual(headers.tenant, "a")
      assert.strictEqual(headers.ce_id, "my-id")
      assert.notInclude(Object.values(headers), "forged")
      assert.strictEqual(headers.traceparent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    }))
})

describe("causes", () => {
  it.effect("without one nothing is said about it", () =>
    Effect.gen(function*() {
      const { headers } = yield* Outgoing.prepare(Orders, order, "shop")
      assert.doesNotHaveAnyKeys(headers, ["ce_causationid", "ce_correlationid", "traceparent"])
    }))

  it.effect("the event of the running handler is the cause, and begins a correlation", () =>
    Effect.gen(function*() {
      const { headers } = yield* Outgoing.prepare(Orders, order, "shop").pipe(
        Effect.provideService(Event.Current, eventWith({ ce_id: "cause-1" }))
      )
      assert.strictEqual(headers.ce_causationid, "cause-1")
      assert.strictEqual(headers.ce_correlationid, "cause-1")
      assert.notProperty(headers, "traceparent")
    }))

  it.effect("a correlation goes on from event to event", () =>
    Effect.gen(function*() {
      const cause = eventWith({ ce_id: "cause-2", ce_correlationid: Buffer.from("first"), traceparent: parent })
      const { headers } = yield* Outgoing.prepare(Orders, order, "shop", { cause })
      assert.strictEqual(headers.ce_causationid, "cause-2")
      assert.strictEqual(headers.ce_correlationid, "first")
      assert.strictEqual(headers.traceparent, parent)
    }))

  it.effect("the cause that a call names goes before the handler's event", () =>
    Effect.gen(function*() {
      const { headers } = yield* Outgoing.prepare(Orders, order, "shop", { cause: eventWith({ ce_id: "named" }) }).pipe(
        Effect.provideService(Event.Current, eventWith({ ce_id: "current" }))
      )
      assert.strictEqual(headers.ce_causationid, "named")
    }))

  it.effect("all events of one call have the same cause", () =>
    Effect.gen(function*() {
      const all = yield* Outgoing.prepareAll(Orders, [order, order], "shop", { cause: eventWith({ ce_id: "named" }) })
      assert.deepStrictEqual(all.map(({ headers }) => headers.ce_causationid), ["named", "named"])
    }))

  it.effect("the running span is the trace parent, before the cause's", () =>
    Effect.gen(function*() {
      const [span, { headers }] = yield* Effect.all([
        Effect.currentSpan,
        Outgoing.prepare(Orders, order, "shop", { cause: eventWith({ ce_id: "c", traceparent: parent }) })
      ]).pipe(Effect.withSpan("publishing"))
      assert.deepStrictEqual(parse(headers.traceparent!), {
        traceId: span.traceId,
        spanId: span.spanId,
        sampled: span.sampled
      })
    }))
})

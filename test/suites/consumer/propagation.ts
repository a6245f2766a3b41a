/** Cause, correlation and trace: what an event takes over from the one that caused it. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"
import { Broker } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import * as Event from "../../../src/Event.ts"
import * as Outbox from "../../../src/Outbox.ts"
import * as Publisher from "../../../src/Publisher.ts"
import { cases, type It } from "../features.ts"
import {
  blocking,
  freshGroup,
  freshTopic,
  type FrontFeatures,
  Item,
  items,
  type ItemTopic,
  makeLog,
  member,
  publishAll,
  relay,
  type Services
} from "./support.ts"

interface Seen {
  readonly hop: string
  readonly id: string
  readonly cause: string | undefined
  readonly correlation: string | undefined
  readonly trace: string | undefined
  readonly source: string
}

const traceId = "0af7651916cd43dd8448eb211c80319c"
const spanId = "b7ad6b7169203331"

export const propagation = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  const seenOf = (hop: string, event: Event.Event<Item>): Seen => ({
    hop,
    id: event.id,
    cause: Event.header(event, "ce_causationid"),
    correlation: Event.header(event, "ce_correlationid"),
    trace: Event.header(event, "traceparent"),
    source: event.source
  })

  const inTrace = Effect.withParentSpan(Tracer.externalSpan({ traceId, spanId, sampled: true }))

  /** Publishes a root event of its own id, within a trace. */
  const publishRoot = (topic: ItemTopic) => Publisher.publish(topic, { key: "k", n: 0 }, { id: "root" }).pipe(inTrace)

  const atEnd = (topic: ItemTopic, log: ReturnType<typeof makeLog<Seen>>) =>
    Consumer.idempotent(topic, (event) => log.add(seenOf("third", event)), { onFailure: blocking })

  const check3Hops = (log: ReturnType<typeof makeLog<Seen>>, source: string) => {
    const [first, second, third] = ["first", "second", "third"].map((hop) => {
      const found = log.all.filter((seen) => seen.hop === hop)
      assert.strictEqual(found.length, 1, hop)
      return found[0]!
    })
    assert.deepStrictEqual([first!.id, first!.cause, first!.correlation], ["root", undefined, undefined])
    assert.deepStrictEqual([second!.cause, second!.correlation], ["root", "root"])
    assert.deepStrictEqual([third!.cause, third!.correlation], [second!.id, "root"])
    assert.strictEqual(first!.trace, `00-${traceId}-${spanId}-01`)
    for (const seen of [second!, third!]) assert.strictEqual(seen.trace?.slice(3, 35), traceId, seen.hop)
    assert.deepStrictEqual([first!.source, second!.source, third!.source], [source, source, source])
    assert.strictEqual(new Set([first!.id, second!.id, third!.id]).size, 3)
  }

  check(
    "an event published by a handler names its cause, and correlation and trace reach the third hop",
    () =>
      Effect.gen(function*() {
        const [one, two, three] = [yield* freshTopic(1), yield* freshTopic(1), yield* freshTopic(1)]
        const group = yield* freshGroup
        const log = makeLog<Seen>()
        const { source } = yield* Broker
        const forward = (from: ItemTopic, to: ItemTopic, hop: string) =>
          Consumer.idempotent(
            from,
            (event) =>
              Effect.andThen(
                log.add(seenOf(hop, event)),
                Effect.withSpan(Publisher.publish(to, event.payload), "forward")
              ),
            { onFailure: blocking }
          )
        yield* member(group, [forward(one, two, "first"), forward(two, three, "second"), atEnd(three, log)])
        yield* publishRoot(one)
        yield* log.untilCount(3)
        check3Hops(log, source)
      })
  )

  check(
    "an event published through the outbox by an exactlyOnce handler carries the same, and the relay's source",
    () =>
      Effect.gen(function*() {
        const [one, two, three] = [yield* freshTopic(1), yield* freshTopic(1), yield* freshTopic(1)]
        const group = yield* freshGroup
        const log = makeLog<Seen>()
        const { source } = yield* Broker
        const forward = (from: ItemTopic, to: ItemTopic, hop: string) =>
          Consumer.exactlyOnce(
            from,
            (event) =>
              Effect.andThen(
                log.add(seenOf(hop, event)),
                Effect.withSpan(Outbox.publish(to, event.payload), "forward")
              ),
            { onFailure: blocking }
          )
        yield* member(group, [forward(one, two, "first"), forward(two, three, "second"), atEnd(three, log)])
        yield* relay()
        yield* publishRoot(one)
        yield* log.untilCount(3)
        check3Hops(log, source)
      })
  )

  check("a batch handler names the cause of what it publishes by itself", () =>
    Effect.gen(function*() {
      const [one, two] = [yield* freshTopic(1), yield* freshTopic(1)]
      const group = yield* freshGroup
      const log = makeLog<Seen>()
      yield* member(group, [
        Consumer.idempotentBatch(one, (events) =>
          Effect.forEach(events, (event) =>
            Effect.andThen(
              log.add(seenOf("first", event)),
              Publisher.publish(two, event.payload, event.payload.n === 0 ? { cause: event } : {})
            ), { discard: true }), { onFailure: blocking }),
        Consumer.idempotent(two, (event) => log.add(seenOf(`second ${event.payload.n}`, event)), {
          onFailure: blocking
        })
      ])
      yield* publishAll(one, items(2, 1))
      yield* log.untilCount(4)
      const root = log.all.find((seen) => seen.hop === "first")!
      const named = log.all.find((seen) => seen.hop === "second 0")!
      const silent = log.all.find((seen) => seen.hop === "second 1")!
      assert.deepStrictEqual([named.cause, named.correlation], [root.id, root.id])
      assert.deepStrictEqual([silent.cause, silent.correlation], [undefined, undefined])
    }))

  check("headers of the caller travel, and cannot replace those of the envelope", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const log = makeLog<Event.Event<Item>>()
      yield* Publisher.publish(topic, new Item({ key: "k", n: 1 }), {
        id: "mine",
        headers: { tenant: "t-1", ce_id: "forged", "content-type": "text/plain" }
      })
      yield* member(group, [Consumer.idempotent(topic, (event) => log.add(event), { onFailure: blocking })])
      yield* log.untilCount(1)
      const event = log.all[0]!
      assert.strictEqual(event.id, "mine")
      assert.strictEqual(Event.header(event, "tenant"), "t-1")
      assert.strictEqual(Event.header(event, "content-type"), "application/json")
      assert.strictEqual(Event.header(event, "ce_subject"), "k")
      assert.strictEqual(Event.header(event, "ce_specversion"), "1.0")
    }))
}

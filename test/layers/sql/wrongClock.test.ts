/** Relays whose clocks are wrong by an hour: leases are on the database's clock, and deadlines on a monotonic one. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Memory from "../../../src/Layers/Memory.ts"
import * as SqlStore from "../../../src/Layers/SqlStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import { freshTopic, Item, numbers, recordsOf, relayed, silent, upTo } from "../../suites/consumer/support.ts"
import { askUntil } from "../../suites/features.ts"
import { requireOrSkip } from "../../support/services.ts"
import { freshSchema, postgres } from "./databases.ts"

const services = Layer.unwrap(
  Effect.map(
    freshSchema,
    (schema) =>
      Layer.mergeAll(SqlStore.layerWith({ schema }).pipe(Layer.provideMerge(postgres())), Memory.layerBroker, silent)
  )
)

/** A clock that is wrong by so much, and right about what has passed. */
const wrongBy = (duration: Duration.Duration) =>
  Effect.map(Clock.Clock, (clock): Clock.Clock => {
    const millis = Duration.toMillis(duration)
    const nanos = BigInt(millis) * 1_000_000n
    return Object.assign(Object.create(clock) as Clock.Clock, {
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + millis,
      currentTimeMillis: Effect.map(clock.currentTimeMillis, (now) => now + millis),
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe() + nanos,
      currentTimeNanos: Effect.map(clock.currentTimeNanos, (now) => now + nanos)
    })
  })

const relayWrongBy = (duration: Duration.Duration) =>
  Effect.flatMap(
    wrongBy(duration),
    (clock) =>
      Layer.build(Outbox.layerRelay({ lease: "2 seconds", batchSize: 20 })).pipe(
        Effect.provideService(Clock.Clock, clock)
      )
  )

describe.skipIf(requireOrSkip("postgres"))("relays with wrong clocks", () => {
  it.live("share the parts for several leases, and send each event once, in the order of its key", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const [keys, perKey] = [8, 40]
      for (const hours of [1, -1, 0]) yield* relayWrongBy(Duration.hours(hours))
      const shared = askUntil(
        { clock: "live" },
        "all three have a share",
        Outbox.state,
        ({ parts }) => new Set(parts.flatMap(({ owner }) => owner ?? [])).size === 3
      )
      yield* shared
      yield* Effect.forEach(upTo(keys), (key) =>
        Effect.forEach(upTo(perKey), (n) =>
          Effect.andThen(
            Outbox.transaction(Outbox.publish(topic, new Item({ key: `key-${key}`, n }))),
            // Two leases and more, all in all.
            Effect.sleep("120 millis")
          ), { discard: true }), { concurrency: "unbounded", discard: true })
      yield* relayed
      yield* shared
      const sent = (yield* recordsOf(topic.name, 2)).map(({ value }) =>
        JSON.parse(Buffer.from(value!).toString()) as Item
      )
      for (const key of upTo(keys)) {
        assert.deepStrictEqual(numbers(sent.filter((item) => item.key === `key-${key}`)), upTo(perKey))
      }
    }).pipe(Effect.scoped, Effect.provide(services)))
})

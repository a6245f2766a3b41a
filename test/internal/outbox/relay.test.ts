/** The relay's loop, beside what the suites say of it. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as TestClock from "effect/testing/TestClock"
import { Broker } from "../../../src/Broker.ts"
import * as Relay from "../../../src/internal/outbox/relay.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import { MessageStore, MessageStoreError, StoreUnreachable } from "../../../src/MessageStore.ts"

const lease = Duration.seconds(15)

describe("a relay", () => {
  it.effect("whose leases cannot be renewed stops reading when they end, and goes on once they can", () =>
    Effect.gen(function*() {
      const store = yield* MessageStore
      let reads = 0
      let isDown = false
      const down = Effect.fail(
        new MessageStoreError({
          reason: new StoreUnreachable({ operation: "renew", detail: "down", cause: undefined })
        })
      )
      yield* Relay.start({
        broker: yield* Broker,
        store: {
          ...store,
          leases: { ...store.leases, hold: (options) => isDown ? down : store.leases.hold(options) },
          outbox: { ...store.outbox, read: (options) => Effect.suspend(() => (reads++, store.outbox.read(options))) }
        },
        settings: { lease, batchSize: 500, patience: Duration.minutes(5) }
      })
      const readsIn = (duration: Duration.Duration) =>
        Effect.suspend(() => {
          const before = reads
          return Effect.map(TestClock.adjust(duration), () => reads - before)
        })
      assert.isAbove(yield* readsIn(lease), 5)
      isDown = true
      yield* TestClock.adjust(lease)
      assert.strictEqual(yield* readsIn(lease), 0)
      isDown = false
      yield* TestClock.adjust(lease)
      assert.isAbove(yield* readsIn(lease), 5)
    }).pipe(Effect.scoped, Effect.provide(Memory.layer)))
})

/** The relay's loop, beside what the suites say of it. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import { Broker } from "../../../src/Broker.ts"
import * as Relay from "../../../src/internal/outbox/relay.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import { Conflict, MessageStore, MessageStoreError, StoreUnreachable } from "../../../src/MessageStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import * as Topic from "../../../src/Topic.ts"
import { freshTopic, Item } from "../../suites/consumer/support.ts"
import { askUntil } from "../../suites/features.ts"

const lease = Duration.seconds(15)
const settings: Relay.Settings = { lease, batchSize: 500, patience: Duration.minutes(5), keep: undefined }

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
        settings
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

  it.effect("that loses a race when it deletes does so again, and sends nothing once more", () =>
    Effect.gen(function*() {
      const store = yield* MessageStore
      const topic = yield* freshTopic(1)
      const broker = yield* Broker
      let sent = 0
      let tries = 0
      const lost = Effect.fail(
        new MessageStoreError({ reason: new Conflict({ operation: "remove", detail: "deadlock", cause: undefined }) })
      )
      yield* Relay.start({
        broker: {
          ...broker,
          producer: Effect.map(broker.producer, (producer) => ({
            ...producer,
            send: (batch) => Effect.andThen(Effect.sync(() => sent++), producer.send(batch))
          }))
        },
        store: {
          ...store,
          outbox: {
            ...store.outbox,
            remove: (request) => Effect.suspend(() => ++tries < 4 ? lost : store.outbox.remove(request))
          }
        },
        settings
      })
      yield* Outbox.transaction(Outbox.publish(topic, new Item({ key: "k", n: 1 })))
      yield* askUntil({ clock: "test" }, "it is sent", Outbox.state, ({ waiting }) => waiting === 0)
      assert.strictEqual(tries, 4)
      assert.strictEqual(sent, 1)
    }).pipe(Effect.scoped, Effect.provide(Memory.layer)))

  it.effect("that meets large rows reads few of them at once, and sends all", () =>
    Effect.gen(function*() {
      const store = yield* MessageStore
      const Notes = Topic.make("notes", {
        schema: Schema.Struct({ note: Schema.String }),
        key: ({ note }) => note.slice(0, 8),
        create: { partitions: 1 }
      })
      yield* Broker.use((broker) => broker.ensureTopics([Notes]))
      const read: Array<number> = []
      const large = 500_000
      const noteOf = (n: number) => ({ note: String(n).padEnd(large, "x") })
      yield* Outbox.transaction(Outbox.publishAll(Notes, Array.from({ length: 200 }, (_, n) => noteOf(n))))
      yield* Relay.start({
        broker: yield* Broker,
        store: {
          ...store,
          outbox: {
            ...store.outbox,
            read: (options) =>
              Effect.tap(store.outbox.read(options), (rows) => Effect.sync(() => read.push(rows.length)))
          }
        },
        settings
      })
      yield* askUntil({ clock: "test" }, "all are sent", Outbox.state, ({ waiting }) => waiting === 0)
      const [first, ...later] = read.filter((rows) => rows > 0)
      assert.strictEqual(first, 64)
      assert.isAtMost(Math.max(...later) * large, 8 * 1024 * 1024)
    }).pipe(Effect.scoped, Effect.provide(Memory.layer)))
})

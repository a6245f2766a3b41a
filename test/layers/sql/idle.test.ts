/** What a relay asks of the database while there is nothing to do, or nowhere to send it. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import * as TestClock from "effect/testing/TestClock"
import { BrokerError, Unreachable } from "../../../src/Broker.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import * as SqlStore from "../../../src/Layers/SqlStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import { freshTopic, items, silent, upTo } from "../../suites/consumer/support.ts"
import { sendingBroker } from "../../support/sendingBroker.ts"

let statements = 0

/** Counts what goes through the client; SQLite answers at once, so that the clock can be moved. */
const counted = Layer.effect(
  SqlClient.SqlClient,
  Effect.map(SqlClient.SqlClient, (sql) =>
    new Proxy(sql, {
      get: (target, key) =>
        key === "unsafe"
          ? (...args: Parameters<typeof sql.unsafe>) => {
            const statement = target.unsafe(...args)
            return Object.assign(
              Effect.suspend(() => {
                statements++
                return statement
              }),
              { unprepared: statement.unprepared }
            )
          }
          : Reflect.get(target, key)
    }))
).pipe(Layer.provide(SqliteClient.layer({ filename: ":memory:" })))

const services = SqlStore.layer.pipe(Layer.provideMerge(counted), Layer.merge(Memory.layerBroker), Layer.merge(silent))

const away = sendingBroker(() =>
  Effect.fail(
    new BrokerError({ reason: new Unreachable({ address: "memory", tried: "sending", cause: new Error("away") }) })
  )
)

/** In a minute, per second. */
const rate = Effect.gen(function*() {
  statements = 0
  for (const _ of upTo(600)) yield* TestClock.adjust("100 millis")
  return statements / 60
})

describe("a relay", () => {
  it.effect("that has nothing to send asks the database three times a second at most", () =>
    Effect.gen(function*() {
      yield* Layer.build(Outbox.layerRelay())
      yield* TestClock.adjust("10 seconds")
      const found = yield* rate
      assert.isAbove(found, 0.5)
      assert.isAtMost(found, 3)
    }).pipe(Effect.scoped, Effect.provide(services)))

  it.effect("whose broker is away does not hammer the database either", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      yield* Outbox.transaction(Outbox.publishAll(topic, items(1_000, 20)))
      yield* Layer.build(Outbox.layerRelay()).pipe(Effect.provide(away))
      yield* TestClock.adjust("30 seconds")
      assert.isAtMost(yield* rate, 3)
      assert.deepInclude(yield* Outbox.state, { waiting: 1_000, parked: 0 })
    }).pipe(Effect.scoped, Effect.provide(services)))
})

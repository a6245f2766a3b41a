/** A handler that writes where the store's transactions do not reach is refused before it runs. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import * as Consumer from "../../../src/Consumer.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import * as SqlStore from "../../../src/Layers/SqlStore.ts"
import * as Topic from "../../../src/Topic.ts"

const orders = Topic.make("orders", { schema: Schema.Struct({ id: Schema.String }) })
const write = Effect.fnUntraced(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`select 1`
})
const client = () => Layer.fresh(SqliteClient.layer({ filename: ":memory:" }))
const starts = <A, E, R>(consumers: Layer.Layer<A, E, R>) => Effect.scoped(Layer.build(consumers))
const consumers = Consumer.layer("billing", [Consumer.exactlyOnce(orders, write)])

const refused = <A, R>(effect: Effect.Effect<A, Consumer.ConsumerError, R>) =>
  Effect.gen(function*() {
    const { message, reason } = yield* Effect.flip(effect)
    assert.strictEqual(reason._tag, "OtherDatabase")
    assert.include(message, "Consumer \"orders\"")
    assert.include(message, "not the one that the message store")
  })

describe("an exactlyOnce consumer", () => {
  it.live("whose SqlClient is that of the store starts", () =>
    starts(consumers).pipe(
      Effect.provide(SqlStore.layer.pipe(Layer.provideMerge(client()), Layer.merge(Memory.layerBroker)))
    ))

  it.live("whose SqlClient is that of the store with other transforms starts, too", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Effect.provideService(starts(consumers), SqlClient.SqlClient, sql.withoutTransforms())
    }).pipe(
      Effect.provide(SqlStore.layer.pipe(Layer.provideMerge(client()), Layer.merge(Memory.layerBroker)))
    ))

  it.live("whose SqlClient is another one is refused", () =>
    refused(starts(consumers)).pipe(
      Effect.provide(
        Layer.mergeAll(SqlStore.layer.pipe(Layer.provide(client())), client(), Memory.layerBroker)
      ),
      Effect.orDie
    ))

  it.live("with a SqlClient and the store in memory is refused; an idempotent one starts", () =>
    Effect.andThen(
      refused(starts(consumers)),
      starts(Consumer.layer("billing", [Consumer.idempotent(orders, write)]))
    ).pipe(Effect.provide(Layer.merge(Memory.layer, client()))))
})

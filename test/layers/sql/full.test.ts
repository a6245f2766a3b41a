/** A database that is full: SQLite, whose room a test can limit. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as SqlClient from "effect/sql/SqlClient"
import { Broker } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import * as SqlStore from "../../../src/Layers/SqlStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import * as Publisher from "../../../src/Publisher.ts"
import * as Topic from "../../../src/Topic.ts"
import { makeLog, savingAtOnce, silent, upTo } from "../../suites/consumer/support.ts"
import { askUntil } from "../../suites/features.ts"

const live = { clock: "live" } as const
const Orders = Topic.make("orders", {
  schema: Schema.Struct({ n: Schema.Number, note: Schema.String }),
  create: { partitions: 1 }
})
const long = "x".repeat(500_000)

const services = SqlStore.layer.pipe(
  Layer.provideMerge(SqliteClient.layer({ filename: ":memory:" })),
  Layer.merge(Memory.layerBroker),
  Layer.merge(silent)
)

/** No page can be added to what is there. */
const fill = SqlClient.SqlClient.use((sql) => sql`pragma max_page_count = 1`)
const makeRoom = SqlClient.SqlClient.use((sql) => sql`pragma max_page_count = 1000000`)

const write = (text: string) => SqlClient.SqlClient.use((sql) => sql`insert into ledger (line) values (${text})`)
const lines = SqlClient.SqlClient.use((sql) =>
  Effect.map(sql<{ readonly line: string }>`select line from ledger`, (rows) => rows.map(({ line }) => line))
)

const onSqlite = <A, E, R>(body: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    yield* SqlClient.SqlClient.use((sql) => sql`create table ledger (line text not null)`)
    yield* Broker.use((broker) => broker.ensureTopics([Orders]))
    return yield* body
  }).pipe(Effect.scoped, Effect.provide(services))

describe("on a database that is full", () => {
  it.live("a transaction that publishes fails with StoreFull and keeps nothing, and what waits is sent", () =>
    onSqlite(Effect.gen(function*() {
      yield* Outbox.transaction(Outbox.publishAll(Orders, upTo(50).map((n) => ({ n, note: "" }))))
      yield* fill
      const place = Effect.andThen(write("placed"), Outbox.publish(Orders, { n: 50, note: long })).pipe(
        Outbox.transaction
      )
      const error = yield* Effect.flip(place)
      assert.strictEqual(error.reason._tag, "StoreFull")
      assert.include(error.message, "append to the outbox")
      assert.deepStrictEqual(yield* lines, [])
      yield* Layer.build(Outbox.layerRelay())
      yield* askUntil(live, "all is sent", Outbox.state, ({ waiting }) => waiting === 0)
      yield* makeRoom
      yield* place
      assert.deepStrictEqual(yield* lines, ["placed"])
    })))

  const applies = (handle: (line: string) => Effect.Effect<unknown, unknown, SqlClient.SqlClient>) =>
    onSqlite(Effect.gen(function*() {
      const calls = makeLog<string>()
      const consumer = Consumer.exactlyOnce(
        Orders,
        ({ payload: { n } }) => Effect.andThen(calls.add(String(n)), handle(`order ${n}`)),
        { onFailure: savingAtOnce }
      )
      yield* Layer.build(Consumer.layer("full", [consumer]))
      yield* fill
      yield* Publisher.publishAll(Orders, [{ n: 0, note: "" }, { n: 1, note: "" }])
      yield* calls.untilCount(4)
      assert.deepStrictEqual(yield* lines, [])
      yield* makeRoom
      yield* askUntil(live, "both are applied", lines, (found) => found.length >= 4)
      assert.deepStrictEqual((yield* lines).map((line) => line.slice(0, 13)).sort(), [
        "order 0 begun",
        "order 0 xxxxx",
        "order 1 begun",
        "order 1 xxxxx"
      ])
    }))

  it.live("an exactlyOnce handler without room for its writes is waited for, and its events are not given up on", () =>
    applies((order) => Effect.andThen(write(`${order} begun`), write(`${order} ${long}`))))

  it.live("a handler that swallows the error leaves nothing behind, and applies its events once when there is room", () =>
    applies((order) =>
      Effect.gen(function*() {
        yield* Effect.ignore(write(`${order} ${long}`))
        // SQLite has rolled back by now.
        yield* Effect.ignore(write(`${order} begun`))
      })
    ))
})

/** Handlers, the relay and its leases share a pool that is smaller than the slots. */
import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as SqlClient from "effect/sql/SqlClient"
import * as Consumer from "../../../src/Consumer.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import * as SqlStore from "../../../src/Layers/SqlStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import { freshTopic, Item, silent, upTo } from "../../suites/consumer/support.ts"
import { askUntil } from "../../suites/features.ts"
import { mariadbUrl, requireOrSkip } from "../../support/services.ts"
import { freshSchema, mariadb, postgres, urlOf } from "./databases.ts"

const live = { clock: "live" } as const
const connections = 2
const slots = 16
const events = 200

const onPostgres = Effect.map(freshSchema, (schema) =>
  SqlStore.layerWith({ schema }).pipe(
    Layer.provideMerge(postgres({ startupParameters: { search_path: schema }, maxConnections: connections }))
  ))

const onMariadb = Effect.map(mariadb.freshDatabase, (database) =>
  SqlStore.layer.pipe(
    Layer.provideMerge(MysqlClient.layer({
      url: Redacted.make(Redacted.value(urlOf((url) => (url.pathname = database), mariadbUrl))),
      maxConnections: connections
    }))
  ))

describe.skipIf(requireOrSkip("postgres", "mariadb"))(`with a pool of ${connections} and ${slots} slots`, () => {
  for (const [name, fresh] of [["Postgres", onPostgres], ["MariaDB", onMariadb]] as const) {
    it.live(`handlers, relay and leases all go on, on ${name}`, () =>
      Effect.gen(function*() {
        const store = yield* fresh
        yield* Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* sql`create table applied (n int not null)`
          const [first, second] = [yield* freshTopic(3), yield* freshTopic(3)]
          const apply = Consumer.exactlyOnce(second, ({ payload: { n } }) =>
            Effect.gen(function*() {
              yield* sql`insert into applied (n) values (${n})`
              yield* Effect.sleep("5 millis")
            }), { concurrency: slots, commit: "event" })
          const forward = Consumer.exactlyOnce(
            first,
            ({ payload }) => Outbox.publish(second, payload),
            { concurrency: slots, commit: "event" }
          )
          yield* Layer.build(Layer.merge(
            Consumer.layer("small", [apply, forward]),
            // Renewed three times a second, among all that wait for a connection.
            Outbox.layerRelay({ lease: "1 second" })
          ))
          yield* Outbox.transaction(
            Outbox.publishAll(first, upTo(events).map((n) => new Item({ key: `key-${n % 40}`, n })))
          )
          const applied = Effect.map(sql<{ readonly n: number }>`select n from applied`, (rows) =>
            rows.map(({ n }) => n).sort((a, b) => a - b))
          yield* askUntil(live, "all to be applied", applied, (found) =>
            found.length >= events)
          assert.deepStrictEqual(yield* applied, upTo(events))
        }).pipe(Effect.scoped, Effect.provide(Layer.mergeAll(store, Memory.layerBroker, silent)))
      }), 120_000)
  }
})

/** A connection that is cut at COMMIT: whether it was committed is found out, and not guessed. */
import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import * as Consumer from "../../../src/Consumer.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import * as SqlStore from "../../../src/Layers/SqlStore.ts"
import { MessageStore } from "../../../src/MessageStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import {
  ascending,
  deadLetters,
  freshGroup,
  freshTopic,
  Item,
  items,
  member,
  publishAll,
  savingAtOnce,
  silent,
  upTo
} from "../../suites/consumer/support.ts"
import { askUntil } from "../../suites/features.ts"
import { type Cutter, startCutter } from "../../support/cutter.ts"
import { mariadbUrl, postgresUrl, requireOrSkip } from "../../support/services.ts"
import { freshSchema, mariadb, postgres, urlOf } from "./databases.ts"

/** A client by way of a cutter, on tables of its own. */
const databases = [
  {
    name: "Postgres",
    skip: requireOrSkip("postgres"),
    open: Effect.gen(function*() {
      const cutter = yield* startCutter(postgresUrl!)
      const schema = yield* freshSchema
      const client = postgres({
        url: urlOf(() => {}, cutter.through(postgresUrl!)),
        startupParameters: { search_path: schema }
      })
      return { cutter, client, options: { schema } }
    })
  },
  {
    name: "MariaDB",
    skip: mariadb.skip,
    open: Effect.gen(function*() {
      const cutter = yield* startCutter(mariadbUrl!)
      const database = yield* mariadb.freshDatabase
      const client = MysqlClient.layer({ url: urlOf((url) => (url.pathname = database), cutter.through(mariadbUrl!)) })
      return { cutter, client, options: {} }
    })
  }
] as const

const live = { clock: "live" } as const

const applied = SqlClient.SqlClient.use((sql) =>
  Effect.map(sql<{ n: number }>`select n from applied order by n`, (rows) => rows.map(({ n }) => n))
)

for (const { name, open, skip } of databases) {
  describe.skipIf(skip)(`a connection to ${name} that is cut at COMMIT`, () => {
    const withCutter = <A, E>(
      use: (cutter: Cutter) => Effect.Effect<A, E, any>
    ) =>
      Effect.gen(function*() {
        const { client, cutter, options } = yield* open
        const services = Layer.mergeAll(
          SqlStore.layerWith(options).pipe(Layer.provideMerge(client)),
          Memory.layerBroker,
          silent
        )
        yield* Effect.andThen(
          SqlClient.SqlClient.use((sql) => sql`create table applied (n int not null)`),
          use(cutter)
        ).pipe(Effect.scoped, Effect.provide(services))
      }).pipe(Effect.scoped)

    for (const what of ["request", "answer"] as const) {
      it.live(`before its ${what}: an exactlyOnce handler's writes are there once, and no attempt is counted`, () =>
        withCutter((cutter) =>
          Effect.gen(function*() {
            const topic = yield* freshTopic(2)
            const group = yield* freshGroup
            yield* member(group, [
              Consumer.exactlyOnce(topic, ({ payload: { n } }) =>
                SqlClient.SqlClient.use((sql) => sql`insert into applied (n) values (${n})`), {
                onFailure: savingAtOnce
              })
            ])
            yield* cutter.cut(what, 3)
            yield* publishAll(topic, items(20, 4))
            yield* askUntil(live, "all are applied", applied, (all) =>
              all.length >= 20)
            assert.strictEqual(cutter.left(), 0)
            yield* publishAll(topic, [new Item({ key: "k", n: 20 })])
            yield* askUntil(live, "it goes on", applied, (all) =>
              all.length >= 21)
            assert.deepStrictEqual(ascending(yield* applied), upTo(21))
            assert.isEmpty(yield* deadLetters(topic, group))
          })
        ))

      it.live(`before its ${what}: Outbox.transaction fails as unreachable, and never runs twice by itself`, () =>
        withCutter((cutter) =>
          Effect.gen(function*() {
            const topic = yield* freshTopic(2)
            let runs = 0
            yield* cutter.cut(what, 1)
            const error = yield* Effect.flip(
              Effect.suspend(() => {
                runs++
                return Outbox.publish(topic, new Item({ key: "k", n: 0 }))
              }).pipe(Outbox.transaction)
            )
            assert.strictEqual(error._tag === "MessageStoreError" ? error.reason._tag : error, "StoreUnreachable")
            assert.strictEqual(runs, 1)
            const { waiting } = yield* MessageStore.use((store) => store.outbox.counts)
            assert.strictEqual(waiting, what === "answer" ? 1 : 0)
          })
        ))
    }
  })
}

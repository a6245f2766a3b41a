/** A transaction that stays open does not hold up the relay, in whatever database of the cluster. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import * as Memory from "../../../src/Layers/Memory.ts"
import * as SqlStore from "../../../src/Layers/SqlStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import { freshTopic, items, recordsOf, silent } from "../../suites/consumer/support.ts"
import { askUntil } from "../../suites/features.ts"
import { requireOrSkip } from "../../support/services.ts"
import { freshSchema, postgres, urlOf } from "./databases.ts"

const live = { clock: "live" } as const

/** Begins a transaction that has an id and a snapshot, and stays open until the scope closes. */
const lingering = Effect.fnUntraced(function*(change: (url: URL) => void) {
  const client = postgres({ url: urlOf(change), maxConnections: 1 })
  const begun = yield* Deferred.make<void>()
  yield* Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`select txid_current()`
    yield* Deferred.succeed(begun, undefined)
    return yield* Effect.never
  }).pipe(
    (open) => SqlClient.SqlClient.use((sql) => sql.withTransaction(open)),
    Effect.provide(client),
    Effect.forkScoped
  )
  yield* Deferred.await(begun)
})

const databases = [
  ["another database", (url: URL) => void (url.pathname = "/postgres")],
  ["the same database", () => {}]
] as const

describe.skipIf(requireOrSkip("postgres"))("a transaction that stays open", () => {
  for (const [where, change] of databases) {
    it.live(`in ${where} does not hold up what commits after it`, () =>
      Effect.gen(function*() {
        const schema = yield* freshSchema
        yield* lingering(change)
        yield* Effect.gen(function*() {
          const topic = yield* freshTopic(1)
          yield* Layer.build(Outbox.layerRelay())
          const publishing = yield* Effect.forkScoped(Outbox.transaction(Outbox.publishAll(topic, items(100, 5))))
          yield* Fiber.join(publishing)
          yield* askUntil(live, "all is sent", Outbox.state, ({ waiting }) => waiting === 0)
          assert.lengthOf(yield* recordsOf(topic.name, 1), 100)
        }).pipe(
          Effect.scoped,
          Effect.provide(
            SqlStore.layerWith({ schema }).pipe(
              Layer.provideMerge(postgres()),
              Layer.merge(Memory.layerBroker),
              Layer.merge(silent)
            )
          )
        )
      }))
  }
})

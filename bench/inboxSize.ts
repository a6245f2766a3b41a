/**
 * `inbox-size`: what it costs to claim a batch of messages when millions of
 * marks are there, against a few thousand.
 */
import { Effect, ManagedRuntime } from "effect"
import { MessageStore } from "effect-events"
import { SqlClient } from "effect/sql"
import { randomUUID } from "node:crypto"
import { postgres } from "./databases.ts"
import { alike, type Benchmark, measure, type Round, type Side, sized } from "./harness.ts"

const batch = 500
const batches = 40
const many = sized(5_000_000, 100_000)
const few = 10_000
const perStatement = 500_000

/** Marks with keys as UUIDv7 has them, of the last days. */
const fill = (table: string, consumer: number, marks: number) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    for (let from = 0; from < marks; from += perStatement) {
      yield* sql.unsafe(
        `insert into ${table} (consumer, message_key)
select $1, (lpad(to_hex(1790000000000 + n), 12, '0') || '7' || left(md5(n::text), 3) || '8' || right(md5(n::text), 15))::uuid
from generate_series($2::bigint, $3::bigint) as n`,
        [consumer, from, Math.min(marks, from + perStatement) - 1]
      )
    }
    yield* sql.unsafe(`vacuum analyze ${table}`)
  })

const prepare = async (marks: number): Promise<Side> => {
  const database = postgres()
  const runtime = ManagedRuntime.make(database.layer)
  const store = await runtime.runPromise(MessageStore.MessageStore)
  const consumer = await runtime.runPromise(store.inbox.consumer("bench", "inbox-size"))
  await runtime.runPromise(fill(database.inbox, consumer, marks))
  const claim = () =>
    store.transaction(store.inbox.claim(consumer, [randomUUID(), ...Array.from({ length: batch - 1 }, randomUUID)]))
  const round = (): Promise<Round> =>
    measure(batches * batch, () =>
      runtime.runPromise(
        Effect.gen(function*() {
          for (let i = 0; i < batches; i++) {
            const fresh = yield* claim()
            if (fresh.size !== batch) throw new Error(`${fresh.size} of ${batch} messages were new`)
          }
        })
      ))
  return { round, close: () => runtime.dispose() }
}

export const inboxSize: Benchmark = {
  name: "inbox-size pg",
  aim: 0.67,
  settings: {
    batch,
    batches,
    ours: `${many} marks are there`,
    twin: `the same with ${few} marks`
  },
  open: alike(prepare, many, few)
}

/**
 * `outbox-write-1`: a business transaction of three statements (lock, update,
 * insert) with one event, against the same transaction without; `-by-hand`:
 * against the same with an insert of that row that is written by hand.
 * `outbox-write-100`: with a hundred events, against the same transaction with
 * an insert of a hundred such rows that is written by hand.
 */
import { Effect } from "effect"
import { Outbox } from "effect-events"
import { SqlClient } from "effect/sql"
import { postgres } from "./databases.ts"
import { type Benchmark, measure, quiet, type Round, sized } from "./harness.ts"
import { headersOf, orderOf, topicOf } from "./orders.ts"

const topic = topicOf("orders")

interface Variant {
  readonly events: number
  readonly fibers: number
  readonly transactions: number
  readonly aim?: number
  readonly byHand?: boolean
}

const outboxWrite = ({ events, fibers, transactions, byHand = events > 1, ...aim }: Variant): Benchmark => ({
  name: `outbox-write-${events}${byHand && events === 1 ? "-by-hand" : ""} pg ${
    fibers === 1 ? "1 fiber" : `${fibers} fibers`
  }`,
  ...aim,
  ...(fibers === 1 ? {} : { short: 2 }),
  settings: {
    transactions,
    events,
    fibers,
    payloadBytes: 200,
    database: "Postgres, pool of 10",
    ours: `Outbox.transaction: lock, update, insert, ${events} × Outbox.publish`,
    twin: "sql.withTransaction: lock, update, insert" + (byHand ? ", and one insert of as many rows" : "")
  },
  open: () =>
    Promise.resolve({
      ours: () => round(transactions, fibers, ours(events)),
      twin: () => round(transactions, fibers, twin(events, byHand)),
      close: () => Promise.resolve()
    })
})

export const outboxWrites = [
  outboxWrite({ events: 1, fibers: 1, transactions: 1_500, aim: 0.71 }),
  outboxWrite({ events: 1, fibers: 16, transactions: sized(4_000, 1_000), aim: 0.71 }),
  outboxWrite({ events: 1, fibers: 1, transactions: 1_500, byHand: true }),
  outboxWrite({ events: 1, fibers: 16, transactions: sized(4_000, 1_000), byHand: true }),
  outboxWrite({ events: 100, fibers: 1, transactions: 300, aim: 0.8 }),
  outboxWrite({ events: 100, fibers: 16, transactions: sized(600, 100), aim: 0.8 })
]

type Write = (n: number) => Effect.Effect<unknown, unknown, SqlClient.SqlClient | Effect.Services<typeof publishing>>

/** Names what publishing asks for. */
const publishing = Outbox.transaction(Outbox.publish(topic, orderOf(0)))

const round = (transactions: number, fibers: number, write: Write): Promise<Round> => {
  const { layer } = postgres()
  return measure(transactions, (started) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`create table account (id int primary key, balance int not null)`
      yield* sql`insert into account select n, 0 from generate_series(0, 999) as n`
      yield* sql`create table entry (id bigint generated always as identity primary key, account int, amount int)`
      yield* sql`create table event (part smallint not null, id bigint generated always as identity,
        message_id uuid not null, topic text not null, key text, headers json not null, payload bytea,
        created_at timestamptz not null default clock_timestamp(), primary key (part, id))`
      yield* Effect.forEach(Array.from({ length: 50 }, (_, n) => n), write, { concurrency: fibers, discard: true })
      started()
      yield* Effect.forEach(Array.from({ length: transactions }, (_, n) => n), write, {
        concurrency: fibers,
        discard: true
      })
      const [found] = yield* sql<{ count: number }>`select count(*)::int as count from entry`
      if (found!.count !== transactions + 50) throw new Error(`${found!.count} transactions have committed`)
    }).pipe(Effect.provide(layer), quiet, Effect.runPromise))
}

const business = (n: number) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const id = n * 7 % 1_000
    yield* sql`select balance from account where id = ${id} for update`
    yield* sql`update account set balance = balance + 1 where id = ${id}`
    yield* sql`insert into entry (account, amount) values (${id}, 1)`
  })

const ordersOf = (n: number, events: number) => Array.from({ length: events }, (_, i) => orderOf(n * events + i))

const ours = (events: number): Write => (n) =>
  Effect.andThen(business(n), Outbox.publishAll(topic, ordersOf(n, events))).pipe(Outbox.transaction)

const insert = `insert into event (part, message_id, topic, key, headers, payload)
select part, message_id, topic, key, headers::json, payload
from unnest($1::smallint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[])
  as u(part, message_id, topic, key, headers, payload)`

const encoder = new TextEncoder()

const twin = (events: number, byHand: boolean): Write => (n) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* business(n)
    if (!byHand) return
    const rows = ordersOf(n, events).map((order, i) => ({ order, headers: headersOf(i) }))
    yield* sql.unsafe(insert, [
      rows.map((_, i) => i % 64),
      rows.map(({ headers }) => headers.ce_id),
      rows.map(() => "orders"),
      rows.map(({ order }) => order.customer),
      rows.map(({ headers }) => JSON.stringify(headers)),
      rows.map(({ order }) => encoder.encode(JSON.stringify(order)))
    ])
  }).pipe((transaction) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(transaction)))

/** The shop's own tables, and what they tell at the end. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"

export const create = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const identity = sql.literal(sql.onDialectOrElse({
    sqlite: () => "INTEGER PRIMARY KEY AUTOINCREMENT",
    orElse: () => "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
  }))
  yield* sql`CREATE TABLE customers (id VARCHAR(64) PRIMARY KEY, orders INTEGER NOT NULL)`
  yield* sql`CREATE TABLE orders (
    id VARCHAR(64) PRIMARY KEY, customer VARCHAR(64) NOT NULL, number INTEGER NOT NULL, total INTEGER NOT NULL)`
  yield* sql`CREATE TABLE invoice_log (
    id ${identity}, order_id VARCHAR(64) NOT NULL, customer VARCHAR(64) NOT NULL, number INTEGER NOT NULL)`
})

export const addCustomers = (customers: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const [first, ...rest] = customers.map((id) => ({ id, orders: 0 }))
    yield* sql`INSERT INTO customers ${sql.insert([first!, ...rest])}`
  })

interface Count {
  readonly n: number | bigint
}

const count = (rows: ReadonlyArray<Count>): number => Number(rows[0]!.n)

export const invoiced = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  return count(yield* sql<Count>`SELECT count(DISTINCT order_id) AS n FROM invoice_log`)
})

export interface Verdict {
  readonly placed: number
  readonly invoiced: number
  readonly lost: number
  readonly twice: number
  readonly outOfOrder: number
}

/** Computed from the tables alone, not from anything that the library counts. */
export const verdict = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const placed = count(yield* sql<Count>`SELECT count(*) AS n FROM orders`)
  const lost = count(
    yield* sql<
      Count
    >`SELECT count(*) AS n FROM orders o WHERE NOT EXISTS (SELECT 1 FROM invoice_log l WHERE l.order_id = o.id)`
  )
  const twice = count(yield* sql<Count>`SELECT count(*) - count(DISTINCT order_id) AS n FROM invoice_log`)
  const outOfOrder = count(
    yield* sql<Count>`SELECT count(*) AS n FROM (
      SELECT number, lag(number) OVER (PARTITION BY customer ORDER BY id) AS before FROM invoice_log
    ) AS pairs WHERE number < before`
  )
  return { placed, invoiced: yield* invoiced, lost, twice, outOfOrder } satisfies Verdict
})

export const line = (verdict: Verdict): string =>
  `placed=${verdict.placed} invoiced=${verdict.invoiced} ` +
  `lost=${verdict.lost} twice=${verdict.twice} out_of_order=${verdict.outOfOrder}`

export const isClean = (verdict: Verdict): boolean =>
  verdict.lost === 0 && verdict.twice === 0 && verdict.outOfOrder === 0

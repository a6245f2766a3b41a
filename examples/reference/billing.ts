/** What the shop does with an order. Nothing here knows of topics, offsets or retries. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import { Journal } from "./journal.ts"

interface Order {
  readonly orderId: string
  readonly customer: string
  readonly total: number
}

/** A second invoice for an order would violate the primary key. */
export const issueInvoice = (order: Order) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const journal = yield* Journal
    yield* sql`INSERT INTO invoices ${sql.insert({ order_id: order.orderId, total: order.total })}`
    yield* sql.afterCommit(journal.write("invoiced", order.orderId, `${order.total} to ${order.customer}`))
  })

/** Stands for a mail: it may be sent twice, and must be sent. */
export const notify = (order: Order) =>
  Journal.use((journal) => journal.write("notified", order.orderId, order.customer))

/** Stands for a screen in the office. */
export const show = (order: Order) =>
  Journal.use((journal) => journal.write("shown", order.orderId, `${order.customer} ordered`))

/** One statement for the whole batch: sums per customer. */
export const book = (orders: ReadonlyArray<Order>) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const journal = yield* Journal
    const customers = orders.map((order) => order.customer)
    const totals = orders.map((order) => order.total)
    yield* sql`
      INSERT INTO ledger (customer, orders, total)
      SELECT customer, count(*), sum(total) FROM unnest(${customers}::text[], ${totals}::int[]) AS batch (customer, total)
      GROUP BY customer
      ON CONFLICT (customer) DO UPDATE
      SET orders = ledger.orders + excluded.orders, total = ledger.total + excluded.total`
    yield* sql.afterCommit(
      Effect.forEach(
        orders,
        (order) => journal.write("booked", order.orderId, `with ${orders.length - 1} others`),
        { discard: true }
      )
    )
  })

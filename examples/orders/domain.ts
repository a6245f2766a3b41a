/**
 * The shop: orders are placed in transactions, and each is invoiced exactly
 * once. Nothing here knows which broker or database is underneath.
 */
import { Data, Effect, Schema } from "effect"
import { Consumer, Outbox, Topic } from "effect-events"
import { SqlClient } from "effect/sql"

export class OrderPlaced extends Schema.Class<OrderPlaced>("OrderPlaced")({
  orderId: Schema.String,
  customer: Schema.String,
  /** Counts the orders of one customer: 1, 2, 3, … */
  number: Schema.Number,
  total: Schema.Number
}) {}

export const Orders = Topic.make("orders.placed", {
  schema: OrderPlaced,
  key: (order) => order.customer,
  create: { partitions: 6 }
})

export class CardRefused extends Data.TaggedError("CardRefused")<{ readonly orderId: string }> {}

/**
 * Places an order: the customer's next number (under the row lock), the row
 * and the event, or none of them.
 */
export const placeOrder = (order: {
  readonly orderId: string
  readonly customer: string
  readonly total: number
  readonly cardRefused: boolean
}) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const [customer] = yield* sql<{ readonly orders: number }>`
      UPDATE customers SET orders = orders + 1 WHERE id = ${order.customer} RETURNING orders`
    const placed = new OrderPlaced({
      orderId: order.orderId,
      customer: order.customer,
      number: customer!.orders,
      total: order.total
    })
    yield* sql`INSERT INTO orders ${
      sql.insert({ id: placed.orderId, customer: placed.customer, number: placed.number, total: placed.total })
    }`
    yield* Outbox.publish(Orders, placed)
    if (order.cardRefused) return yield* new CardRefused({ orderId: order.orderId })
  }).pipe(Outbox.transaction)

/** The log has no unique constraint: an order that were invoiced twice would be in it twice. */
export const IssueInvoice = Consumer.exactlyOnce(Orders, (event) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const { customer, number, orderId } = event.payload
    yield* sql`INSERT INTO invoice_log ${sql.insert({ order_id: orderId, customer, number })}`
  }), { name: "issue-invoice" })

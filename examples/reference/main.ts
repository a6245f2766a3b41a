/**
 * The library on one page: a topic, a transaction that publishes, consumers in
 * three modes, and the ways to run them. It runs on Kafka and Postgres:
 *
 *     npm run services -- up kafka postgres
 *     node --conditions=effect-events-source examples/reference/main.ts
 *
 * KAFKA_BROKERS and POSTGRES_URL say where they are (default: localhost). Exit
 * code 0 means that the tables agree with what was published.
 */
import { PgClient } from "@effect/sql-pg"
import { Data, Effect, Layer, Schema, Stream } from "effect"
import type { Broker, ConsumerGroup, MessageStore } from "effect-events"
import { Consumer, FailurePolicy, Outbox, Publisher, Topic } from "effect-events"
import * as KafkaJs from "effect-events/Layers/KafkaJs"
import * as SqlStore from "effect-events/Layers/SqlStore"
import { SqlClient } from "effect/sql"
import { logging } from "../orders/logging.ts"
import { runMain } from "../support/runMain.ts"
import { book, issueInvoice, notify, show } from "./billing.ts"
import { Journal, print } from "./journal.ts"
import { brokers, createTables, createTopic, layerSchema, startupParameters, topicPrefix, url } from "./run.ts"

// --- what is published ---

class OrderPlaced extends Schema.Class<OrderPlaced>("OrderPlaced")({
  orderId: Schema.String,
  customer: Schema.String,
  total: Schema.Number
}) {}

const Orders = Topic.make("orders.placed", { schema: OrderPlaced, key: (order) => order.customer })

/** One transaction: the row and the event, or neither. */
const placeOrder = (order: OrderPlaced) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`INSERT INTO orders ${sql.insert({ id: order.orderId, total: order.total })}`
    yield* Outbox.publish(Orders, order)
  }).pipe(Outbox.transaction)

// --- who consumes it ---

/** The invoice and "this order is invoiced" commit together. */
const IssueInvoice = Consumer.exactlyOnce(Orders, (event) => issueInvoice(event.payload), { name: "issue-invoice" })

/** May run again for the same order, and never gives one up. */
const Notify = Consumer.idempotent(Orders, (event) => notify(event.payload), {
  name: "notify",
  onFailure: FailurePolicy.block()
})

/** Every running instance sees every order that is placed while it runs. */
const Screen = Consumer.broadcast(Orders, (event) => show(event.payload))

/** One transaction per batch, of what piled up while the last one ran. */
const Book = Consumer.exactlyOnceBatch(
  Orders,
  (events /* NonEmptyReadonlyArray */) => book(events.map((event) => event.payload)),
  { name: "book", batch: { maxSize: 100 } }
)

// --- a service ---

const Kafka = KafkaJs.layer({ brokers, topicPrefix, sessionTimeout: "6 seconds" })
const Postgres = PgClient.layer({ url, startupParameters })

/** `Layer.launch(Main)` would be the whole service. */
const Main = Layer.mergeAll(
  Consumer.layer("billing", [IssueInvoice, Notify]),
  Outbox.layerRelay()
).pipe(
  Layer.provide(SqlStore.layer), // ← Memory.layer in tests
  Layer.provide(Kafka),
  Layer.provide(Postgres)
)

/** Without a Layer: a consumer is an Effect, which consumes until interrupted. */
const consuming: Effect.Effect<
  never,
  Consumer.ConsumerError,
  ConsumerGroup.ConsumerGroup | Broker.Broker | MessageStore.MessageStore | SqlClient.SqlClient | Journal
> = IssueInvoice

// --- what happens ---

class CardRefused extends Data.TaggedError("CardRefused")<{ readonly orderId: string }> {}

const order = (orderId: string, customer: string, total: number) => new OrderPlaced({ orderId, customer, total })

/** Orders placed in transactions reach both handlers of the group, and each of two screens. */
const service = Effect.scoped(Effect.gen(function*() {
  yield* print("The service runs: three orders in transactions, and one that is rolled back")
  const journal = yield* Journal
  yield* Layer.build(Layer.mergeAll(Main, Consumer.layer("office", [Screen])))
  yield* placeOrder(order("o-1", "ada", 10))
  yield* placeOrder(order("o-2", "bob", 20))
  yield* placeOrder(order("o-3", "ada", 30))
  yield* placeOrder(order("o-4", "eve", 40)).pipe(
    Effect.andThen(Effect.fail(new CardRefused({ orderId: "o-4" }))),
    Outbox.transaction,
    Effect.catchTag("CardRefused", ({ orderId }) => print(`  refused   ${orderId}`))
  )
  yield* journal.until("invoiced", ["o-1", "o-2", "o-3"])
  yield* journal.until("notified", ["o-1", "o-2", "o-3"])
  yield* journal.until("shown", ["o-1", "o-2", "o-3"])
}))

/** Published at once: the answer is where the event lies. */
const publishing = Effect.gen(function*() {
  yield* print("Published without a transaction")
  const { offset, partition } = yield* Publisher.publish(Orders, order("o-5", "ada", 50))
  yield* print(`  published o-5  partition ${partition}, offset ${offset}`)
  const positions = yield* Publisher.publishAll(Orders, [order("o-6", "bob", 60), order("o-7", "cyd", 70)])
  yield* print(`  published ${positions.length} more, in order`)
})

/**
 * One consumer by itself; interrupting it is a graceful stop. Offsets belong to
 * the group, so Notify will not see these orders: handlers of one group belong
 * together, as in `service` and `together`.
 */
const alone = Effect.gen(function*() {
  yield* print("IssueInvoice by itself goes on where the group left off")
  const journal = yield* Journal
  yield* Effect.raceFirst(
    consuming.pipe(Consumer.inGroup("billing")),
    journal.until("invoiced", ["o-5", "o-6", "o-7"])
  )
})

/** One join of the group; both see each event. */
const together = Effect.gen(function*() {
  yield* print("Both again, as one Effect")
  const journal = yield* Journal
  yield* Publisher.publish(Orders, order("o-8", "bob", 80))
  yield* Effect.raceFirst(
    Consumer.all([IssueInvoice, Notify]).pipe(Consumer.inGroup("billing")),
    Effect.andThen(journal.until("invoiced", ["o-8"]), journal.until("notified", ["o-8"]))
  )
})

const published = ["o-1", "o-2", "o-3", "o-5", "o-6", "o-7", "o-8"]

/** A group that is new begins at the beginning. */
const batches = Effect.gen(function*() {
  yield* print("A new group reads all of them, in batches")
  const journal = yield* Journal
  yield* Effect.raceFirst(Book.pipe(Consumer.inGroup("accounting")), journal.until("booked", published))
})

/** The open form: a Stream of committable events, and its sink. */
const streaming = Effect.gen(function*() {
  yield* print("Another group reads them as a Stream")
  const journal = yield* Journal
  yield* Consumer.stream(Orders).pipe(
    Stream.tap(({ event }) => journal.write("audited", event.payload.orderId, `${event.type} ${event.id}`)),
    Stream.take(published.length),
    Stream.run(Consumer.commit),
    Consumer.inGroup("audit")
  )
})

/** Judged by the tables alone. */
const verdict = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly placed: string; readonly invoiced: string; readonly booked: string }>`
    SELECT
      (SELECT string_agg(id, ' ' ORDER BY id) FROM orders) AS placed,
      (SELECT string_agg(order_id, ' ' ORDER BY order_id) FROM invoices) AS invoiced,
      (SELECT string_agg(concat_ws(' ', customer, orders, total), ', ' ORDER BY customer) FROM ledger) AS booked`
  yield* print(`placed: ${row!.placed}\ninvoiced: ${row!.invoiced}\nbooked: ${row!.booked}`)
  return row!.placed === "o-1 o-2 o-3" &&
    row!.invoiced === published.join(" ") &&
    row!.booked === "ada 3 90, bob 3 160, cyd 1 70"
})

const program = Effect.gen(function*() {
  yield* createTables
  yield* createTopic(Orders.name)
  yield* service
  yield* publishing
  yield* alone
  yield* together
  yield* batches
  yield* streaming
  return (yield* verdict) ? 0 : 1
})

const Environment = SqlStore.layer.pipe(
  Layer.provideMerge(Layer.mergeAll(Kafka, Postgres, Journal.layer)),
  Layer.provideMerge(layerSchema),
  Layer.provideMerge(logging)
)

runMain(Effect.provide(program, Environment))

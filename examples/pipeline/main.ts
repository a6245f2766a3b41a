/**
 * A pipeline of one's own: orders go into a search index in bulk requests,
 * several at a time. The stream keeps the position on the broker, the pipeline
 * decides how the work is done.
 *
 *     node --conditions=effect-events-source examples/pipeline/main.ts
 *
 * Bulk requests end in any order, and the position never passes an order that
 * is not indexed: so the pipeline is cut off in the middle, started again, and
 * nothing is missing. What was in flight is indexed again, which an index does
 * not mind.
 *
 * Exit code 0 means that each order is in the index.
 */
import { Duration, Effect, Fiber, Random, Schema, Stream } from "effect"
import { Consumer, Publisher, Topic } from "effect-events"
import * as Memory from "effect-events/Layers/Memory"
import { logging } from "../orders/logging.ts"
import { runMain } from "../support/runMain.ts"

class OrderPlaced extends Schema.Class<OrderPlaced>("OrderPlaced")({ orderId: Schema.String, total: Schema.Number }) {}

const Orders = Topic.make("orders.placed", {
  schema: OrderPlaced,
  key: (order) => order.orderId,
  create: { partitions: 3 }
})

/** Stands for a search engine: orders by id, and how often it was given one that it had. */
const index = new Map<string, OrderPlaced>()
let again = 0

/** One bulk request, which takes a while. */
const indexAll = Effect.fnUntraced(function*(orders: ReadonlyArray<OrderPlaced>) {
  yield* Effect.sleep(Duration.millis(yield* Random.nextIntBetween(5, 60)))
  for (const order of orders) {
    if (index.has(order.orderId)) again++
    index.set(order.orderId, order)
  }
})

const indexing = Consumer.stream(Orders, { name: "search-index" }).pipe(
  // A request when 50 orders are there, or with what came within 100 ms.
  Stream.groupedWithin(50, "100 millis"),
  // Up to four at a time, and which ends first goes first.
  Stream.mapEffect((batch) => Effect.as(indexAll(batch.map(({ event }) => event.payload)), batch), {
    concurrency: 4,
    unordered: true
  }),
  Stream.flattenIterable,
  Stream.run(Consumer.commit),
  Consumer.inGroup("search")
)

/** Indexes until so many orders are there, and is cut off then, in the middle of whatever it does. */
const indexUntil = (orders: number) =>
  Effect.raceFirst(indexing, Effect.repeat(Effect.sleep("5 millis"), { until: () => index.size >= orders }))

const count = 5_000

const program = Effect.gen(function*() {
  const orders = Array.from({ length: count }, (_, i) => new OrderPlaced({ orderId: `order-${i}`, total: i }))
  // The first half ends in the middle; the second goes on where the position stands.
  const first = yield* Effect.forkChild(indexUntil(count / 2))
  yield* Publisher.publishAll(Orders, orders)
  yield* Fiber.join(first)
  const before = index.size
  yield* indexUntil(count)
  const missing = orders.filter(({ orderId }) => !index.has(orderId)).length
  yield* Effect.sync(() =>
    process.stdout.write(`placed=${count} before=${before} indexed=${index.size} missing=${missing} again=${again}\n`)
  )
  return missing === 0 ? 0 : 1
}).pipe(Effect.timeout("90 seconds"))

runMain(Effect.provide(program, [Memory.layer, logging]))

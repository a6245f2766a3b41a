/**
 * `npm start`: 50 customers place orders, a relay sends the events, and each
 * order is invoiced exactly once.
 *
 *     npm start                          a SQLite file and a broker in this process
 *     npm start -- --kafka               Kafka and Postgres
 *     npm start -- --kafka --crash       the consumer is killed three times on the way
 *     npm start -- --orders 20000        more orders
 */
import { NodeServices } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { Consumer, Outbox } from "effect-events"
import { Command, Flag } from "effect/cli"
import { randomBytes } from "node:crypto"
import { runMain } from "../support/runMain.ts"
import { crashing } from "./crash.ts"
import { IssueInvoice } from "./domain.ts"
import * as Environments from "./environments.ts"
import { logging } from "./logging.ts"
import * as Progress from "./progress.ts"
import { awaitInvoiced, open, placedOf, placeOrders } from "./shop.ts"
import * as Tables from "./tables.ts"

const relay = Outbox.layerRelay()
const invoicing = Consumer.layer("billing", [IssueInvoice])

/** Places and waits while `services` run; they stop, drained and committed, before the tables are judged. */
const trade = <E, R, EC, RC>(
  orders: number,
  services: Layer.Layer<never, E, R>,
  beside: Effect.Effect<never, EC, RC>
) =>
  Effect.gen(function*() {
    const all = placedOf(orders)
    yield* open
    const trading = Effect.raceFirst(Effect.andThen(placeOrders(orders), awaitInvoiced(all)), beside)
    const work = Effect.scoped(Effect.andThen(Layer.build(services), trading))
    yield* Effect.raceFirst(work, Progress.watch(Tables.invoiced, all))
    const verdict = yield* Tables.verdict
    yield* Progress.finish(verdict.invoiced, all)
    yield* Effect.sync(() => process.stdout.write(`${Tables.line(verdict)}\n`))
    return Tables.isClean(verdict) && verdict.placed === all ? 0 : 1
  })

const embedded = (orders: number) =>
  Effect.provide(trade(orders, Layer.mergeAll(relay, invoicing), Effect.never), Environments.embedded)

const onKafka = (orders: number, crash: boolean) => {
  const run = `orders_${randomBytes(4).toString("hex")}`
  const environment = Environments.kafka(run).pipe(Layer.provide(Environments.schemaOf(run)))
  return crash
    ? trade(orders, relay, crashing(run, placedOf(orders))).pipe(Effect.provide(environment))
    : trade(orders, Layer.mergeAll(relay, invoicing), Effect.never).pipe(Effect.provide(environment))
}

let exitCode = 1

const orders = Command.make("npm start --", {
  kafka: Flag.Boolean("kafka").pipe(
    Flag.withDescription("Run on Kafka and Postgres (KAFKA_BROKERS, POSTGRES_URL; found or started if not set)"),
    Flag.withDefault(false)
  ),
  crash: Flag.Boolean("crash").pipe(
    Flag.withDescription("With --kafka: kill the consumer three times on the way"),
    Flag.withDefault(false)
  ),
  orders: Flag.Int("orders").pipe(Flag.withDescription("How many orders to place"), Flag.withDefault(1_000))
}, ({ crash, kafka, orders }) =>
  Effect.gen(function*() {
    exitCode = kafka ? yield* onKafka(orders, crash) : yield* embedded(orders)
  })).pipe(
    Command.withDescription("50 customers place orders; each is invoiced exactly once.")
  )

runMain(
  Command.run(orders, { version: "0.1.0" }).pipe(
    Effect.map(() => exitCode),
    Effect.provide(Layer.merge(NodeServices.layer, logging))
  )
)

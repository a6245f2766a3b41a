/** Handles one event with effect-events: `coldStartOurs.js BROKERS TOPIC GROUP`. */
import { Effect, Layer, References, Schema } from "effect"
import { Consumer, Topic } from "effect-events"
import * as KafkaJs from "effect-events/Layers/KafkaJs"
import { writeSync } from "node:fs"

const [brokers, topic, group] = process.argv.slice(2)

class Order extends Schema.Class("Order")({
  orderId: Schema.String,
  customer: Schema.String,
  total: Schema.Number,
  currency: Schema.String,
  note: Schema.String
}) {}

const handle = (event) =>
  Effect.sync(() => {
    writeSync(3, JSON.stringify({ orderId: event.payload.orderId, cpu: process.cpuUsage() }))
    process.exit()
  })

const Orders = Topic.make(topic, { schema: Order, key: (order) => order.customer })

Effect.runFork(
  Layer.launch(
    Consumer.layer(group, [Consumer.idempotent(Orders, handle)]).pipe(
      Layer.provide(KafkaJs.layer({ brokers: brokers.split(",") }))
    )
  ).pipe(Effect.provideService(References.MinimumLogLevel, "Warn"))
)

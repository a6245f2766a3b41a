/** The topic that a foreign program writes to, and the one where its failures end. */
import { Schema } from "effect"
import { type Codec, Topic } from "effect-events"

export class OrderPlaced extends Schema.Class<OrderPlaced>("OrderPlaced")({
  orderId: Schema.String,
  total: Schema.Number
}) {}

export const Orders = Topic.make("orders.placed", { schema: OrderPlaced, create: { partitions: 3 } })

export const group = "interop"

/** Dead letters as they lie there: their bytes were no JSON, so they are taken as text. */
const text: Codec.Codec = {
  contentType: "text/plain; charset=utf-8",
  encode: (data) => new TextEncoder().encode(String(data)),
  decode: (bytes) => new TextDecoder().decode(bytes)
}

export const DeadLetters = Topic.make(`${Orders.name}.${group}.dead-letter`, { schema: Schema.String, codec: text })

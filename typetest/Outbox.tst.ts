/** Publishing: only inside a transaction, only what fits the topic. */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { describe, expect, test } from "tstyche"
import type { Broker, BrokerError } from "../src/Broker.ts"
import type { MessageStore, MessageStoreError } from "../src/MessageStore.ts"
import * as Outbox from "../src/Outbox.ts"
import * as Publisher from "../src/Publisher.ts"
import * as Topic from "../src/Topic.ts"

class Order extends Schema.Class<Order>("Order")({ orderId: Schema.String, total: Schema.Number }) {
  get label() {
    return `order ${this.orderId}`
  }
}

const Orders = Topic.make("orders", { schema: Order, key: (order) => order.label })

const order = new Order({ orderId: "o-1", total: 1 })

/** What a program's entry point accepts: nothing is left to provide. */
declare const run: <A, E>(effect: Effect.Effect<A, E>) => void
/** What has a store and nothing else. */
declare const runWithStore: <A, E>(effect: Effect.Effect<A, E, MessageStore>) => void

describe("Outbox.publish", () => {
  test("does not compile outside a transaction", () => {
    expect(run).type.not.toBeCallableWith(Outbox.publish(Orders, order))
    expect(runWithStore).type.not.toBeCallableWith(Outbox.publish(Orders, order))
    expect(runWithStore).type.not.toBeCallableWith(Outbox.publishAll(Orders, [order]))
    expect(runWithStore).type.toBeCallableWith(Outbox.transaction(Outbox.publish(Orders, order)))
    expect(runWithStore).type.toBeCallableWith(Outbox.transaction(Outbox.publishAll(Orders, [order])))
  })

  test("says what it needs and how it fails", () => {
    expect(Outbox.publish(Orders, order)).type.toBe<
      Effect.Effect<string, Publisher.PublishError, Outbox.Transaction>
    >()
    expect(Outbox.publishAll(Orders, [order])).type.toBe<
      Effect.Effect<Array<string>, Publisher.PublishError, Outbox.Transaction>
    >()
  })

  test("takes an instance, or what makes one", () => {
    expect(Outbox.publish).type.toBeCallableWith(Orders, order)
    expect(Outbox.publish).type.toBeCallableWith(Orders, { orderId: "o-1", total: 1 })
    expect(Publisher.publish).type.toBeCallableWith(Orders, order)
    expect(Publisher.publish).type.toBeCallableWith(Orders, { orderId: "o-1", total: 1 })
  })

  test("refuses a payload of the wrong type", () => {
    expect(Outbox.publish).type.not.toBeCallableWith(Orders, { orderId: "o-1" })
    expect(Outbox.publish).type.not.toBeCallableWith(Orders, { orderId: "o-1", total: "1" })
    expect(Outbox.publish).type.not.toBeCallableWith(Orders, null)
    expect(Outbox.publish).type.not.toBeCallableWith(Orders, "o-1")
    expect(Outbox.publishAll).type.not.toBeCallableWith(Orders, [order, { orderId: 1, total: 1 }])
    expect(Publisher.publish).type.not.toBeCallableWith(Orders, { orderId: "o-1", total: "1" })
  })

  test("refuses a payload of another topic", () => {
    class Invoice extends Schema.Class<Invoice>("Invoice")({ invoiceId: Schema.String }) {}
    const Invoices = Topic.make("invoices", { schema: Invoice })
    expect(Outbox.publish).type.not.toBeCallableWith(Invoices, order)
    expect(Outbox.publish).type.not.toBeCallableWith(Orders, new Invoice({ invoiceId: "i-1" }))
  })

  test("takes null only for a topic of tombstones", () => {
    const Deletable = Topic.make("orders", { schema: Schema.NullOr(Order) })
    expect(Outbox.publish).type.toBeCallableWith(Deletable, null)
    expect(Outbox.publish).type.toBeCallableWith(Deletable, order)
  })

  test("leaves out what the constructor fills in", () => {
    const schema = Schema.Struct({
      id: Schema.String,
      currency: Schema.String.pipe(Schema.withConstructorDefault(Effect.succeed("EUR")))
    })
    expect(Outbox.publish).type.toBeCallableWith(Topic.make("orders", { schema }), { id: "o-1" })
  })
})

describe("Outbox.transaction", () => {
  test("provides the transaction, needs a store, and adds its error", () => {
    class Refused extends Schema.TaggedError<Refused>()("Refused", {}) {}
    const effect = Effect.andThen(Outbox.publish(Orders, order), Effect.fail(new Refused()))
    expect(Outbox.transaction(effect)).type.toBe<
      Effect.Effect<never, Publisher.PublishError | Refused | MessageStoreError, MessageStore>
    >()
  })

  test("leaves other requirements alone", () => {
    const effect = Effect.andThen(Outbox.publish(Orders, order), Publisher.publish(Orders, order))
    expect(Outbox.transaction(effect)).type.toBe<
      Effect.Effect<
        Publisher.Position,
        Publisher.PublishError | BrokerError | MessageStoreError,
        Broker | MessageStore
      >
    >()
  })
})

describe("Publisher.publish", () => {
  test("needs no transaction, and returns where the event lies", () => {
    expect(Publisher.publish(Orders, order)).type.toBe<
      Effect.Effect<Publisher.Position, Publisher.PublishError | BrokerError, Broker>
    >()
  })
})

describe("Topic.make", () => {
  test("types the key function by the schema", () => {
    expect(Topic.make).type.toBeCallableWith("orders", { schema: Order, key: (order: Order) => order.label })
    expect(Topic.make("orders", { schema: Order })).type.toBe<Topic.Topic<typeof Order>>()
    expect(Topic.make<typeof Order>).type.not.toBeCallableWith("orders", {
      schema: Order,
      key: (order: { readonly missing: string }) => order.missing
    })
  })
})

describe("Outbox.publish with a time", () => {
  test("takes a point in time or a duration, which Publisher.publish does not", () => {
    expect(Outbox.publish).type.toBeCallableWith(Orders, order, { delay: "3 days" })
    expect(Outbox.publish).type.toBeCallableWith(Orders, order, { deliverAt: DateTime.makeUnsafe(0), id: "o-1" })
    expect(Outbox.publish).type.not.toBeCallableWith(Orders, order, { deliverAt: "tomorrow" })
    expect(Publisher.publish).type.not.toBeCallableWith(Orders, order, { delay: "3 days" })
  })
})

describe("Outbox.parked and Outbox.scheduled", () => {
  test("need the store and nothing else", () => {
    expect(runWithStore).type.toBeCallableWith(Outbox.parked.release({ topic: "orders" }))
    expect(runWithStore).type.toBeCallableWith(Outbox.parked.drop({ id: "o-1" }))
    expect(runWithStore).type.toBeCallableWith(Outbox.scheduled.cancel("o-1"))
    expect(Outbox.scheduled.list()).type.toBe<
      Effect.Effect<ReadonlyArray<Outbox.Scheduled>, MessageStoreError, MessageStore>
    >()
  })

  test("an edit fits the topic", () => {
    expect(Outbox.parked.edit(Orders, "o-1", order)).type.toBe<
      Effect.Effect<boolean, Publisher.PublishError | MessageStoreError, MessageStore>
    >()
    expect(Outbox.parked.edit).type.not.toBeCallableWith(Orders, "o-1", { orderId: 1 })
  })
})

/** Customers who place orders, and the wait until all of them are invoiced. */
import { Effect, Schedule } from "effect"
import { placeOrder } from "./domain.ts"
import * as Tables from "./tables.ts"

const customers = Array.from({ length: 50 }, (_, i) => `customer-${i + 1}`)

/** 16 fibers place orders; one in twenty is rolled back on purpose, after it was written and published. */
export const placeOrders = (orders: number) =>
  Effect.forEach(
    Array.from({ length: orders }, (_, i) => i),
    (i) =>
      placeOrder({
        orderId: `order-${i + 1}`,
        customer: customers[i % customers.length]!,
        total: 10 + i % 90,
        cardRefused: i % 20 === 19
      }).pipe(Effect.catchTag("CardRefused", () => Effect.void)),
    { concurrency: 16, discard: true }
  )

export const open = Effect.andThen(Tables.create, Tables.addCustomers(customers))

export const placedOf = (orders: number): number => orders - Math.floor(orders / 20)

/** Waits until `all` orders are invoiced, or nothing has moved for a minute. */
export const awaitInvoiced = (all: number) =>
  Effect.gen(function*() {
    let before = -1
    let stillness = 0
    yield* Tables.invoiced.pipe(
      Effect.tap((now) =>
        Effect.sync(() => {
          stillness = now === before ? stillness + 1 : 0
          before = now
        })
      ),
      Effect.repeat({ schedule: Schedule.spaced("100 millis"), until: (now) => now >= all || stillness >= 600 })
    )
  })

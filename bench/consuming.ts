/** Our side of the benchmarks that consume: idempotent handlers that add up a field. */
import { Deferred, Effect, Layer } from "effect"
import { Consumer } from "effect-events"
import { measure, quiet, type Round } from "./harness.ts"
import { type Client, layerOf, type Order, sumOf, unique } from "./orders.ts"

export type Add = (total: number) => void

export type Idempotent = ReturnType<typeof Consumer.idempotent<typeof Order, never, never>>

/** Orders come in hundreds, whose sums are the same: so the sum of all is known however they lie in topics. */
export const checkSum = (events: number, sum: number): void => {
  if (sum !== sumOf(events)) throw new Error(`The sum is ${sum} and should be ${sumOf(events)}`)
}

/** From the first event that is handled to the last one. */
export const consuming = (
  events: number,
  consumers: (add: Add) => ReadonlyArray<Idempotent>,
  client: Client = "KafkaJs"
): Promise<Round> =>
  measure(events, (started) =>
    Effect.gen(function*() {
      const done = yield* Deferred.make<void>()
      let count = 0
      let sum = 0
      const add: Add = (total) => {
        if (count === 0) started()
        sum += total
        if (++count === events) Deferred.doneUnsafe(done, Effect.void)
      }
      yield* Effect.andThen(Layer.build(Consumer.layer(unique("group"), consumers(add))), Deferred.await(done))
      checkSum(events, sum)
    }).pipe(Effect.scoped, Effect.provide(layerOf(client)), quiet, Effect.runPromise))

/** The lanes that all publishers of one broker share. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { Broker, BrokerError, Unreachable } from "../../../src/Broker.ts"
import * as Shared from "../../../src/internal/publisher/shared.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import { settle } from "../../support/scriptedFeed.ts"

const unreachable = new BrokerError({
  reason: new Unreachable({ address: "a", tried: "connecting", cause: undefined })
})

describe("the lanes of a broker", () => {
  it.effect("that could not be made are made by whoever tries again, also with an effect of that time", () =>
    Effect.gen(function*() {
      const memory = yield* Broker
      const first = Deferred.makeUnsafe<never, BrokerError>()
      let tries = 0
      const broker = Broker.of({
        ...memory,
        producer: Effect.suspend(() => tries++ === 0 ? Deferred.await(first) : memory.producer)
      })
      const making = yield* Effect.tap(Effect.forkChild(Effect.exit(Shared.lanes(broker))), settle)
      const meanwhile = Shared.lanes(broker)
      yield* Deferred.fail(first, unreachable)
      assert.isTrue(Exit.isFailure(yield* Fiber.join(making)))
      const made = yield* meanwhile
      assert.strictEqual(yield* Shared.lanes(broker), made)
      assert.strictEqual(tries, 2)
    }).pipe(Effect.provide(Memory.layerBroker)))
})

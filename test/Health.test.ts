/** Health: what runs by itself is listed, and says when and why it fails. */
import { assert, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import { Broker } from "../src/Broker.ts"
import * as Consumer from "../src/Consumer.ts"
import * as Health from "../src/Health.ts"
import * as Memory from "../src/Layers/Memory.ts"
import * as Outbox from "../src/Outbox.ts"
import * as Publisher from "../src/Publisher.ts"
import * as Topic from "../src/Topic.ts"
import { pass, settle } from "./support/scriptedFeed.ts"

const Orders = Topic.make("orders", { schema: Schema.Struct({ n: Schema.Number }), create: {} })

const inProcess = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  effect.pipe(
    Effect.scoped,
    Effect.provideService(Health.Parts, new Map()),
    Effect.provideService(References.MinimumLogLevel, "None"),
    Effect.provide(Memory.layer)
  )

const summary = Effect.map(Health.check, (parts) => parts.map(({ kind, state }) => `${kind} ${state}`).sort())

it.effect("lists consumers and relays for as long as they run", () =>
  inProcess(Effect.gen(function*() {
    const Log = Consumer.idempotent(Orders, () => Effect.void)
    yield* Effect.scoped(Effect.gen(function*() {
      yield* Layer.build(Layer.mergeAll(Consumer.layer("audit", [Log]), Outbox.layerRelay()))
      yield* settle
      assert.deepStrictEqual(yield* summary, ["consumer Running", "relay Running"])
      assert.isTrue(yield* Health.isHealthy)
    }))
    assert.deepStrictEqual(yield* summary, [])
  })))

it.effect("a consumer whose topic is gone is failing and says why, until it has started again", () =>
  inProcess(Effect.gen(function*() {
    const memory = yield* Memory.MemoryBroker
    const seen: Array<number> = []
    const Log = Consumer.idempotent(Orders, (event) => Effect.sync(() => void seen.push(event.payload.n)))
    yield* Layer.build(Consumer.layer("audit", [Log]))
    yield* settle
    yield* memory.deleteTopic("orders")
    yield* settle
    const [part] = yield* Health.check
    assert.isTrue(part?.state === "Failing" && part.reason.includes("orders"))
    assert.isFalse(yield* Health.isHealthy)
    // It has started again, and has to last for a while.
    yield* pass(6_000)
    assert.deepStrictEqual(yield* summary, ["consumer Running"])
    yield* Publisher.publish(Orders, { n: 1 })
    yield* settle
    assert.deepStrictEqual(seen, [1])
  })))

it.effect("a consumer whose Layer breaks down is failing and starts again, too", () =>
  inProcess(Effect.gen(function*() {
    const memory = yield* Broker
    const broken = Deferred.makeUnsafe<never>()
    let joins = 0
    const broker = Broker.of({
      ...memory,
      subscribe: (options) =>
        Effect.map(memory.subscribe(options), (subscription) => ({
          ...subscription,
          failed: joins++ === 0 ? Deferred.await(broken) : subscription.failed
        }))
    })
    const seen: Array<number> = []
    const Log = Consumer.idempotent(Orders, (event) => Effect.sync(() => void seen.push(event.payload.n)))
    yield* Layer.build(Layer.provide(Consumer.layer("audit", [Log]), Layer.succeed(Broker, broker)))
    yield* Deferred.die(broken, new Error("a bug of the client"))
    yield* settle
    const [part] = yield* Health.check
    assert.isTrue(part?.state === "Failing" && part.reason.includes("a bug of the client"))
    // It has started again, and has to last for a while.
    yield* pass(6_000)
    assert.deepStrictEqual(yield* summary, ["consumer Running"])
    yield* Publisher.publish(Orders, { n: 1 })
    yield* settle
    assert.deepStrictEqual([seen, joins], [[1], 2])
  })))

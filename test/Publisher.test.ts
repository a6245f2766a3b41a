/** What publishing holds in memory. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as TestClock from "effect/testing/TestClock"
import { Broker } from "../src/Broker.ts"
import * as Memory from "../src/Layers/Memory.ts"
import * as Publisher from "../src/Publisher.ts"
import * as Topic from "../src/Topic.ts"
import { settle } from "./support/scriptedFeed.ts"
import { sendingBroker } from "./support/sendingBroker.ts"

const Notes = Topic.make("notes", { schema: Schema.Struct({ text: Schema.String }), key: () => null })

/** A broker that answers nothing until the latch opens, and notes how many records each request has. */
const slow = (latch: Latch.Latch, sizes: Array<number> = []) =>
  sendingBroker((batch, send) => {
    sizes.push(batch.records.length)
    return Effect.andThen(latch.await, send(batch))
  }).pipe(Layer.provide(Memory.layerBroker))

/** Each event is larger than half of the buffer. */
const publish = Publisher.publish(Notes, { text: "x".repeat(1_000) }).pipe(
  Effect.provideService(Publisher.MaxBufferedBytes, 2_000)
)

describe("MaxBufferedBytes", () => {
  it.effect("bounds what waits to be sent: who finds no room waits for it, and then goes on", () => {
    const latch = Latch.makeUnsafe(false)
    const sizes: Array<number> = []
    return Effect.gen(function*() {
      yield* Broker.use((broker) => broker.ensureTopics([{ name: Notes.name, create: { partitions: 1 } }]))
      const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.tap(Effect.forkChild(publish), settle))
      assert.isTrue(fibers.every((fiber) => fiber.pollUnsafe() === undefined))
      yield* latch.open
      const positions = yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(positions.map(({ offset }) => offset), [0n, 1n, 2n])
      // With more room the second and the third would have left together.
      assert.deepStrictEqual(sizes, [1, 1, 1])
    }).pipe(Effect.provide(slow(latch, sizes)))
  })

  it.effect("that is full for a delivery timeout fails the publish as not sent, and nothing of it leaves later", () => {
    const latch = Latch.makeUnsafe(false)
    return Effect.gen(function*() {
      yield* Broker.use((broker) => broker.ensureTopics([{ name: Notes.name, create: { partitions: 1 } }]))
      const first = yield* Effect.tap(Effect.forkChild(publish), settle)
      const second = yield* Effect.tap(
        Effect.forkChild(Effect.flip(Effect.provideService(publish, Publisher.DeliveryTimeout, "5 seconds"))),
        settle
      )
      yield* TestClock.adjust("5 seconds")
      const { message, reason } = yield* Fiber.join(second)
      assert.strictEqual(reason._tag, "Unreachable")
      assert.include(message, "room in the publisher's buffer")
      yield* latch.open
      assert.strictEqual((yield* Fiber.join(first)).offset, 0n)
      assert.strictEqual((yield* publish).offset, 1n)
    }).pipe(Effect.provide(slow(latch)))
  })
})

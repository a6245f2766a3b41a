/** Parts of relays side by side: shared, and given back when no batch has them. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Lease from "../../../src/internal/outbox/lease.ts"
import * as Ownership from "../../../src/internal/outbox/ownership.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import { MessageStore, MessageStoreError, parts, StoreUnreachable } from "../../../src/MessageStore.ts"

const open = (instance: string) =>
  Effect.gen(function*() {
    const { leases } = yield* MessageStore
    let gained = 0
    const ownership = yield* Ownership.make({
      instance,
      leases,
      ttl: Duration.seconds(15),
      onGained: () => void gained++
    })
    return Object.assign(ownership, { gained: () => gained })
  })

const all = Array.from({ length: parts }, (_, part) => part)

describe("the parts of a relay", () => {
  it.effect("that are in a batch are in no other, and idle again afterwards", () =>
    Effect.gen(function*() {
      const one = yield* open("one")
      assert.deepStrictEqual(one.idle(), [])
      yield* one.renew
      assert.deepStrictEqual(one.idle(), all)
      one.take([3, 5])
      assert.deepStrictEqual(one.idle(), all.filter((part) => part !== 3 && part !== 5))
      yield* one.renew
      assert.notInclude(one.idle(), 5)
      one.leave([5])
      assert.include(one.idle(), 5)
      assert.notInclude(one.idle(), 3)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("are given back to another at once, but for those in a batch, which follow when it is over", () =>
    Effect.gen(function*() {
      const [one, two] = [yield* open("one"), yield* open("two")]
      yield* one.renew
      const [inBatch, last] = [parts - 1, parts - 2]
      one.take([inBatch])
      yield* two.renew
      assert.deepStrictEqual(two.idle(), [])

      const renewing = yield* Effect.forkChild(one.renew, { startImmediately: true })
      const half = all.slice(0, parts / 2)
      assert.deepStrictEqual(one.idle(), half)
      yield* two.renew
      assert.include(two.idle(), last)
      assert.notInclude(two.idle(), inBatch)
      assert.isUndefined(renewing.pollUnsafe())

      one.leave([inBatch])
      yield* Fiber.join(renewing)
      yield* two.renew
      assert.deepStrictEqual(two.idle(), all.slice(parts / 2))
      assert.isAbove(two.gained(), 0)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("that it is giving back are not read any more, and a renewal does not bring them again", () =>
    Effect.gen(function*() {
      const [one, two] = [yield* open("one"), yield* open("two")]
      yield* one.renew
      const before = one.held()
      one.take([parts - 1])
      yield* two.renew
      yield* Effect.forkChild(one.renew, { startImmediately: true })
      assert.isFalse(one.held().leases.has(parts - 1))
      // What was read before acts under the leases and the deadline of that time.
      assert.isTrue(before.leases.has(parts - 1))
      assert.isAbove(Lease.leftMillis(before, 0n), 0)
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("that could not be given back are not trusted, though they are still its own, and are given back later", () =>
    Effect.gen(function*() {
      const { leases } = yield* MessageStore
      let away = true
      const refused = new MessageStoreError({
        reason: new StoreUnreachable({ operation: "release", detail: "away", cause: new Error("away") })
      })
      const one = yield* Ownership.make({
        instance: "one",
        leases: { ...leases, release: (owner, parts) => away ? Effect.fail(refused) : leases.release(owner, parts) },
        ttl: Duration.seconds(15),
        onGained: () => {}
      })
      const two = yield* open("two")
      yield* one.renew
      yield* two.renew
      for (const _ of [1, 2]) {
        yield* Effect.flip(one.renew)
        assert.deepStrictEqual(one.idle(), all.slice(0, parts / 2))
      }
      away = false
      yield* one.renew
      yield* two.renew
      assert.deepStrictEqual(two.idle(), all.slice(parts / 2))
    }).pipe(Effect.provide(Memory.layer)))

  it.effect("are all free when it has closed", () =>
    Effect.gen(function*() {
      const [one, two] = [yield* open("one"), yield* open("two")]
      yield* one.renew
      yield* one.close
      yield* two.renew
      assert.deepStrictEqual(two.idle(), all)
    }).pipe(Effect.provide(Memory.layer)))
})

/** Leases: at most one owner per part, and an epoch that tells owners apart. */
import { assert } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Lease } from "../../../src/MessageStore.ts"
import { MessageStore } from "../../../src/MessageStore.ts"
import { askUntil, cases } from "../features.ts"
import type { It, StoreFeatures } from "../features.ts"
import { everyPart, freshOwner, holding, upTo } from "./support.ts"

const short = Duration.millis(300)
const long = Duration.seconds(60)

const partsOf = (leases: ReadonlyArray<Lease>) => leases.map(({ part }) => part).sort((a, b) => a - b)

export const leases = <R>(it: It<MessageStore | R>, features: StoreFeatures<R>): void => {
  const { check } = cases(it, features)

  /** An owner that gives everything back when the case ends. */
  const owner = Effect.gen(function*() {
    const { leases } = yield* MessageStore
    const name = yield* freshOwner
    yield* Effect.addFinalizer(() => Effect.orDie(Effect.andThen(leases.release(name, everyPart), leases.leave(name))))
    return name
  })

  check("every part is free until somebody holds it", () =>
    Effect.gen(function*() {
      const { leases } = yield* MessageStore
      assert.deepStrictEqual([...yield* leases.free].sort((a, b) => a - b), upTo(64))
      const held = yield* leases.hold({ owner: yield* owner, ttl: long, parts: [0, 17, 63] })
      assert.deepStrictEqual(partsOf(held), [0, 17, 63])
      assert.deepStrictEqual(
        [...yield* leases.free].sort((a, b) => a - b),
        upTo(64).filter((part) => ![0, 17, 63].includes(part))
      )
    }))

  check(
    "the owners of all parts are told with their epochs, and nobody where a lease has run out",
    () =>
      Effect.gen(function*() {
        const { leases } = yield* MessageStore
        const [a, b] = [yield* owner, yield* owner]
        const [held] = yield* leases.hold({ owner: a, ttl: long, parts: [5] })
        yield* leases.hold({ owner: b, ttl: short, parts: [6] })
        const all = yield* askUntil(
          features,
          "the short lease is over",
          leases.owners,
          (all) => all[6]!.owner === undefined
        )
        assert.deepStrictEqual(all.map(({ part }) => part), upTo(64))
        assert.deepStrictEqual(all[5], { part: 5, owner: a, epoch: held!.epoch })
        assert.isAbove(Number(all[6]!.epoch), 0)
        assert.deepStrictEqual(all.filter(({ owner }) => owner !== undefined).map(({ part }) => part), [5])
      })
  )

  check(
    "a part that another holds stays his; hold returns all that the owner has, also what it did not ask for",
    () =>
      Effect.gen(function*() {
        const { leases } = yield* MessageStore
        const [a, b] = [yield* owner, yield* owner]
        yield* leases.hold({ owner: a, ttl: long, parts: [1, 2] })
        assert.deepStrictEqual(partsOf(yield* leases.hold({ owner: b, ttl: long, parts: [2, 3] })), [3])
        assert.deepStrictEqual(partsOf(yield* leases.hold({ owner: a, ttl: long, parts: [3, 4] })), [1, 2, 4])
        assert.deepStrictEqual(partsOf(yield* leases.hold({ owner: b, ttl: long, parts: [] })), [3])
      })
  )

  check("a renewal keeps the epoch and lengthens the lease", () =>
    Effect.gen(function*() {
      const { leases } = yield* MessageStore
      const [a, witness] = [yield* owner, yield* owner]
      const first = yield* leases.hold({ owner: a, ttl: short, parts: [8] })
      const renewed = yield* leases.hold({ owner: a, ttl: long, parts: [8] })
      assert.deepStrictEqual(renewed, first)
      // once a lease as short as the first one has run out, the renewed one still holds
      yield* leases.hold({ owner: witness, ttl: short, parts: [9] })
      yield* askUntil(features, "part 9 to be free", leases.free, (free) => free.includes(9))
      assert.notInclude(yield* leases.free, 8)
    }))

  check(
    "a lease that ran out is free; the next owner's epoch is higher, and the former one has lost the part",
    () =>
      Effect.gen(function*() {
        const { leases } = yield* MessageStore
        const [a, b] = [yield* owner, yield* owner]
        const [first] = yield* leases.hold({ owner: a, ttl: short, parts: [21] })
        assert.deepStrictEqual(yield* leases.hold({ owner: b, ttl: long, parts: [21] }), [])
        yield* askUntil(features, "part 21 to be free", leases.free, (free) => free.includes(21))
        const [second] = yield* leases.hold({ owner: b, ttl: long, parts: [21] })
        assert.strictEqual(second!.part, 21)
        assert.isTrue(second!.epoch > first!.epoch)
        assert.deepStrictEqual(yield* leases.hold({ owner: a, ttl: long, parts: [21] }), [])
      })
  )

  check("a released part is free at once, and the next owner's epoch is higher", () =>
    Effect.gen(function*() {
      const { leases } = yield* MessageStore
      const [a, b] = [yield* owner, yield* owner]
      const [first] = yield* leases.hold({ owner: a, ttl: long, parts: [30, 31] })
      yield* leases.release(a, [30])
      assert.include(yield* leases.free, 30)
      assert.notInclude(yield* leases.free, 31)
      const [second] = yield* leases.hold({ owner: b, ttl: long, parts: [30, 31] })
      assert.deepStrictEqual([second!.part, second!.epoch > first!.epoch], [30, true])
      assert.deepStrictEqual(partsOf(yield* leases.hold({ owner: a, ttl: long, parts: [] })), [31])
    }))

  check("nobody releases the parts of another", () =>
    Effect.gen(function*() {
      const { leases } = yield* MessageStore
      const [a, b] = [yield* owner, yield* owner]
      yield* leases.hold({ owner: a, ttl: long, parts: [40] })
      yield* leases.release(b, [40])
      assert.notInclude(yield* leases.free, 40)
    }))

  check("when several want the same parts at once, each part goes to exactly one", () =>
    Effect.gen(function*() {
      const { leases } = yield* MessageStore
      const owners = yield* Effect.forEach(upTo(8), () => owner)
      const held = yield* Effect.forEach(
        owners,
        (name) => leases.hold({ owner: name, ttl: long, parts: everyPart }),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(partsOf(held.flat()), upTo(64))
      assert.deepStrictEqual(yield* leases.free, [])
    }))

  check("a beat counts who lives; who leaves or stops beating is not counted", () =>
    Effect.gen(function*() {
      const { leases } = yield* MessageStore
      const [a, b, c] = [yield* owner, yield* owner, yield* owner]
      // former cases may have left owners that live for a moment longer
      yield* askUntil(features, "to be alone", leases.beat(a, long), (living) => living === 1)
      assert.strictEqual(yield* leases.beat(b, long), 2)
      assert.strictEqual(yield* leases.beat(c, short), 3)
      assert.strictEqual(yield* leases.beat(b, long), 3)
      yield* askUntil(features, "the third to be forgotten", leases.beat(a, long), (living) => living === 2)
      yield* leases.leave(b)
      assert.strictEqual(yield* leases.beat(a, long), 1)
    }))

  check("leases belong to their transaction: rolled back, they were never taken", () =>
    Effect.gen(function*() {
      const store = yield* MessageStore
      const name = yield* owner
      yield* Effect.exit(store.transaction(Effect.andThen(
        store.leases.hold({ owner: name, ttl: long, parts: [50] }),
        Effect.fail("rollback")
      )))
      assert.include(yield* store.leases.free, 50)
      yield* Effect.scoped(holding([50]))
    }))
}

/** The inbox: one claim of a message per consumer, whatever happens at the same time. */
import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { MessageStore } from "../../../src/MessageStore.ts"
import { askUntil, cases, freshName } from "../features.ts"
import type { It, StoreFeatures } from "../features.ts"
import { freshMessageKeys, nonEmpty, sorted, upTo } from "./support.ts"

export const inbox = <R>(it: It<MessageStore | R>, features: StoreFeatures<R>): void => {
  const { check } = cases(it, features)
  const { read, write } = features.business

  const freshConsumer = Effect.gen(function*() {
    const { inbox } = yield* MessageStore
    return yield* inbox.consumer(yield* freshName("group"), "handler")
  })

  check("a consumer has one number, and no two have the same", () =>
    Effect.gen(function*() {
      const { inbox } = yield* MessageStore
      const name = yield* freshName("g")
      const first = yield* inbox.consumer(name, "h")
      const again = yield* Effect.all(
        upTo(5).map(() => inbox.consumer(name, "h")),
        { concurrency: "unbounded" }
      )
      assert.isTrue(Number.isInteger(first))
      assert.deepStrictEqual(again, upTo(5).map(() => first))
      const others = yield* Effect.all([
        inbox.consumer(name, "H"),
        inbox.consumer(name, "h:x"),
        inbox.consumer(`${name}:h`, "x"),
        inbox.consumer("h", name)
      ])
      assert.strictEqual(new Set([first, ...others]).size, 5)
    }))

  check("consumers that are registered at the same time get one number each", () =>
    Effect.gen(function*() {
      const { inbox } = yield* MessageStore
      const name = yield* freshName("g")
      const numbers = yield* Effect.all(
        upTo(20).map((n) => inbox.consumer(name, `handler-${n % 10}`)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(numbers.slice(0, 10), numbers.slice(10))
      assert.strictEqual(new Set(numbers).size, 10)
    }))

  check("a message is claimed once: the second claim returns only what is new", () =>
    Effect.gen(function*() {
      const { inbox, transaction } = yield* MessageStore
      const consumer = yield* freshConsumer
      const keys = yield* freshMessageKeys(3)
      const claim = (keys: readonly [string, ...Array<string>]) => transaction(inbox.claim(consumer, keys))
      assert.deepStrictEqual(sorted(yield* claim([keys[0], keys[1]!])), sorted([keys[0], keys[1]!]))
      assert.deepStrictEqual(sorted(yield* claim(keys)), [keys[2]!])
      assert.deepStrictEqual(sorted(yield* claim(keys)), [])
    }))

  check("a message that occurs twice in one claim is claimed", () =>
    Effect.gen(function*() {
      const { inbox, transaction } = yield* MessageStore
      const consumer = yield* freshConsumer
      const [key] = yield* freshMessageKeys(1)
      assert.deepStrictEqual(sorted(yield* transaction(inbox.claim(consumer, [key, key]))), [key])
      assert.deepStrictEqual(sorted(yield* transaction(inbox.claim(consumer, [key, key]))), [])
    }))

  check("ids that are hashes and not times are claimed alike", () =>
    Effect.gen(function*() {
      const { inbox, transaction } = yield* MessageStore
      const consumer = yield* freshConsumer
      const hashed = ["ffffffff-ffff-ffff-ffff-ffffffffffff", "00000000-0000-0000-0000-000000000001"] as const
      assert.strictEqual((yield* transaction(inbox.claim(consumer, hashed))).size, 2)
      assert.strictEqual((yield* transaction(inbox.claim(consumer, hashed))).size, 0)
    }))

  check("a claim of 5,000 messages, half of them known, returns the other half", () =>
    Effect.gen(function*() {
      const { inbox, transaction } = yield* MessageStore
      const consumer = yield* freshConsumer
      const keys = yield* freshMessageKeys(5_000)
      yield* transaction(inbox.claim(consumer, nonEmpty(keys.filter((_, index) => index % 2 === 0))))
      const fresh = yield* transaction(inbox.claim(consumer, keys))
      assert.deepStrictEqual(sorted(fresh), sorted(keys.filter((_, index) => index % 2 === 1)))
    }))

  check("two consumers do not suppress each other", () =>
    Effect.gen(function*() {
      const { inbox, transaction } = yield* MessageStore
      const group = yield* freshName("group")
      const keys = yield* freshMessageKeys(2)
      const consumers = yield* Effect.all([
        inbox.consumer(group, "one"),
        inbox.consumer(group, "two"),
        inbox.consumer(yield* freshName("group"), "one")
      ])
      const claimed = yield* Effect.forEach(consumers, (consumer) => transaction(inbox.claim(consumer, keys)))
      assert.deepStrictEqual(claimed.map(sorted), consumers.map(() => sorted(keys)))
    }))

  check(
    "a claim that is rolled back was never made: effect and mark go together, and on retry it counts once",
    () =>
      Effect.gen(function*() {
        const { inbox, transaction } = yield* MessageStore
        const consumer = yield* freshConsumer
        const name = yield* freshName("effect")
        const keys = yield* freshMessageKeys(1)
        const attempt = (ending: Effect.Effect<void, string>) =>
          transaction(Effect.gen(function*() {
            const fresh = yield* inbox.claim(consumer, keys)
            if (fresh.size > 0) {
              yield* write(name, `${(yield* read(name)) ?? ""}x`)
            }
            yield* ending
          }))
        yield* Effect.exit(attempt(Effect.fail("after the write")))
        assert.strictEqual(yield* read(name), undefined)
        yield* attempt(Effect.void)
        yield* attempt(Effect.void)
        assert.strictEqual(yield* read(name), "x")
      })
  )

  check("a claim inside a savepoint that rolls back was never made", () =>
    Effect.gen(function*() {
      const { inbox, transaction } = yield* MessageStore
      const consumer = yield* freshConsumer
      const keys = yield* freshMessageKeys(2)
      const again = yield* transaction(Effect.gen(function*() {
        yield* inbox.claim(consumer, [keys[0]])
        yield* Effect.exit(transaction(Effect.andThen(inbox.claim(consumer, [keys[1]!]), Effect.fail("savepoint"))))
        return yield* inbox.claim(consumer, keys)
      }))
      assert.deepStrictEqual(sorted(again), [keys[1]!])
    }))

  check("the same message on two instances at the same time: one effect", () =>
    Effect.gen(function*() {
      const { inbox, transaction } = yield* MessageStore
      const consumer = yield* freshConsumer
      const keys = yield* freshMessageKeys(10)
      const claimed = yield* Effect.forEach(
        upTo(6),
        () => transaction(Effect.tap(inbox.claim(consumer, keys), () => Effect.yieldNow)),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(claimed.map(({ size }) => size).sort((a, b) => b - a), [10, 0, 0, 0, 0, 0])
    }))

  const concurrentClaim = Effect.fnUntraced(function*(ending: Effect.Effect<void, string>) {
    const { inbox, transaction } = yield* MessageStore
    const consumer = yield* freshConsumer
    const keys = yield* freshMessageKeys(1)
    const claimed = yield* Deferred.make<void>()
    const end = yield* Deferred.make<void>()
    const first = yield* Effect.forkChild(Effect.exit(transaction(Effect.gen(function*() {
      yield* inbox.claim(consumer, keys)
      yield* Deferred.succeed(claimed, undefined)
      yield* Deferred.await(end)
      yield* ending
    }))))
    yield* Deferred.await(claimed)
    const second = yield* Effect.forkChild(transaction(inbox.claim(consumer, keys)), { startImmediately: true })
    yield* Deferred.succeed(end, undefined)
    yield* Fiber.join(first)
    return (yield* Fiber.join(second)).size
  })

  check("a claim waits for the other transaction: it gets nothing when that commits", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* concurrentClaim(Effect.void), 0)
    }))

  check(
    "a claim waits for the other transaction: it gets the message when that rolls back",
    () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* concurrentClaim(Effect.fail("rollback")), 1)
      })
  )

  check("pruning forgets only marks that are older than the retention", () =>
    Effect.gen(function*() {
      const { inbox, transaction } = yield* MessageStore
      const consumer = yield* freshConsumer
      const keys = yield* freshMessageKeys(3)
      const claim = transaction(inbox.claim(consumer, keys))
      yield* claim
      yield* inbox.prune(Duration.days(7))
      assert.strictEqual((yield* claim).size, 0)
      // other cases have left marks too, so what counts is whether these three can be claimed again
      const claimable = Effect.flip(transaction(Effect.flatMap(
        inbox.claim(consumer, keys),
        (fresh) => Effect.fail(fresh.size)
      )))
      let pruned = 0
      yield* askUntil(
        features,
        "three marks to be older than 50 ms",
        Effect.andThen(Effect.map(inbox.prune(Duration.millis(50)), (count) => pruned += count), claimable),
        (size) => size === 3
      )
      assert.isAtLeast(pruned, 3)
    }))
}

/** Transactions: what commits together, and what a rollback takes with it. */
import { assert } from "@effect/vitest"
import * as Arr from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Conflict, isMessageStoreError, MessageStore, MessageStoreError } from "../../../src/MessageStore.ts"
import { cases, freshName } from "../features.ts"
import type { It, StoreFeatures } from "../features.ts"
import { append, cleanOutbox, sorted, storedTexts } from "./support.ts"

export const transactions = <R>(it: It<MessageStore | R>, features: StoreFeatures<R>): void => {
  const { check } = cases(it, features)
  const { read, write } = features.business

  const transaction = <A, E, R1>(effect: Effect.Effect<A, E, R1>) =>
    MessageStore.use((store) => store.transaction(effect))

  const level = MessageStore.use((store) => store.level)

  check(
    "rows and business writes of a committed transaction are there, and its value is returned",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanOutbox
        const value = yield* transaction(Effect.gen(function*() {
          yield* write(topic, "written")
          yield* append(topic, 1, ["a", "b"])
          return "done"
        }))
        assert.strictEqual(value, "done")
        assert.deepStrictEqual(yield* storedTexts(topic), ["a", "b"])
        assert.strictEqual(yield* read(topic), "written")
      })
  )

  check("a failure takes rows and business writes with it, and arrives unchanged", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const error = yield* Effect.flip(transaction(Effect.gen(function*() {
        yield* append(topic, 1, ["lost"])
        yield* write(topic, "lost")
        return yield* Effect.fail("no" as const)
      })))
      assert.strictEqual(error, "no")
      assert.deepStrictEqual(yield* storedTexts(topic), [])
      assert.strictEqual(yield* read(topic), undefined)
    }))

  check("a defect rolls back", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const exit = yield* Effect.exit(transaction(Effect.gen(function*() {
        yield* append(topic, 1, ["lost"])
        yield* write(topic, "lost")
        return yield* Effect.die(new Error("bug"))
      })))
      assert.strictEqual(exit._tag, "Failure")
      assert.deepStrictEqual(yield* storedTexts(topic), [])
      assert.strictEqual(yield* read(topic), undefined)
    }))

  check("an interruption rolls back, and the store goes on", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const inside = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(transaction(Effect.gen(function*() {
        yield* append(topic, 1, ["lost"])
        yield* write(topic, "lost")
        yield* Deferred.succeed(inside, undefined)
        return yield* Effect.never
      })))
      yield* Deferred.await(inside)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* storedTexts(topic), [])
      assert.strictEqual(yield* read(topic), undefined)
      yield* transaction(append(topic, 1, ["next"]))
      assert.deepStrictEqual(yield* storedTexts(topic), ["next"])
    }))

  check("a savepoint that rolls back drops its rows and writes; those around it stay", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      yield* transaction(Effect.gen(function*() {
        yield* append(topic, 1, ["before"])
        yield* write(`${topic}-outer`, "kept")
        const failed = yield* Effect.flip(transaction(Effect.gen(function*() {
          yield* append(topic, 1, ["dropped"])
          yield* write(`${topic}-inner`, "dropped")
          yield* write(`${topic}-outer`, "overwritten")
          return yield* Effect.fail("inner" as const)
        })))
        assert.strictEqual(failed, "inner")
        assert.strictEqual(yield* read(`${topic}-outer`), "kept")
        yield* transaction(append(topic, 1, ["second savepoint"]))
        yield* append(topic, 1, ["after"])
      }))
      assert.deepStrictEqual(yield* storedTexts(topic), ["before", "second savepoint", "after"])
      assert.strictEqual(yield* read(`${topic}-outer`), "kept")
      assert.strictEqual(yield* read(`${topic}-inner`), undefined)
    }))

  check("a transaction that rolls back takes its finished savepoints with it", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      yield* Effect.exit(transaction(Effect.gen(function*() {
        yield* transaction(Effect.andThen(append(topic, 1, ["inner"]), write(topic, "inner")))
        return yield* Effect.fail("outer")
      })))
      assert.deepStrictEqual(yield* storedTexts(topic), [])
      assert.strictEqual(yield* read(topic), undefined)
    }))

  check(
    "a row of an open transaction is seen by nobody outside, and never if it rolls back",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanOutbox
        const appended = yield* Deferred.make<void>()
        const rollback = yield* Deferred.make<void>()
        const writer = yield* Effect.forkChild(Effect.exit(transaction(Effect.gen(function*() {
          yield* append(topic, 1, ["phantom"])
          yield* Deferred.succeed(appended, undefined)
          yield* Deferred.await(rollback)
          return yield* Effect.fail("rollback")
        }))))
        yield* Deferred.await(appended)
        // where one connection serves all, this read waits for the transaction; either way it must find nothing
        const reader = yield* Effect.forkChild(storedTexts(topic), { startImmediately: true })
        yield* Deferred.succeed(rollback, undefined)
        assert.deepStrictEqual(yield* Fiber.join(reader), [])
        yield* Fiber.join(writer)
        assert.deepStrictEqual(yield* storedTexts(topic), [])
      })
  )

  check(
    "transactions 0, 1, a rollback and 2, committed in the order 2, 1, 0: all three arrive, no phantom",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanOutbox
        const run = Effect.fnUntraced(function*(name: string, ending: Effect.Effect<void, string>) {
          const started = yield* Deferred.make<void>()
          const end = yield* Deferred.make<void>()
          const fiber = yield* Effect.forkChild(Effect.exit(transaction(Effect.gen(function*() {
            yield* append(topic, 1, [name])
            yield* Deferred.succeed(started, undefined)
            yield* Deferred.await(end)
            yield* ending
          }))))
          yield* Deferred.await(started)
          return Effect.andThen(Deferred.succeed(end, undefined), Fiber.join(fiber))
        })
        const rollback = Effect.fail("rollback")
        if (features.concurrentTransactions) {
          const end0 = yield* run("0", Effect.void)
          const end1 = yield* run("1", Effect.void)
          const endX = yield* run("phantom", rollback)
          const end2 = yield* run("2", Effect.void)
          for (const end of [endX, end2, end1, end0]) {
            yield* end
          }
        } else {
          for (
            const [name, ending] of [["phantom", rollback], ["2", Effect.void], ["1", Effect.void], [
              "0",
              Effect.void
            ]] as const
          ) {
            yield* Effect.flatten(run(name, ending))
          }
        }
        assert.deepStrictEqual(sorted(yield* storedTexts(topic)), ["0", "1", "2"])
      })
  )

  check("many transactions at once: every committed row is there once, no other", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const names = Array.from({ length: 40 }, (_, n) => n % 4 === 3 ? `rollback-${n}` : `commit-${n}`)
      yield* Effect.forEach(names, (name) =>
        Effect.exit(transaction(Effect.andThen(
          append(topic, 2, [name]),
          name.startsWith("rollback") ? Effect.fail("rollback") : Effect.void
        ))), { concurrency: "unbounded", discard: true })
      const expected = names.filter((name) => name.startsWith("commit"))
      assert.deepStrictEqual(sorted(yield* storedTexts(topic)), sorted(expected))
    }))

  check("an append outside of a transaction is applied at once", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      yield* append(topic, 1, ["a"])
      assert.deepStrictEqual(yield* storedTexts(topic), ["a"])
    }))

  check(
    "a level is one object per transaction and per savepoint, and there is none outside",
    () =>
      Effect.gen(function*() {
        const inTransaction = transaction(Effect.gen(function*() {
          const outer = yield* level
          const [first, again] = yield* transaction(Effect.all([level, level]))
          const second = yield* transaction(level)
          return { outer, first, again, second, outerAfterwards: yield* level }
        }))
        assert.strictEqual(yield* level, undefined)
        const one = yield* inTransaction
        const other = yield* inTransaction
        assert.strictEqual(yield* level, undefined)
        assert.strictEqual(typeof one.outer, "object")
        assert.strictEqual(one.outer, one.outerAfterwards)
        assert.strictEqual(one.first, one.again)
        assert.strictEqual(new Set([one.outer, one.first, one.second, other.outer, other.first, other.second]).size, 6)
      })
  )

  check("a fiber forked inside a transaction is in it", () =>
    Effect.gen(function*() {
      const topic = yield* cleanOutbox
      const [outer, inner] = yield* transaction(Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(Effect.andThen(append(topic, 1, ["forked"]), level))
        return [yield* level, yield* Fiber.join(fiber)]
      }))
      assert.strictEqual(outer, inner)
      assert.deepStrictEqual(yield* storedTexts(topic), ["forked"])
    }))

  check(
    "a fiber that outlives its transaction cannot append any more, and writes into nobody else's",
    () =>
      Effect.gen(function*() {
        const topic = yield* cleanOutbox
        const ended = yield* Deferred.make<void>()
        const scope = yield* Effect.scope
        const stray = yield* transaction(
          Effect.forkIn(Effect.andThen(Deferred.await(ended), Effect.exit(append(topic, 1, ["stray"]))), scope)
        )
        yield* Deferred.succeed(ended, undefined)
        const exit = yield* Fiber.join(stray)
        const error = yield* Effect.flip(exit)
        assert.isTrue(isMessageStoreError(error))
        assert.deepStrictEqual(yield* storedTexts(topic), [])
      })
  )

  check(
    "a transaction that lost a race runs once, and the error says that it may run again",
    () =>
      Effect.gen(function*() {
        const store = yield* MessageStore
        const topic = yield* freshName("suite")
        const conflict = new MessageStoreError({
          reason: new Conflict({ operation: "test", detail: "deadlock", cause: new Error("deadlock") })
        })
        let runs = 0
        const error = yield* Effect.flip(store.transaction(Effect.suspend(() => {
          runs += 1
          return Effect.andThen(write(topic, "lost"), Effect.fail(conflict))
        })))
        assert.strictEqual(error, conflict)
        assert.strictEqual(runs, 1)
        assert.isTrue(store.isConflict(error))
        assert.isFalse(store.isConflict(new Error("something else")))
        assert.strictEqual(yield* read(topic), undefined)
      })
  )

  check(
    "who asks for a key that another transaction holds waits for its end; for another key, not at all",
    () =>
      Effect.gen(function*() {
        const store = yield* MessageStore
        // Always the same: unrelated keys may share a lock, and these do not.
        const topic = "locks"
        const lock = (...keys: readonly [string, ...Array<string>]) =>
          store.outbox.lock(Arr.map(keys, (key) => ({ topic, key })))
        const held = yield* Deferred.make<void>()
        const release = yield* Deferred.make<void>()
        const order: Array<string> = []
        const first = yield* Effect.forkChild(store.transaction(Effect.gen(function*() {
          yield* lock("a", "b")
          yield* Deferred.succeed(held, undefined)
          yield* Deferred.await(release)
          order.push("first")
        })))
        yield* Deferred.await(held)
        const second = yield* Effect.forkChild(
          store.transaction(Effect.andThen(lock("c", "b", "b"), Effect.sync(() => order.push("second"))))
        )
        if (features.concurrentTransactions) yield* store.transaction(lock("other", "keys"))
        // Had it not waited, it would be through by now.
        for (let i = 0; i < 10; i++) {
          yield* features.concurrentTransactions ? store.outbox.read({ parts: [0], limit: 1 }) : Effect.yieldNow
        }
        assert.deepStrictEqual(order, [])
        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(first)
        yield* Fiber.join(second)
        assert.deepStrictEqual(order, ["first", "second"])
      })
  )
}

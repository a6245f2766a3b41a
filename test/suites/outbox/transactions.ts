/** Transactions: which events leave, and which never do. */
import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Schema from "effect/Schema"
import { MessageStore } from "../../../src/MessageStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import * as Topic from "../../../src/Topic.ts"
import {
  alphabetical,
  ascending,
  created,
  freshPage,
  freshTopic,
  type FrontFeatures,
  headerText,
  Item,
  items,
  type ItemTopic,
  Ledger,
  partitionsOf,
  recordsOf,
  relayed,
  type Services,
  text,
  upTo
} from "../consumer/support.ts"
import { cases, freshName, type It } from "../features.ts"

export const transactions = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  /** The numbers of all events in a topic's log, once the outbox is empty. */
  const sent = (topic: ItemTopic) =>
    Effect.andThen(
      relayed,
      Effect.map(
        recordsOf(topic.name, partitionsOf(topic)),
        (records) => records.map((record): number => JSON.parse(text(record.value)!).n)
      )
    )

  const write = (page: string, line: string) => Ledger.use((ledger) => ledger.write(page, line))
  const read = (page: string) => Ledger.use((ledger) => ledger.read(page))

  check(
    "a committed transaction's rows and events are there; of one that fails, dies or is interrupted neither",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic()
        const page = yield* freshPage
        const work = (n: number, end: Effect.Effect<void, string>) =>
          Effect.gen(function*() {
            yield* write(page, String(n))
            yield* Outbox.publish(topic, { key: `key-${n}`, n })
            yield* end
          }).pipe(Outbox.transaction)
        yield* work(1, Effect.void)
        assert.strictEqual(yield* Effect.flip(work(2, Effect.fail("no"))), "no")
        assert.isTrue(Exit.hasDies(yield* Effect.exit(work(3, Effect.die(new Error("bug"))))))
        const reached = yield* Deferred.make<void>()
        const hanging = yield* Effect.forkChild(
          work(4, Effect.andThen(Deferred.succeed(reached, undefined), Effect.never))
        )
        yield* Deferred.await(reached)
        yield* Fiber.interrupt(hanging)
        yield* work(5, Effect.void)
        assert.deepStrictEqual(ascending(yield* sent(topic)), [1, 5])
        assert.deepStrictEqual(yield* read(page), ["1", "5"])
      })
  )

  check(
    "a nested transaction that rolls back takes exactly its own rows and events with it",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const page = yield* freshPage
        const step = (n: number) => Effect.andThen(write(page, String(n)), Outbox.publish(topic, { key: "k", n }))
        yield* Effect.gen(function*() {
          yield* step(1)
          yield* Effect.gen(function*() {
            yield* step(2)
            yield* step(3).pipe(Outbox.transaction)
            return yield* Effect.fail("no")
          }).pipe(Outbox.transaction, Effect.catch(() => Effect.void))
          yield* Effect.gen(function*() {
            yield* step(4)
            yield* Effect.andThen(step(5), Effect.fail("no")).pipe(Outbox.transaction, Effect.catch(() => Effect.void))
          }).pipe(Outbox.transaction)
          yield* step(6)
        }).pipe(Outbox.transaction)
        assert.deepStrictEqual(yield* sent(topic), [1, 4, 6])
        assert.deepStrictEqual(yield* read(page), ["1", "4", "6"])
      })
  )

  check(
    "transactions that overlap and commit in the opposite order all arrive, and the one that rolls back does not",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const begun = yield* Effect.forEach([0, 1, 2, 3], () => Deferred.make<void>())
        const latches = [0, 1, 2, 3].map(() => Latch.makeUnsafe(!features.concurrentTransactions))
        const work = (n: number) =>
          Effect.gen(function*() {
            yield* Outbox.publish(topic, { key: `key-${n}`, n })
            yield* write("overlapping", String(n))
            yield* Deferred.succeed(begun[n]!, undefined)
            yield* latches[n]!.await
            if (n === 2) return yield* Effect.fail("rolled back")
          }).pipe(Outbox.transaction, Effect.exit)
        // Where two transactions cannot be open at once they run one after another in that order.
        const order = [3, 2, 1, 0]
        if (features.concurrentTransactions) {
          const fibers: Array<Fiber.Fiber<Exit.Exit<void, unknown>, unknown>> = []
          for (const n of upTo(4)) {
            fibers.push(yield* Effect.forkChild(work(n)))
            yield* Deferred.await(begun[n]!)
          }
          for (const n of order) {
            yield* latches[n]!.open
            assert.strictEqual(Exit.isSuccess(yield* Fiber.join(fibers[n]!)), n !== 2)
          }
        } else {
          for (const n of order) assert.strictEqual(Exit.isSuccess(yield* work(n)), n !== 2)
        }
        assert.deepStrictEqual(ascending(yield* sent(topic)), [0, 1, 3])
      })
  )

  check(
    "the events of one transaction arrive in the order of the calls, also where they take several statements",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const ids = yield* Outbox.publishAll(topic, items(1_200, 1)).pipe(Outbox.transaction)
        yield* relayed
        const records = yield* recordsOf(topic.name, 1)
        assert.deepStrictEqual(records.map((record): number => JSON.parse(text(record.value)!).n), upTo(1_200))
        assert.deepStrictEqual(records.map((record) => headerText(record, "ce_id")), ids)
      })
  )

  check("an event leaves with the id, key, type and headers that it was published with", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const id = yield* Outbox.publish(topic, new Item({ key: "ada", n: 1 }), {
        id: "order-1",
        headers: { tenant: "t-1" }
      }).pipe(Outbox.transaction)
      yield* relayed
      const [record, ...more] = yield* recordsOf(topic.name, 2)
      assert.deepStrictEqual(more, [])
      assert.strictEqual(id, "order-1")
      assert.strictEqual(text(record!.key), "ada")
      const header = (name: string) => headerText(record!, name)
      assert.deepStrictEqual(
        [header("ce_id"), header("ce_type"), header("ce_subject"), header("tenant"), header("content-type")],
        ["order-1", "Item", "ada", "t-1", "application/json"]
      )
      assert.isNotEmpty(header("ce_source"))
      assert.match(header("ce_time")!, /^\d{4}-\d{2}-\d{2}T[\d:.]+Z$/)
    }))

  check(
    "what cannot be sent fails in the transaction with a sentence, and blocks nothing else",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const small = Topic.make(topic.name, { schema: Schema.String, maxBytes: 400 })
        const picky = Topic.make(topic.name, { schema: Schema.String.check(Schema.isMinLength(5)) })
        const illegal = Topic.make("not a topic!", { schema: Schema.String })
        const reasonOf = <A, E extends { readonly _tag: string; readonly reason?: unknown }, R>(
          effect: Effect.Effect<A, E, R>
        ) => Effect.map(Effect.flip(effect), (error) => (error.reason as { readonly _tag: string })._tag)
        const reasons = yield* Effect.gen(function*() {
          yield* Outbox.publish(topic, { key: "k", n: 1 })
          const found = [
            yield* reasonOf(Outbox.publish(small, "x".repeat(1_000))),
            yield* reasonOf(Outbox.publish(picky, "abc")),
            yield* reasonOf(Outbox.publish(illegal, "abc")),
            yield* reasonOf(Outbox.publishAll(picky, ["long enough", "abc"]))
          ]
          yield* Outbox.publish(topic, { key: "k", n: 2 })
          return found
        }).pipe(Outbox.transaction)
        assert.deepStrictEqual(reasons, ["PayloadTooLarge", "InvalidPayload", "InvalidTopic", "InvalidPayload"])
        assert.deepStrictEqual(yield* sent(topic), [1, 2])
      })
  )

  check(
    "a fiber that outlives its transaction, or is in a savepoint unknown to it, cannot slip an event in",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const ended = Latch.makeUnsafe(false)
        const late = yield* Effect.gen(function*() {
          yield* Outbox.publish(topic, { key: "k", n: 1 })
          const store = yield* MessageStore
          const inner = yield* Effect.flip(store.transaction(Outbox.publish(topic, { key: "k", n: 2 })))
          assert.strictEqual(inner._tag === "PublishError" ? inner.reason._tag : inner._tag, "TransactionEnded")
          return yield* Effect.forkDetach(
            Effect.andThen(ended.await, Effect.flip(Outbox.publish(topic, { key: "k", n: 3 })))
          )
        }).pipe(Outbox.transaction)
        yield* ended.open
        const error = yield* Fiber.join(late)
        assert.strictEqual(error.reason._tag, "TransactionEnded")
        assert.deepStrictEqual(yield* sent(topic), [1])
      })
  )

  check("a tombstone and an event without a key go through the outbox as they are", () =>
    Effect.gen(function*() {
      const name = yield* freshName("front")
      const topic = yield* created(
        Topic.make(name, { schema: Schema.NullOr(Schema.String), create: { partitions: 1 } })
      )
      yield* Effect.gen(function*() {
        yield* Outbox.publish(topic, null, { key: "gone" })
        yield* Outbox.publish(topic, "no key")
        yield* Outbox.publish(topic, "empty key", { key: "" })
      }).pipe(Outbox.transaction)
      yield* relayed
      const records = yield* recordsOf(name, 1)
      const found = records.map((record) => `${text(record.key)}: ${text(record.value)}`)
      assert.deepStrictEqual(alphabetical(found), alphabetical(["gone: null", "null: \"no key\"", ": \"empty key\""]))
    }))

  check(
    "transactions that serialise by key, in any order of the keys, all commit and are all sent",
    () =>
      Effect.gen(function*() {
        const name = yield* freshName("serial")
        const topic = yield* created(Topic.make(name, {
          schema: Item,
          key: (item) => item.key,
          create: { partitions: 2 },
          serialize: true
        }))
        yield* Effect.forEach(upTo(40), (n) => {
          const keys = n % 2 === 0 ? ["a", "b", "c"] : ["c", "b", "a"]
          return Effect.gen(function*() {
            for (const [i, key] of keys.entries()) yield* Outbox.publish(topic, new Item({ key, n: n * 3 + i }))
            yield* Outbox.publish(topic, new Item({ key: `own-${n}`, n: 1_000 + n }), { serialize: n % 3 === 0 })
          }).pipe(Outbox.transaction)
        }, { concurrency: features.concurrentTransactions ? 8 : 1, discard: true })
        assert.deepStrictEqual(ascending(yield* sent(topic)), [...upTo(120), ...upTo(40).map((n) => 1_000 + n)])
      })
  )
}

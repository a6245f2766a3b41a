/** Failpoints: one at each step of an event's way, and those of a program's own. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Consumer from "../src/Consumer.ts"
import * as FailurePolicy from "../src/FailurePolicy.ts"
import * as Memory from "../src/Layers/Memory.ts"
import { MessageStore } from "../src/MessageStore.ts"
import * as Outbox from "../src/Outbox.ts"
import * as Testing from "../src/Testing.ts"
import * as Topic from "../src/Topic.ts"

const Orders = Topic.make("orders", { schema: Schema.Struct({ id: Schema.Number }), create: { partitions: 1 } })

/** What passes, and who waits for a step. */
const makePassed = () => {
  const passed: Array<string> = []
  const waiting = new Map<string, Deferred.Deferred<void>>()
  return {
    passed,
    action: (step: string) =>
      Effect.sync(() => {
        passed.push(step)
        const waiter = waiting.get(step)
        if (waiter !== undefined) Deferred.doneUnsafe(waiter, Effect.void)
      }),
    at: (step: string) => {
      const waiter = Deferred.makeUnsafe<void>()
      waiting.set(step, waiter)
      return Deferred.await(waiter)
    }
  }
}

describe("failpoints", () => {
  it.live("stand at every step, in the order in which an event comes by", () =>
    Effect.gen(function*() {
      const { action, at, passed } = makePassed()
      yield* Effect.gen(function*() {
        const broken = Consumer.exactlyOnce(
          Orders,
          () => Effect.andThen(Testing.failpoint("own"), Effect.fail("no")),
          { onFailure: { ...FailurePolicy.save(), retry: Schedule.recurs(0) } }
        )
        yield* Effect.scoped(Effect.gen(function*() {
          const committed = at("broker-commit")
          yield* Layer.build(Layer.merge(Outbox.layerRelay(), Consumer.layer("billing", [broken])))
          yield* Outbox.transaction(Outbox.publish(Orders, { id: 1 }))
          yield* committed
        }))
        yield* Effect.scoped(Effect.gen(function*() {
          const committed = at("store-commit")
          yield* Layer.build(Layer.merge(
            Outbox.layerRelay(),
            Consumer.layer("shipping", [Consumer.exactlyOnce(Orders, () => Effect.void)])
          ))
          yield* committed
        }))
        yield* MessageStore.use((store) => store.inbox.prune(Duration.hours(1)))
      }).pipe(Effect.provide(Layer.fresh(Testing.layerFailpoints(action)).pipe(Layer.provide(Memory.layer))))
      const first = Array.from(new Set(passed)).filter((step) => step !== "lease-renewal" && step !== "hand-over")
      assert.deepStrictEqual(first, [
        "insert",
        "commit",
        "read",
        "produce",
        "ack",
        "delete",
        "inbox-claim",
        "own",
        "dead-letter-write",
        "broker-commit",
        "store-commit",
        "prune"
      ])
      assert.includeMembers(passed, ["lease-renewal", "hand-over"])
      assert.deepStrictEqual(Testing.steps.filter((step) => !passed.includes(step)), [])
    }))

  it.live("hand on what they are given, and stand where sent events are kept, too", () =>
    Effect.gen(function*() {
      const { action, at } = makePassed()
      const bounds: Array<Duration.Duration | undefined> = []
      const watched = Layer.effect(
        MessageStore,
        MessageStore.use((store) =>
          Effect.succeed(MessageStore.of({
            ...store,
            inbox: {
              ...store.inbox,
              claim: (consumer, keys, idleAtMost) => {
                bounds.push(idleAtMost)
                return store.inbox.claim(consumer, keys, idleAtMost)
              }
            }
          }))
        )
      ).pipe(Layer.provideMerge(Memory.layer))
      yield* Effect.gen(function*() {
        const kept = at("delete")
        const applied = at("store-commit")
        yield* Layer.build(Layer.merge(
          Outbox.layerRelay({ keep: "1 hour" }),
          Consumer.layer("billing", [Consumer.exactlyOnce(Orders, () => Effect.void)])
        ))
        yield* Outbox.transaction(Outbox.publish(Orders, { id: 1 }))
        yield* Effect.andThen(kept, applied)
      }).pipe(Effect.scoped, Effect.provide(Layer.fresh(Testing.layerFailpoints(action)).pipe(Layer.provide(watched))))
      assert.isAbove(bounds.length, 0)
      assert.notInclude(bounds, undefined)
    }))

  it.effect("are not there without the Layer", () =>
    Effect.gen(function*() {
      assert.isUndefined(yield* Testing.failpoint("own"))
    }))
})

/** Joins that KafkaJS begins side by side: one at a time, and what one has brought ends before the next is announced. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Queue from "effect/Queue"
import type { Signal } from "../../../src/Broker.ts"
import type { Settings } from "../../../src/Layers/internal/kafka/settings.ts"
import * as Coordinator from "../../../src/Layers/internal/kafkajs/coordinator.ts"
import * as Grants from "../../../src/Layers/internal/kafkajs/grants.ts"
import type { Network, Node } from "../../../src/Layers/internal/kafkajs/internals.ts"

/** Lets everything run that is ready. */
const settle = Effect.repeat(Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve))), { times: 20 })

const join = { groupId: "group" } as Parameters<Node["joinGroup"]>[0]

describe("joins of one member", () => {
  it.live("of those that wait for one that fails, one goes on, and the next when that has ended", () =>
    Effect.gen(function*() {
      const begun = yield* Queue.unbounded<void>()
      const failure = Object.assign(new Error("not now"), { type: "REBALANCE_IN_PROGRESS" })
      const node = { joinGroup: () => Promise.reject(failure) } as unknown as Node
      const network = { findGroupCoordinator: () => Promise.resolve(node) } as unknown as Network
      const coordinator = yield* Coordinator.install(network, "group", {
        beforeJoin: Effect.asVoid(Queue.offer(begun, undefined)),
        onEvicted: () => {},
        onReset: () => {}
      })
      const ask = Effect.promise(() => network.findGroupCoordinator({ groupId: "group" }))
      const standIn = yield* ask
      yield* Queue.take(begun)
      const waiting = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(ask))
      yield* settle
      assert.strictEqual(yield* Queue.size(begun), 0)

      yield* Effect.flip(Effect.tryPromise(() => standIn.joinGroup(join)))
      for (let left = waiting.length; left > 0; left--) {
        yield* Queue.take(begun)
        yield* settle
        assert.strictEqual(yield* Queue.size(begun), 0, "two joins side by side")
        coordinator.joined()
      }
      yield* Effect.forEach(waiting, Fiber.join)
    }))

  it.live("what one has granted is lost before what the next grants is assigned", () =>
    Effect.gen(function*() {
      const signals: Array<string> = []
      let epochs = 0
      const grants = yield* Grants.make({
        settings: { topicPrefix: "" } as Settings,
        nextEpoch: () => ++epochs,
        onSignal: (signal: Signal) =>
          Effect.sync(() => {
            if (signal._tag === "Records") signals.push(`Records ${signal.assignment.epoch}`)
            else {for (const { epoch, partition } of signal.assignments) {
                signals.push(`${signal._tag} ${partition}@${epoch}`)
              }}
          })
      })
      yield* Grants.grant(grants, { orders: [0, 1] })
      const old = Grants.open(grants, "orders", 0)!
      yield* Grants.grant(grants, { orders: [1] })
      yield* Grants.deliver(grants, old, [], "7")
      assert.deepStrictEqual(signals, ["Assigned 0@1", "Assigned 1@1", "Lost 0@1", "Lost 1@1", "Assigned 1@2"])
      assert.isFalse(Grants.mayCommit(grants, { topic: "orders", partition: 1, epoch: 1 }))
      assert.isTrue(Grants.mayCommit(grants, { topic: "orders", partition: 1, epoch: 2 }))
      yield* Grants.lose(grants)
      assert.strictEqual(signals.at(-1), "Lost 1@2")
    }))
})

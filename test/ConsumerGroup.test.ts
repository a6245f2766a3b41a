/** The status of groups as a program sees it: what a Layer says, logs once, and lists in Health. */
import { assert, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Consumer from "../src/Consumer.ts"
import * as ConsumerGroup from "../src/ConsumerGroup.ts"
import * as FailurePolicy from "../src/FailurePolicy.ts"
import * as Health from "../src/Health.ts"
import * as Memory from "../src/Layers/Memory.ts"
import * as Publisher from "../src/Publisher.ts"
import * as Topic from "../src/Topic.ts"
import { pass, settle } from "./support/scriptedFeed.ts"

/** Partitions of the topic itself: a group reads its dead letters, too. */
const ofOrders = (partitions: ReadonlyArray<ConsumerGroup.Partition>) =>
  partitions.filter(({ topic }) => topic === "orders")

const Orders = Topic.make("orders", { schema: Schema.Struct({ n: Schema.Number }), create: { partitions: 1 } })

const inProcess = <A, E, R>(effect: Effect.Effect<A, E, R>, lines: Array<string> = [], broker = Memory.layer) =>
  effect.pipe(
    Effect.scoped,
    Effect.provideService(ConsumerGroup.Members, new Set()),
    Effect.provideService(Health.Parts, new Map()),
    Effect.provide([
      broker,
      Logger.layer([
        Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
      ])
    ])
  )

it.effect("a partition that gets stuck is logged once and listed by Health, and once more when it moves", () => {
  const lines: Array<string> = []
  const about = () => lines.filter((line) => line.includes("stuck"))
  return inProcess(
    Effect.gen(function*() {
      const gate = Deferred.makeUnsafe<void>()
      const Bill = Consumer.idempotent(Orders, () => Deferred.await(gate), {
        name: "bill",
        onFailure: { ...FailurePolicy.save(), timeout: "1 hour" }
      })
      yield* Layer.build(Consumer.layer("billing", [Bill], { stuckAfter: "1 minute" }))
      yield* Publisher.publish(Orders, { n: 1 })
      yield* pass("59 seconds")
      assert.deepStrictEqual(about(), [])
      yield* pass("10 minutes")
      assert.deepStrictEqual(about(), ["Error A partition is stuck"])
      const parts = yield* Health.check
      assert.deepStrictEqual(parts.map(({ state }) => state), ["Running", "Stuck"])
      const [, part] = parts
      assert.isTrue(part?.state === "Stuck" && part.reason.startsWith("orders/0: Handler \"bill\" has run"))
      assert.isTrue(yield* Health.isHealthy)

      yield* Deferred.succeed(gate, undefined)
      yield* pass("10 minutes")
      assert.deepStrictEqual(about(), ["Error A partition is stuck", "Info A stuck partition moves again"])
      assert.deepStrictEqual((yield* Health.check).map(({ state }) => state), ["Running"])
    }),
    lines
  )
})

it.effect("a group that cannot run is failing, with the reason, until it runs again", () =>
  inProcess(Effect.gen(function*() {
    const memory = yield* Memory.MemoryBroker
    yield* Layer.build(Consumer.layer("billing", [Consumer.idempotent(Orders, () => Effect.void)]))
    yield* memory.deleteTopic("orders")
    yield* settle
    const [failing] = yield* ConsumerGroup.status("billing")
    assert.deepStrictEqual([failing?.state, failing?.partitions], ["failing", []])
    assert.include(failing?.reason, "orders")
    yield* pass("6 seconds")
    const [running] = yield* ConsumerGroup.status("billing")
    assert.deepStrictEqual([running?.state, ofOrders(running?.partitions ?? []).length], ["running", 1])
  })))

it.effect("only the group that was asked for is told of; broadcast commits nothing", () =>
  inProcess(Effect.gen(function*() {
    const log = () => Effect.void
    yield* Layer.build(Layer.mergeAll(
      Consumer.layer("billing", [Consumer.idempotent(Orders, log), Consumer.broadcast(Orders, log, { name: "all" })]),
      Consumer.layer("shipping", [Consumer.idempotent(Orders, log)])
    ))
    yield* Publisher.publish(Orders, { n: 1 })
    yield* pass("2 seconds")
    const all = yield* ConsumerGroup.status()
    assert.sameMembers(all.map(({ group }) => group), ["billing", "(broadcast)", "shipping"])
    assert.deepStrictEqual((yield* ConsumerGroup.status("shipping")).map(({ group }) => group), ["shipping"])
    const positions = all.flatMap(({ group, partitions }) =>
      ofOrders(partitions).map(({ committed }) => [group, committed])
    )
    assert.sameDeepMembers(positions, [["billing", "1"], ["(broadcast)", null], ["shipping", "1"]])
  })))

it.effect("an open stream says whether its events wait to be pulled or to be committed", () =>
  inProcess(Effect.gen(function*() {
    const gate = Deferred.makeUnsafe<void>()
    yield* Effect.forkChild(
      Consumer.stream(Orders, { name: "pipe" }).pipe(
        Stream.tap(() => Deferred.await(gate)),
        Stream.runDrain,
        Consumer.inGroup("audit")
      )
    )
    yield* settle
    yield* Publisher.publish(Orders, { n: 1 })
    yield* settle
    const first = (yield* ConsumerGroup.status("audit"))[0]!.partitions[0]!
    assert.deepStrictEqual([first.waiting?.for, first.waiting?.offset], ["commit", "0"])
    assert.match(first.reason, /^The stream "pipe" was given offset 0 and has not committed it/)
    assert.strictEqual(first.verdict, "ok")
    yield* pass("361 seconds")
    assert.strictEqual((yield* ConsumerGroup.status("audit"))[0]?.verdict, "stuck")
  })))

it.effect("an undecodable record whose dead letter cannot be written holds a stream, and is named", () =>
  inProcess(
    Effect.gen(function*() {
      const memory = yield* Memory.MemoryBroker
      yield* Effect.forkChild(
        Consumer.stream(Orders).pipe(Stream.runDrain, Consumer.inGroup("audit"))
      )
      yield* settle
      yield* memory.deleteTopic("orders.audit.dead-letter")
      yield* Publisher.publish(Topic.make("orders", { schema: Schema.Unknown }), "no order")
      yield* pass("90 seconds")
      const partition = (yield* ConsumerGroup.status("audit"))[0]!.partitions[0]!
      assert.strictEqual(partition.waiting?.for, "deadLetter")
    }),
    [],
    Layer.merge(Memory.layerBrokerWith({ autoCreate: false }), Memory.layerStore)
  ))

it.effect("a `stuckAfter` that is not positive is refused", () =>
  inProcess(Effect.gen(function*() {
    for (const stuckAfter of [0, -1, "-1 minutes"] as const) {
      const error = yield* Effect.flip(
        Layer.build(
          Consumer.layer("billing", [Consumer.idempotent(Orders, () => Effect.void)], {
            stuckAfter: stuckAfter as never
          })
        )
      )
      assert.strictEqual(error.reason._tag, "InvalidOption")
      assert.include(error.message, "stuckAfter")
    }
  })))

/** Handlers that block the event loop, for real: afterwards one line names those that ran. */
import { assert, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import { performance } from "node:perf_hooks"
import * as Consumer from "../../../../src/Consumer.ts"
import * as EventLoop from "../../../../src/internal/consumer/status/eventLoop.ts"
import * as Memory from "../../../../src/Layers/Memory.ts"
import * as Publisher from "../../../../src/Publisher.ts"
import * as Topic from "../../../../src/Topic.ts"

const Orders = Topic.make("orders", {
  schema: Schema.Struct({ n: Schema.Number, millis: Schema.Number }),
  key: ({ n }) => `key-${n}`,
  create: { partitions: 1 }
})

const busy = (millis: number) => {
  const until = performance.now() + millis
  while (performance.now() < until);
}

interface Stall {
  readonly blockedMillis: number
  readonly running: number
  readonly handlers: ReadonlyArray<{
    readonly handler: string
    readonly topic: string
    readonly partition: number
    readonly offset: string
    readonly key: string
    readonly ageMillis: number
  }>
}

const makeStalls = () => {
  const all: Array<Stall> = []
  const wanted: Array<{ readonly count: number; readonly met: Deferred.Deferred<void> }> = []
  const logger = Logger.make<unknown, void>(({ fiber, logLevel, message }) => {
    if (!String(message).startsWith("The event loop was blocked")) return
    assert.strictEqual(logLevel, "Warn")
    all.push(fiber.getRef(References.CurrentLogAnnotations) as unknown as Stall)
    for (const { count, met } of wanted) if (all.length >= count) Deferred.doneUnsafe(met, Effect.void)
  })
  const until = (count: number) =>
    Effect.suspend(() => {
      const met = Deferred.makeUnsafe<void>()
      if (all.length >= count) return Effect.void
      wanted.push({ count, met })
      return Deferred.await(met)
    })
  return { all, until, layer: Logger.layer([logger]) }
}

it.live(
  "a handler that blocked for two seconds is named, beside what ran meanwhile, once, in a line of its own",
  () => {
    const stalls = makeStalls()
    return Effect.gen(function*() {
      const waits = Deferred.makeUnsafe<void>()
      const began = Deferred.makeUnsafe<void>()
      const Other = Consumer.idempotent(
        Orders,
        () => Effect.andThen(Deferred.succeed(began, undefined), Deferred.await(waits)),
        { name: "other" }
      )
      // Ends right after it has blocked: when the line is written it runs no more.
      const Blocks = Consumer.idempotent(Orders, ({ payload }) => Effect.sync(() => busy(payload.millis)), {
        name: "blocks"
      })
      yield* Layer.build(Layer.mergeAll(Consumer.layer("one", [Blocks]), Consumer.layer("two", [Other])))
      yield* Publisher.publish(Orders, { n: 1, millis: 0 })
      yield* Deferred.await(began)
      yield* Publisher.publish(Orders, { n: 2, millis: 2_000 })
      yield* stalls.until(1)
      const [stall] = stalls.all
      assert.isAtLeast(stall!.blockedMillis, 1_900)
      const named = stall!.handlers.map(({ handler, key, offset, partition, topic }) => ({
        handler,
        key,
        offset,
        partition,
        topic
      }))
      const place = { topic: "orders", partition: 0 }
      assert.deepInclude(named, { handler: "blocks", key: "key-2", offset: "1", ...place })
      assert.deepInclude(named, { handler: "other", key: "key-1", offset: "0", ...place })
      // What was long through when it began is innocent.
      assert.notDeepInclude(named, { handler: "blocks", key: "key-1", offset: "0", ...place })
      assert.isAtLeast(stall!.handlers.find(({ handler }) => handler === "blocks")!.ageMillis, 2_000)
      assert.strictEqual(stall!.running, stall!.handlers.length)

      yield* Publisher.publish(Orders, { n: 3, millis: 1_200 })
      yield* stalls.until(2)
      const keys = stalls.all[1]!.handlers.filter(({ handler }) => handler === "blocks").map(({ key }) => key)
      assert.deepStrictEqual(keys, ["key-3"])
      yield* Deferred.succeed(waits, undefined)
    }).pipe(Effect.scoped, Effect.provide([stalls.layer, Memory.layer]))
  },
  30_000
)

it.live("many short ones that never yield do not block it together: slots change hands in between", () => {
  const stalls = makeStalls()
  return Effect.gen(function*() {
    const all = Deferred.makeUnsafe<void>()
    const Blocks = Consumer.idempotent(Orders, ({ payload }) =>
      Effect.sync(() => {
        busy(payload.millis)
        if (payload.n === 11) Deferred.doneUnsafe(all, Effect.void)
      }), { concurrency: 1 })
    yield* Publisher.publishAll(Orders, Array.from({ length: 12 }, (_, n) => ({ n, millis: 150 })))
    yield* Layer.build(Consumer.layer("one", [Blocks]))
    yield* Deferred.await(all)
    // A stall is noticed by the next tick.
    yield* Effect.sleep(EventLoop.tickMillis * 3)
    assert.deepStrictEqual(stalls.all, [])
  }).pipe(Effect.scoped, Effect.provide([stalls.layer, Memory.layer]))
}, 30_000)

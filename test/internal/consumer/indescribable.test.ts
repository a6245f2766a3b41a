/** Failures that cannot be put into words: what a handler throws may throw itself when it is looked at. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Consumer from "../../../src/Consumer.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import * as Publisher from "../../../src/Publisher.ts"
import { itemTopic } from "../../suites/consumer/support.ts"
import { pass, retries } from "../../support/scriptedFeed.ts"

const indescribable: ReadonlyArray<readonly [name: string, value: unknown]> = [
  ["an object without a prototype", Object.create(null)],
  ["an object whose text throws", {
    toString: () => {
      throw new Error("toString")
    }
  }],
  [
    "an error whose message throws",
    Object.defineProperty(new Error("x"), "message", {
      get: () => {
        throw new Error("message")
      }
    })
  ],
  ["an object whose tag throws", {
    get _tag() {
      throw new Error("tag")
    }
  }]
]

const topic = itemTopic("items", 1)

/** The middle one of three events of one key throws `value`; returns what was applied, tried, saved and logged. */
const throwing = Effect.fnUntraced(function*(value: unknown) {
  const broker = yield* Memory.MemoryBroker
  const applied: Array<number> = []
  let attempts = 0
  const consume = Consumer.idempotent(topic, ({ payload }) =>
    Effect.sync(() => {
      if (payload.n !== 1) return void applied.push(payload.n)
      attempts++
      throw value
    }), { onFailure: { ...FailurePolicy.save(), retry: retries(1) } })
  const scope = yield* Scope.make()
  yield* Layer.buildWithScope(Consumer.layer("group", [consume]), scope)
  yield* Publisher.publishAll(topic, [0, 1, 2].map((n) => ({ key: "a", n })))
  yield* pass(60_000)
  const saved = (yield* broker.records("items.group.dead-letter")).length
  const committed = yield* broker.committed("group", { topic: topic.name, partition: 0 })
  const stopping = yield* Effect.forkChild(Scope.close(scope, Exit.void))
  yield* pass("1 hour")
  yield* Fiber.join(stopping)
  return { applied, attempts, saved, committed }
}, Effect.provide(Memory.layer))

const through = { applied: [0, 2], attempts: 1, saved: 1, committed: 3n }

describe("a handler that throws", () => {
  for (const [name, value] of indescribable) {
    it.effect(`${name} fails its event only: it is saved once, and its key goes on`, () =>
      throwing(value).pipe(
        Effect.tap((found) => Effect.sync(() => assert.deepStrictEqual(found, through))),
        Effect.provideService(References.MinimumLogLevel, "None")
      ))

    it.effect(`${name} while somebody reads the logs fails its event only`, () =>
      throwing(value).pipe(
        Effect.tap((found) => Effect.sync(() => assert.deepStrictEqual(found, through))),
        Effect.provide(Logger.layer([Logger.map(Logger.formatSimple, () => {})])),
        Effect.provideService(References.MinimumLogLevel, "Info")
      ))
  }
})

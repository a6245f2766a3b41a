/** What is said of a handler that never ends. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as References from "effect/References"
import * as Consumer from "../../../src/Consumer.ts"
import * as Memory from "../../../src/Layers/Memory.ts"
import * as Publisher from "../../../src/Publisher.ts"
import { itemTopic, savingAtOnce } from "../../suites/consumer/support.ts"
import { pass } from "../../support/scriptedFeed.ts"

const topic = itemTopic("items", 1)

describe("a handler that never ends", () => {
  it.effect("is interrupted at its timeout, and the log says its key, its offset and how long it ran", () => {
    const lines: Array<string> = []
    const logger = Logger.map(Logger.formatJson, (line) => void lines.push(line))
    return Effect.gen(function*() {
      yield* Layer.build(Consumer.layer("group", [
        Consumer.idempotent(topic, () => Effect.never, { onFailure: { ...savingAtOnce, timeout: "7 seconds" } })
      ]))
      yield* Publisher.publish(topic, { key: "first", n: 0 }, { key: "the-key-of-it" })
      yield* pass(10_000)
      const line = lines.find((line) => line.includes("HandlerTimeout")) ?? lines.find((line) => line.includes("ERROR"))
      assert.include(line, "7000")
      assert.match(line!, /"offset":"?0/)
      assert.include(line, "the-key-of-it")
    }).pipe(
      Effect.provide(Layer.merge(Memory.layer, Logger.layer([logger]))),
      Effect.provideService(References.MinimumLogLevel, "Info")
    )
  })
})

/** Members that leave while brokers come and go. On Kafka of their own. */
import { describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { requireOrSkip } from "../support/services.ts"
import { start } from "./processes.ts"
import { freshSettings } from "./stage.ts"

describe.skipIf(requireOrSkip("kafka", "postgres"))("members that leave", () => {
  // As a process of its own: one that stands still cannot notice it.
  it.live(
    "while they find out that a broker is gone do not bring their process to a standstill",
    () =>
      Effect.gen(function*() {
        const leaving = yield* start("leaving", yield* freshSettings)
        yield* leaving.said.until("a broker is gone", (said) => said.some(({ word }) => word === "stopped"))
        yield* leaving.said.until("all have left", (said) => said.some(({ word }) => word === "left"))
      }),
    360_000
  )
})

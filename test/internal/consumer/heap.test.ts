/** What a consumer keeps on the heap does not grow with what it has seen. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const program = fileURLToPath(new URL("../../support/heapProgram.ts", import.meta.url))

const measured = <A>(what: string): Effect.Effect<A> =>
  Effect.promise((signal) => promisify(execFile)(process.execPath, ["--expose-gc", program, what], { signal })).pipe(
    Effect.map(({ stdout }) => JSON.parse(stdout) as A)
  )

const median = (values: ReadonlyArray<number>): number => [...values].sort((a, b) => a - b)[values.length >> 1]!

const maxSpan = 10_000
const chunk = 500

describe("heap", () => {
  it.live("stays level over a million records through 100 slots", () =>
    Effect.gen(function*() {
      const { samples } = yield* measured<{ readonly samples: ReadonlyArray<number> }>("million")
      const first = median(samples.slice(0, 10))
      const last = median(samples.slice(-10))
      assert.strictEqual(samples.length, 100)
      assert.isAtMost(last / first, 1.1, `${first} bytes at first, ${last} at last`)
    }), 600_000)

  it.live(
    "is bounded by the span behind a record that is stuck",
    () =>
      Effect.gen(function*() {
        const { atFirst, atStall, handed } = yield* measured<{
          readonly atFirst: number
          readonly atStall: number
          readonly handed: number
        }>("stuck")
        assert.isAtMost(handed, maxSpan + chunk)
        // A record with all that the engine keeps for it takes about a kilobyte.
        assert.isAtMost(atStall - atFirst, (maxSpan + chunk) * 2_000)
      }),
    600_000
  )
})

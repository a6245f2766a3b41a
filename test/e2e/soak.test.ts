/**
 * Two minutes of `npm run soak`: members join, leave, die and freeze, servers
 * are killed and frozen, handlers fail, and every event is accounted for.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { dieWithParent } from "../../scripts/services/child.ts"
import { requireOrSkip } from "../support/services.ts"
import { type Instance, type Published, settle } from "./soak/account.ts"
import type { Applied } from "./soak/domain.ts"

const minutes = 2

/** Runs the soak to its end; its lines are shown as they come. */
const soak = Effect.acquireUseRelease(
  Effect.sync(() => {
    const child = spawn(
      process.execPath,
      ["--conditions=effect-events-source", join(import.meta.dirname, "soak/main.ts"), "--minutes", String(minutes)],
      { detached: true, env: { ...process.env, NODE_OPTIONS: "" }, stdio: ["ignore", "pipe", "inherit"] }
    )
    dieWithParent(child.pid!, new Promise((resolve) => void child.once("exit", () => resolve())))
    return child
  }),
  (child) =>
    Effect.callback<{ readonly code: number | null; readonly last: string }>((resume) => {
      let last = ""
      createInterface(child.stdout).on("line", (line) => {
        last = line
        process.stderr.write(`${line}\n`)
      })
      child.once("close", (code) => resume(Effect.succeed({ code, last })))
    }),
  (child) => Effect.sync(() => child.kill("SIGKILL"))
)

describe("the account of a soak", () => {
  const published = (...numbers: ReadonlyArray<number>): ReadonlyArray<Published> =>
    numbers.map((n) => ({ topic: "direct", key: "k", n, poison: false, acked: true, startMillis: n }))
  const applied = (handler: string, ...numbers: ReadonlyArray<number>): ReadonlyArray<Applied> =>
    numbers.map((n, at) => ({ member: "m1", handler, key: "k", n, partition: 0, offset: String(n), millis: at }))
  const calm: Instance = { name: "m1", readyMillis: 0, survived: true, upsets: [], holes: [] }
  const accountOf = (idempotent: ReadonlyArray<number>, exactlyOnce: ReadonlyArray<number>, instance = calm) => {
    const { duplicates, lost, outOfOrder, twice } = settle({
      published: published(0, 1, 2),
      applied: [
        ...applied("idempotent", ...idempotent),
        ...applied("exactly-once", ...exactlyOnce),
        ...applied("broadcast", 0, 1, 2)
      ],
      letters: [],
      instances: [instance]
    })
    return { duplicates, lost, outOfOrder, twice }
  }
  const right = { duplicates: 0, lost: 0, outOfOrder: 0, twice: 0 }

  it("is even when all were applied in order", () => {
    assert.deepStrictEqual(accountOf([0, 1, 2], [0, 1, 2]), right)
  })

  it("finds what is missing, what was applied twice, and what overtook", () => {
    assert.deepStrictEqual(accountOf([0, 1], [0, 1, 2]), { ...right, lost: 1 })
    assert.deepStrictEqual(accountOf([0, 1, 2], [0, 1, 1, 2]), { ...right, twice: 1 })
    assert.deepStrictEqual(accountOf([0, 1, 2], [0, 2, 1]), { ...right, outOfOrder: 1 })
    assert.deepStrictEqual(accountOf([1, 0, 2], [0, 1, 2]), { ...right, outOfOrder: 1 })
  })

  it("takes a repeat behind a newer event for out of order, unless its member had an upset", () => {
    assert.deepStrictEqual(accountOf([0, 1, 2, 1], [0, 1, 2]), { ...right, duplicates: 1, outOfOrder: 1 })
    const killed = { ...calm, upsets: [{ from: 2, to: 2 }] }
    assert.deepStrictEqual(accountOf([0, 1, 2, 1], [0, 1, 2], killed), { ...right, duplicates: 1 })
  })
})

describe.skipIf(requireOrSkip("kafka", "postgres"))("a soak", () => {
  it.live(
    "loses nothing, applies nothing twice and nothing out of order",
    () =>
      Effect.gen(function*() {
        const { code, last } = yield* soak
        assert.match(last, /^soak: lost=0 twice=0 out_of_order=0 duplicates=\d+ seed=\d+$/)
        assert.strictEqual(code, 0)
      }),
    600_000
  )
})

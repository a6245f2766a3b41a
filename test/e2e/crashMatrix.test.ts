/** A process is killed once at each step, on each store: `npm run crash` does it as often as one likes. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { kafkaBrokers, mariadbUrl, postgresUrl, requireOrSkip } from "../support/services.ts"
import { settle } from "./crash/account.ts"
import { type Item, leaseMillis, sessionMillis, steps, stores } from "./crash/domain.ts"
import { crash, isOfConsumers } from "./crash/run.ts"

/** The start of a process on a busy machine. */
const startMillis = 6_000

describe("the account of a crash", () => {
  const item = (n: number, key = "k"): Item => ({ key, n })
  const all = [item(0), item(1), item(2), item(0, "other")]

  it("finds nothing where each event is applied once, in order, or is a dead letter", () => {
    const log = [item(0), item(1), item(0, "other"), item(0), item(2)]
    assert.deepStrictEqual(
      settle({ placed: all, applied: [item(0), item(0, "other"), item(2)], letters: [item(1)], log }),
      { lost: 0, twice: 0, inversions: 0 }
    )
  })

  it("tells what is neither applied nor a dead letter", () => {
    assert.strictEqual(settle({ placed: all, applied: [item(0), item(2)], letters: [], log: [] }).lost, 2)
  })

  it("tells what is applied once more, beside a dead letter, or although it was rolled back", () => {
    const { twice } = settle({
      placed: all,
      applied: [item(0), item(0), item(1), item(2), item(3), item(0, "other")],
      letters: [item(1)],
      log: []
    })
    assert.strictEqual(twice, 3)
  })

  it("tells what overtook an earlier event of its key, in the log and as it was applied", () => {
    const { inversions } = settle({
      placed: all,
      applied: [item(1), item(0), item(2)],
      letters: [],
      log: [item(0), item(2), item(1), item(0, "other")]
    })
    assert.strictEqual(inversions, 2)
  })
})

describe.skipIf(requireOrSkip("kafka", "postgres", "mariadb"))("a process that is killed loses nothing", () => {
  const servers = { brokers: kafkaBrokers!, postgresUrl: postgresUrl!, mariadbUrl: mariadbUrl! }
  for (const store of stores) {
    describe.concurrent(`on ${store}`, () => {
      for (const step of steps) {
        it.live(
          `at ${step}, applies nothing twice, inverts nothing, and its work goes on`,
          () =>
            Effect.gen(function*() {
              const { inversions, lost, placed, recoveryMillis, twice } = yield* crash(store, step, 1, servers)
              assert.isAbove(placed, 0)
              assert.deepStrictEqual({ lost, twice, inversions }, { lost: 0, twice: 0, inversions: 0 })
              const bound = 2 * leaseMillis + (isOfConsumers(step) ? sessionMillis : 0)
              assert.isBelow(recoveryMillis, bound + startMillis)
            }).pipe(Effect.scoped),
          240_000
        )
      }
    })
  }
})

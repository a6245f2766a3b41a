/** What a failed attempt calls for, and the ready-made policies. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as fc from "fast-check"
import * as FailurePolicy from "../src/FailurePolicy.ts"

const policies = { save: FailurePolicy.save(), block: FailurePolicy.block(), discard: FailurePolicy.discard() }

interface Failure {
  readonly error?: string
  readonly undecodable?: boolean
  readonly nextDelay?: number
  readonly lastDelay?: number
}

const decide = (exhausted: FailurePolicy.Exhausted, failure: Failure) =>
  FailurePolicy.decide(
    {
      ...policies[exhausted],
      permanent: (error) => error === "permanent" || error === "both",
      ignore: (error) => error === "ignored" || error === "both"
    },
    {
      error: failure.error === undefined ? undefined : { value: failure.error },
      undecodable: failure.undecodable ?? false,
      nextDelay: failure.nextDelay,
      lastDelay: failure.lastDelay ?? 7
    }
  )

const retry = (afterMillis: number) => ({ _tag: "Retry" as const, afterMillis })
const giveUp = (route: "save" | "discard") => ({ _tag: "GiveUp" as const, route })
const ignore = { _tag: "Ignore" as const }

describe("decide", () => {
  //     failure                                    save             block       discard
  it.each<readonly [string, Failure, unknown, unknown, unknown]>([
    ["an error with retries left", { error: "e", nextDelay: 5 }, retry(5), retry(5), retry(5)],
    ["an error that may be retried at once", { error: "e", nextDelay: 0 }, retry(0), retry(0), retry(0)],
    ["an error whose retries are exhausted", { error: "e" }, giveUp("save"), retry(7), giveUp("discard")],
    ["a permanent error", { error: "permanent", nextDelay: 5 }, giveUp("save"), retry(5), giveUp("discard")],
    ["a permanent error without retries left", { error: "permanent" }, giveUp("save"), retry(7), giveUp("discard")],
    ["an ignored error", { error: "ignored", nextDelay: 5 }, ignore, ignore, ignore],
    ["an ignored error without retries left", { error: "ignored" }, ignore, ignore, ignore],
    ["an error that is both ignored and permanent", { error: "both" }, ignore, ignore, ignore],
    ["a defect with retries left", { nextDelay: 5 }, retry(5), retry(5), retry(5)],
    ["a defect whose retries are exhausted", {}, giveUp("save"), retry(7), giveUp("discard")],
    [
      "a record that does not decode",
      { error: "e", undecodable: true, nextDelay: 5 },
      giveUp("save"),
      retry(5),
      giveUp("discard")
    ]
  ])("%s", (_, failure, save, block, discard) => {
    assert.deepStrictEqual(decide("save", failure), save)
    assert.deepStrictEqual(decide("block", failure), block)
    assert.deepStrictEqual(decide("discard", failure), discard)
  })

  it("block never gives up, whatever happened", () => {
    fc.assert(fc.property(
      fc.record({
        error: fc.constantFrom("e", "permanent"),
        undecodable: fc.boolean(),
        nextDelay: fc.nat(),
        lastDelay: fc.nat()
      }, { requiredKeys: [] }),
      (failure) => assert.strictEqual(decide("block", failure)._tag, "Retry")
    ))
  })

  it("undefined is an error like any other, and no defect", () => {
    const policy = { ...policies.save, permanent: (error: unknown) => error === undefined }
    const failure = { undecodable: false, nextDelay: 5, lastDelay: 7 }
    assert.deepStrictEqual(FailurePolicy.decide(policy, { ...failure, error: { value: undefined } }), giveUp("save"))
    assert.deepStrictEqual(FailurePolicy.decide(policy, { ...failure, error: undefined }), retry(5))
  })
})

describe("policies", () => {
  it("say what becomes of an event, retry by default, and treat no error in a special way", () => {
    for (const [name, policy] of Object.entries(policies)) {
      assert.strictEqual(policy.exhausted, name)
      assert.strictEqual(policy.retry, FailurePolicy.defaultRetry)
      assert.isFalse(policy.permanent(new Error("any")))
      assert.isFalse(policy.ignore(new Error("any")))
    }
    assert.strictEqual(Duration.toMillis(Duration.fromInputUnsafe(policies.save.timeout)), 300_000)
    assert.strictEqual(Duration.toMillis(Duration.fromInputUnsafe(policies.block.timeout)), 300_000)
    assert.strictEqual(Duration.toMillis(Duration.fromInputUnsafe(policies.discard.timeout)), 30_000)
  })

  it.effect("retry nine times: from about a second, doubling, to about thirty", () =>
    Effect.gen(function*() {
      const step = yield* Schedule.toStep(FailurePolicy.defaultRetry)
      const delays: Array<number> = []
      let now = 0
      while (true) {
        const next = yield* Pull.catchDone(
          Effect.map(step(now, "error"), ([, delay]): number | undefined => Duration.toMillis(delay)),
          () => Effect.undefined
        )
        if (next === undefined) break
        delays.push(next)
        now += next
      }
      assert.strictEqual(delays.length, 9)
      delays.forEach((delay, i) => {
        const middle = Math.min(1_000 * 2 ** i, 30_000)
        assert.isTrue(delay >= middle * 0.8 && delay <= middle * 1.2, `retry ${i + 1} after ${delay} ms`)
      })
    }))
})

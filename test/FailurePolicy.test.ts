/** What a failed attempt calls for, and the ready-made policies. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as fc from "fast-check"
import * as FailurePolicy from "../src/FailurePolicy.ts"

const policies = {
  save: FailurePolicy.save(),
  retryLater: FailurePolicy.retryLater(),
  block: FailurePolicy.block(),
  discard: FailurePolicy.discard()
}

interface Failure {
  readonly error?: string
  readonly hopeless?: boolean
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
      hopeless: failure.hopeless ?? false,
      nextDelay: failure.nextDelay,
      lastDelay: failure.lastDelay ?? 7
    }
  )

const retry = (afterMillis: number) => ({ _tag: "Retry" as const, afterMillis })
const giveUp = (route: FailurePolicy.Route) => ({ _tag: "GiveUp" as const, route })
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
    ["a defect", { hopeless: true, nextDelay: 5 }, giveUp("save"), retry(5), giveUp("discard")],
    ["a defect without retries left", { hopeless: true }, giveUp("save"), retry(7), giveUp("discard")],
    ["a handler that interrupts itself", { nextDelay: 5 }, retry(5), retry(5), retry(5)],
    [
      "a record that does not decode",
      { error: "e", hopeless: true, nextDelay: 5 },
      giveUp("save"),
      retry(5),
      giveUp("discard")
    ]
  ])("%s", (_, failure, save, block, discard) => {
    assert.deepStrictEqual(decide("save", failure), save)
    assert.deepStrictEqual(decide("block", failure), block)
    assert.deepStrictEqual(decide("discard", failure), discard)
  })

  it("retryLater lets come back what may fare better, and saves what cannot", () => {
    assert.deepStrictEqual(decide("retryLater", { error: "e", nextDelay: 5 }), retry(5))
    assert.deepStrictEqual(decide("retryLater", { error: "e" }), giveUp("retryLater"))
    assert.deepStrictEqual(decide("retryLater", { error: "permanent", nextDelay: 5 }), giveUp("save"))
    assert.deepStrictEqual(decide("retryLater", { error: "e", hopeless: true }), giveUp("save"))
    assert.deepStrictEqual(decide("retryLater", { hopeless: true }), giveUp("save"))
    assert.deepStrictEqual(decide("retryLater", { error: "ignored" }), ignore)
  })

  it("block never gives up, whatever happened", () => {
    fc.assert(fc.property(
      fc.record({
        error: fc.constantFrom("e", "permanent"),
        hopeless: fc.boolean(),
        nextDelay: fc.nat(),
        lastDelay: fc.nat()
      }, { requiredKeys: [] }),
      (failure) => assert.strictEqual(decide("block", failure)._tag, "Retry")
    ))
  })

  it("undefined is an error like any other, and no defect", () => {
    const policy = { ...policies.save, permanent: (error: unknown) => error === undefined }
    const failure = { hopeless: false, nextDelay: 5, lastDelay: 7 }
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

  it("retryLater comes back after growing delays, of at most a day, and then no more", () => {
    const policy = FailurePolicy.retryLater()
    const delays = FailurePolicy.defaultDelays.map((_, times) => FailurePolicy.delayOf(policy, times)!)
    assert.deepStrictEqual(delays, delays.toSorted((a, b) => a - b))
    assert.deepStrictEqual([delays[0], delays.at(-1)], [60_000, 86_400_000])
    assert.isUndefined(FailurePolicy.delayOf(policy, delays.length))
    assert.strictEqual(FailurePolicy.delayOf(FailurePolicy.retryLater({ delays: ["2 seconds"] }), 0), 2_000)
  })

  it("retryLater takes 1 to 100 delays, each of a millisecond to three days", () => {
    const illegal = (...delays: Array<Duration.Input>) =>
      FailurePolicy.illegalDelays(FailurePolicy.retryLater({ delays }))
    for (const delay of ["1 millis", "3 days", 0.5 * 86_400_000] as const) assert.isUndefined(illegal(delay))
    assert.match(illegal()!, /0 delays/)
    assert.match(illegal(...Array.from({ length: 101 }, () => "1 second" as const))!, /101 delays/)
    for (const delay of [0, -1, Number.NaN, Infinity, "4 days"] as const) {
      assert.match(illegal("1 second", delay)!, /delay 2 of retryLater/)
    }
    assert.isUndefined(FailurePolicy.illegalDelays({ ...policies.save, delays: [] }))
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

/**
 * When a batch may go that waits for `minSize` events: once they are there,
 * `maxWait` after the first of them could run, or during a drain.
 *
 * One timer at a time, and none while nothing waits. What a full batch left
 * behind waits since before that batch, so an event never waits longer than
 * `maxWait` here.
 *
 * @internal
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { CloseReason, Limits } from "../../../Batching.ts"

export interface Gather {
  /** Whether a batch may go now; if not, `again` is called in time. */
  readonly may: () => boolean
  /** Why the batch goes for which `may` was true last. */
  readonly reason: () => CloseReason
  /** Says that a drain begins, or has ended: meanwhile nothing waits. */
  readonly draining: (begins: boolean) => void
}

export const make = (options: {
  readonly limits: Limits
  readonly clock: Clock.Clock
  /** How many events could run. */
  readonly waiting: () => number
  readonly again: () => void
  readonly fork: (effect: Effect.Effect<unknown>) => void
}): Gather => {
  const { again, clock, fork, limits, waiting } = options
  const maxWaitMillis = Duration.toMillis(Duration.fromInputUnsafe(limits.maxWait))
  let since: number | undefined
  let armed = false
  let drains = 0
  let reason: CloseReason = "slot"

  const arm = (millis: number) => {
    if (armed) return
    armed = true
    fork(Effect.andThen(
      Effect.sleep(millis),
      Effect.sync(() => {
        armed = false
        again()
      })
    ))
  }

  const may = () => {
    const events = waiting()
    if (events === 0) {
      since = undefined
      return false
    }
    const now = clock.currentTimeMillisUnsafe()
    since ??= now
    const left = since + maxWaitMillis - now
    reason = events >= limits.minSize ? "slot" : drains > 0 ? "drain" : "timeout"
    if (reason !== "timeout" || left <= 0) return true
    arm(left)
    return false
  }

  return {
    may,
    reason: () => reason,
    draining: (begins) => {
      drains += begins ? 1 : -1
      again()
    }
  }
}

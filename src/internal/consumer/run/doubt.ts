/**
 * Doubt: a process that stood still past its session finds its timers due all
 * at once, those of handlers before the one that says that the partitions are
 * lost. Until it knows, it begins nothing.
 *
 * @internal
 */
import * as Effect from "effect/Effect"

/** How long to wait for word whether the partitions are still ours, and how often to look. */
const mostMillis = 5_000
const pulseMillis = 20

/** Waits until the assignments are trusted again, or nothing of them is left. */
export const resolved = (trusted: () => boolean, hasWork: () => boolean): Effect.Effect<void> =>
  Effect.gen(function*() {
    for (let waited = 0; waited < mostMillis && !trusted() && hasWork(); waited += pulseMillis) {
      yield* Effect.sleep(pulseMillis)
    }
  })

/**
 * Owns the moving of scheduled rows into the outbox when they are due. Any
 * number of relays may do it at once.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type { MessageStore, MessageStoreError } from "../../MessageStore.ts"

/** Rows that are moved in one transaction. */
const dueAtOnce = 1_000
const leastMillis = 20
export const mostMillis = 1_000

/** Moves what is due, and waits until something may be. */
export const moveAndWait = (
  scheduled: MessageStore["Service"]["outbox"]["scheduled"]
): Effect.Effect<void, MessageStoreError> =>
  Effect.gen(function*() {
    const left = yield* scheduled.next
    if (left !== undefined && left <= 0) {
      while ((yield* scheduled.move(dueAtOnce)) === dueAtOnce) yield* Effect.yieldNow
    }
    const idleMillis = left === undefined || left <= 0 ? mostMillis : left
    yield* Effect.sleep(Math.min(mostMillis, Math.max(leastMillis, idleMillis)))
  })

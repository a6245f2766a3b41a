/**
 * What a task waits for after an attempt, noted for whoever asks why its
 * partition does not move. Noted on failures only.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Thrown from "../../thrown.ts"

export interface Waits {
  readonly for: "retry" | "block" | "deadLetter" | "store"
  readonly untilMillis: number
  readonly error: string
}

const maxError = 500

const errorOf = (cause: Cause.Cause<unknown>): string => {
  const message = Thrown.messageOf(Cause.squash(cause)).replace(/\.$/, "")
  return message.length <= maxError ? message : `${message.slice(0, maxError)}…`
}

/** Notes what tasks wait for from now on. */
export const note = (
  tasks: ReadonlyArray<{ waits: Waits | undefined }>,
  what: Waits["for"],
  afterMillis: number,
  cause: Cause.Cause<unknown>
): Effect.Effect<void> =>
  Effect.map(Clock.currentTimeMillis, (now) => {
    const waits: Waits = { for: what, untilMillis: now + afterMillis, error: errorOf(cause) }
    for (const task of tasks) task.waits = waits
  })

/**
 * What was thrown, as text. Anything can be thrown, and looking at it may throw
 * in its turn: that must not keep a dead letter from being written, or a key
 * from going on. Pure.
 *
 * @internal
 */
import { hasProperty } from "effect/Predicate"

const orElse = (look: () => string, fallback: string): string => {
  try {
    return look()
  } catch {
    return fallback
  }
}

/** The `_tag` of a tagged error, the name of any other, else the type. */
export const tagOf = (thrown: unknown): string =>
  orElse(() =>
    hasProperty(thrown, "_tag") && typeof thrown._tag === "string"
      ? thrown._tag
      : thrown instanceof Error
      ? thrown.name
      : typeof thrown, "unknown")

export const messageOf = (thrown: unknown): string =>
  orElse(
    () => thrown instanceof Error ? thrown.message || thrown.name : String(thrown),
    "what was thrown cannot be shown as text"
  )

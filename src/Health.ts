/**
 * Whether the parts of this process that run by themselves are well: consumer
 * groups, outbox relays and broadcast subscriptions.
 *
 * They never end in silence: what fails starts again, with a log line, and
 * meanwhile says so here. A readiness probe reads `Health.isHealthy`.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/**
 * One part and how it is. `sinceMillis` is when it came into this state,
 * milliseconds since the epoch.
 *
 * @category models
 * @since 0.1.0
 */
export type Part =
  & {
    readonly kind: "consumer" | "relay" | "broadcast"
    /** The group's name, the relay's instance id, or the topic of broadcast subscriptions. */
    readonly name: string
    readonly sinceMillis: number
  }
  & (
    | { readonly state: "Running" }
    | { readonly state: "Failing"; readonly reason: string }
    /** A partition of the group has work and does not move; an entry of its own per partition. */
    | { readonly state: "Stuck"; readonly reason: string }
  )

/**
 * Where parts are kept. One for the process by default; provide another to
 * look at a part of a program by itself.
 *
 * @category references
 * @since 0.1.0
 */
export const Parts = Context.Reference<Map<object, Part>>("effect-events/Health/Parts", {
  defaultValue: () => new Map()
})

/**
 * All parts that run now.
 *
 * **Example** (A health endpoint's body)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Health } from "effect-events"
 *
 * const body = Effect.map(Health.check, (parts) => JSON.stringify(parts))
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const check: Effect.Effect<ReadonlyArray<Part>> = Effect.map(Parts, (parts) => Array.from(parts.values()))

/**
 * Whether no part is failing.
 *
 * **Details**
 *
 * A stuck partition does not count: other partitions go on, and taking the
 * process out of service would not help it. Alert on it instead: by its Error
 * log, its gauge, or `check`.
 *
 * @category accessors
 * @since 0.1.0
 */
export const isHealthy: Effect.Effect<boolean> = Effect.map(
  check,
  (parts) => parts.every((part) => part.state !== "Failing")
)

/** @internal */
export interface Report {
  readonly running: Effect.Effect<void>
  readonly failing: (reason: string) => Effect.Effect<void>
}

/**
 * Registers a part for as long as the scope lives.
 *
 * @internal
 */
export const register = Effect.fnUntraced(function*(
  kind: Part["kind"],
  name: string
): Effect.fn.Return<Report, never, Scope.Scope> {
  const parts = yield* Parts
  const clock = yield* Clock.Clock
  const key = {}
  const set = (state: "Running" | "Failing", reason: string) =>
    Effect.sync(() => {
      if (parts.get(key)?.state === state && state === "Running") return
      const sinceMillis = clock.currentTimeMillisUnsafe()
      parts.set(
        key,
        state === "Running" ? { kind, name, sinceMillis, state } : { kind, name, sinceMillis, state, reason }
      )
    })
  yield* Effect.acquireRelease(set("Running", ""), () => Effect.sync(() => parts.delete(key)))
  return { running: set("Running", ""), failing: (reason) => set("Failing", reason) }
})

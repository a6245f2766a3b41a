/**
 * A handler as the engine sees it: which topic, how ordered, how many at a
 * time, and an effect for a batch of events. The three modes (`idempotent`,
 * `exactlyOnce`, `broadcast`) differ only in that effect; the worker does not
 * know which it runs.
 *
 * @internal
 */
import type * as Arr from "effect/Array"
import type * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Semaphore from "effect/Semaphore"
import type { Limits } from "../../Batching.ts"
import type * as Event from "../../Event.ts"
import type { FailurePolicy } from "../../FailurePolicy.ts"
import type * as Topic from "../../Topic.ts"
import type { Meter } from "../metrics.ts"
import type { Assignment, Task } from "./order/assignment.ts"
import type { Ordering } from "./order/lanes.ts"
import type { Ready } from "./order/ready.ts"

/**
 * Applies a batch: succeeds when every event of it is applied. Its services
 * are those of the fiber that runs it.
 */
export type Apply = (events: Arr.NonEmptyReadonlyArray<Event.Event<unknown>>) => Effect.Effect<unknown, unknown>

/** Group commit: applies several events, one after another, as a whole. A failure may name its event as a `Culprit`. */
export interface Grouped {
  readonly limits: Limits
  readonly apply: (
    events: Parameters<Apply>[0],
    began: (event: Event.Event<unknown>) => void
  ) => Effect.Effect<unknown, unknown>
}

export interface Handler {
  readonly name: string
  readonly topic: Topic.Any
  readonly ordering: Ordering
  /** What a worker needs a permit of each of, in this order: the handler's own limit, its group's, the process's. */
  readonly slots: ReadonlyArray<Semaphore.Semaphore>
  readonly policy: FailurePolicy<unknown>
  /** Limits of what a slot applies as one batch; `undefined`: it applies event by event. */
  readonly batch: Limits | undefined
  readonly apply: Apply
  /** Set if applying is calling this for one event, in its surroundings, and nothing else. */
  readonly direct: ((event: Event.Event<unknown>) => Effect.Effect<unknown, unknown>) | undefined
  /** Whether a failed batch has left nothing behind. */
  readonly rollsBack: boolean
  /** Set for handlers of single events whose events may share a transaction while all slots are busy. */
  readonly grouped: Grouped | undefined
  /** Whether a failure is the store's and not the handler's: it is waited out, without counting. */
  readonly isOutage: (error: unknown) => boolean
}

/** What runs at once, and since when. */
export interface Attempt {
  readonly running: ReadonlyArray<Task>
  readonly startedMillis: number
}

/** What runs the tasks of one handler: a worker, or the pull of an open stream. */
export interface Reader {
  readonly topic: string
  /** The handler's name. */
  readonly handler: string
  /** Whether it is an open stream, where somebody else says what is finished. */
  readonly open: boolean
  readonly timeoutMillis: number
  readonly meter: Meter
  /** What runs now. */
  readonly running: () => Iterable<Attempt>
  readonly ordering: Ordering
  /** Most tasks that it takes at once. */
  readonly takes: number
  readonly ready: Ready<Task>
  /** Says that something may be ready. Synchronous and cheap. */
  readonly kick: () => void
  /** Says that a drain begins, or has ended: meanwhile nothing is held back. */
  readonly draining?: (begins: boolean) => void
  /** Interrupts the fibers that run tasks of these assignments, and returns them. */
  readonly interrupt: (assignments: ReadonlySet<Assignment>) => Array<Fiber.Fiber<unknown, unknown>>
}

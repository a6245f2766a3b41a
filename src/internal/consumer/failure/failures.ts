/**
 * What the failed attempts of a task leave behind, for the next attempt and
 * for its dead letter. Pure.
 *
 * @internal
 */
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import type * as Pull from "effect/Pull"
import type { Route } from "../../../FailurePolicy.ts"

/** The failed attempts of a task. */
export interface Failures {
  readonly attempts: number
  readonly firstMillis: number
  readonly lastMillis: number
  readonly lastDelay: number
  /** Most events with which the next attempt runs: 1 after a failure of its own. */
  readonly together: number
  /** Steps the retry schedule; kept, so that its state goes on. `undefined` if the schedule could not start. */
  readonly step: RetryStep | undefined
  /** The failure after which the task was given up on; only what follows from it is left to do. */
  readonly givenUp: GivenUp | undefined
}

/** Why a task was given up on, and where it goes. */
export interface GivenUp {
  readonly cause: Cause.Cause<unknown>
  readonly route: Route
}

/** One step of a retry schedule: from time and failure to the next delay. */
export type RetryStep = (now: number, input: unknown) => Pull.Pull<[unknown, Duration.Duration], never, unknown>

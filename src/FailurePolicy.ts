/**
 * What happens when a handler fails: which failures are tried again, for how
 * long, and what becomes of an event that is given up on.
 *
 * A policy is a plain object. Take one of `save`, `block`, `discard` and
 * refine it by spreading.
 *
 * | policy | an event whose retries are exhausted | loses | order of its key |
 * | --- | --- | --- | --- |
 * | `save` | goes to the dead-letter topic, then the next one runs | never | kept for what is applied |
 * | `block` | is tried again, for ever; its key waits | never | kept |
 * | `discard` | is logged as an Error and skipped | that event | kept for what is applied |
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Schedule from "effect/Schedule"

/**
 * What becomes of an event that a handler gave up on.
 *
 * @category models
 * @since 0.1.0
 */
export type Exhausted = "save" | "block" | "discard"

/**
 * A failure policy for handlers that fail with `E`.
 *
 * **Details**
 *
 * - `retry`: when to try again; its end means exhausted. Attempts are counted
 *   per process and begin anew after a rebalance or restart. While an event
 *   backs off it gives up its slot, and the later events of its key wait.
 * - `timeout`: bound of one attempt; the handler is interrupted then, and the
 *   attempt counts as failed.
 * - `permanent`: errors that no retry can mend; they are exhausted at once.
 * - `ignore`: errors that mean "nothing to do"; the event counts as done.
 * - `exhausted`: what becomes of the event then.
 *
 * A defect (a thrown exception) is retried like an error; a record that does
 * not decode is permanent.
 *
 * @category models
 * @since 0.1.0
 */
export interface FailurePolicy<in E> {
  readonly retry: Schedule.Schedule<unknown, unknown>
  readonly timeout: Duration.Input
  readonly permanent: (error: E) => boolean
  readonly ignore: (error: E) => boolean
  readonly exhausted: Exhausted
}

/**
 * The retry schedule of every policy unless it is replaced: exponential from
 * 1 s to 30 s with jitter, 10 attempts in all.
 *
 * @category schedules
 * @since 0.1.0
 */
export const defaultRetry: Schedule.Schedule<unknown, unknown> = Schedule.min([
  Schedule.exponential("1 second"),
  Schedule.spaced("30 seconds")
]).pipe(Schedule.jittered, Schedule.upTo({ times: 9 }))

const make = (exhausted: Exhausted, timeout: Duration.Input): FailurePolicy<unknown> => ({
  retry: defaultRetry,
  timeout,
  permanent: () => false,
  ignore: () => false,
  exhausted
})

/**
 * Gives up into the dead-letter topic `<topic>.<group>.dead-letter`, with the
 * reason, and goes on. The default of group consumers.
 *
 * **Details**
 *
 * Nothing is lost: while the dead letter cannot be written, the event counts
 * as unfinished and its key waits.
 *
 * **Example** (Refining a policy)
 *
 * ```ts
 * import { Data, Schedule } from "effect"
 * import { FailurePolicy } from "effect-events"
 *
 * class CardRefused extends Data.TaggedError("CardRefused")<{}> {}
 *
 * const policy: FailurePolicy.FailurePolicy<CardRefused> = {
 *   ...FailurePolicy.save(),
 *   retry: Schedule.spaced("5 seconds").pipe(Schedule.upTo({ times: 3 })),
 *   timeout: "10 seconds",
 *   permanent: (error) => error._tag === "CardRefused"
 * }
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const save = (): FailurePolicy<unknown> => make("save", "5 minutes")

/**
 * Never gives up: after the schedule's end the event is tried again at the
 * schedule's last delay, for ever. Its key waits behind it, and once too much
 * waits, its partition.
 *
 * **When to use**
 *
 * Use it where order matters more than progress, and somebody watches.
 *
 * @category constructors
 * @since 0.1.0
 */
export const block = (): FailurePolicy<unknown> => make("block", "5 minutes")

/**
 * Gives up with an Error log and goes on: the event is lost for this handler.
 * The default of broadcast consumers, with a timeout of 30 s.
 *
 * @category constructors
 * @since 0.1.0
 */
export const discard = (): FailurePolicy<unknown> => make("discard", "30 seconds")

/**
 * What a failed attempt calls for.
 *
 * @internal
 */
export type Decision =
  | { readonly _tag: "Ignore" }
  | { readonly _tag: "Retry"; readonly afterMillis: number }
  | { readonly _tag: "GiveUp"; readonly route: "save" | "discard" }

/**
 * Judges a failed attempt. `error` is the handler's typed error, if it failed
 * with one; `nextDelay` is what the schedule says, `undefined` at its end;
 * `lastDelay` is what it said before. Pure.
 *
 * @internal
 */
export const decide = (
  policy: FailurePolicy<unknown>,
  failure: {
    readonly error: { readonly value: unknown } | undefined
    readonly undecodable: boolean
    readonly nextDelay: number | undefined
    readonly lastDelay: number
  }
): Decision => {
  if (failure.error !== undefined && policy.ignore(failure.error.value)) return { _tag: "Ignore" }
  const permanent = failure.undecodable || failure.error !== undefined && policy.permanent(failure.error.value)
  if (!permanent && failure.nextDelay !== undefined) return { _tag: "Retry", afterMillis: failure.nextDelay }
  return policy.exhausted === "block"
    ? { _tag: "Retry", afterMillis: failure.nextDelay ?? failure.lastDelay }
    : { _tag: "GiveUp", route: policy.exhausted }
}

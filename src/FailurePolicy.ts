/**
 * What happens when a handler fails: which failures are tried again, for how
 * long, and what becomes of an event that is given up on.
 *
 * A policy is a plain object. Take one of `save`, `retryLater`, `block`,
 * `discard` and refine it by spreading.
 *
 * | policy | an event whose retries are exhausted | loses | order of its key |
 * | --- | --- | --- | --- |
 * | `save` | goes to the dead-letter topic, then the next one runs | never | kept for what is applied |
 * | `retryLater` | goes there, too, and comes back after growing delays | never | given up for that event: later ones of its key run before it, or beside it |
 * | `block` | is tried again, for ever; its key waits | never | kept |
 * | `discard` | is logged as an Error and skipped | that event | kept for what is applied |
 *
 * @since 0.1.0
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"

/**
 * What becomes of an event that a handler gave up on.
 *
 * @category models
 * @since 0.1.0
 */
export type Exhausted = "save" | "retryLater" | "block" | "discard"

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
 * - `delays`: for `retryLater`, when an exhausted event comes back: the first
 *   delay after the first time, and so on.
 *
 * A defect (anything thrown, also in a finalizer) and a record that does not
 * decode are permanent: a bug throws again. Under `block` they are tried again
 * for ever, at the schedule's delays. An attempt that ran into its timeout is
 * retried like an error, and so is a defect that is an `SqlError`: SQL clients
 * make a ROLLBACK that failed a defect.
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
  readonly delays?: ReadonlyArray<Duration.Input> | undefined
}

/**
 * The delays of `retryLater` unless they are given: 1, 5 and 30 minutes, then
 * 2, 6, 12 and 24 hours.
 *
 * @category schedules
 * @since 0.1.0
 */
export const defaultDelays: ReadonlyArray<Duration.Input> = [
  "1 minute",
  "5 minutes",
  "30 minutes",
  "2 hours",
  "6 hours",
  "12 hours",
  "24 hours"
]

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
 * Gives up into the dead-letter topic, from which the event comes back to its
 * handler after growing delays; after the last of them it stays there as a
 * dead letter of `save`.
 *
 * **When to use**
 *
 * Use it where an event may fail for hours for a reason of its own (a partner
 * is down, something that it refers to has not come yet) and the later events
 * of its key need not wait for it.
 *
 * **Details**
 *
 * Nothing is lost, and what waits survives restarts: it lies in the topic. An
 * event with a long delay does not hold back those that are due earlier.
 * What no retry can mend (`permanent`, a defect, a record that does not
 * decode) is saved at once.
 *
 * **Gotchas**
 *
 * The order of that event against the later ones of its key is given up, and
 * so is their exclusion: it may run beside one of them. A handler that only
 * sets the latest state should compare versions, or use `block`.
 *
 * A partition keeps up to 256 waiting letters in memory. Beyond that, those
 * due last are written again behind the others, 128 at least every 5 seconds:
 * with some thousands of letters that wait at the same time, delays of
 * minutes stretch, and the topic grows.
 *
 * **Example** (A partner that is sometimes down)
 *
 * ```ts
 * import { FailurePolicy } from "effect-events"
 *
 * const policy = FailurePolicy.retryLater({ delays: ["1 minute", "10 minutes", "1 hour"] })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const retryLater = (options?: {
  /** From one to 100 delays between 1 millisecond and 3 days. Default: `defaultDelays`. */
  readonly delays?: ReadonlyArray<Duration.Input> | undefined
}): FailurePolicy<unknown> => ({
  ...make("retryLater", "5 minutes"),
  delays: options?.delays ?? defaultDelays
})

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
  | { readonly _tag: "GiveUp"; readonly route: Route }

/**
 * Where an event goes that is given up on.
 *
 * @internal
 */
export type Route = "save" | "retryLater" | "discard"

/**
 * Judges a failed attempt. `error` is the handler's typed error, if it failed
 * with one; `hopeless` are defects and records that do not decode; `nextDelay`
 * is what the schedule says, `undefined` at its end; `lastDelay` is what it
 * said before. Pure.
 *
 * @internal
 */
export const decide = (
  policy: FailurePolicy<unknown>,
  failure: {
    readonly error: { readonly value: unknown } | undefined
    readonly hopeless: boolean
    readonly nextDelay: number | undefined
    readonly lastDelay: number
  }
): Decision => {
  if (failure.error !== undefined && policy.ignore(failure.error.value)) return { _tag: "Ignore" }
  const permanent = failure.hopeless || failure.error !== undefined && policy.permanent(failure.error.value)
  if (!permanent && failure.nextDelay !== undefined) return { _tag: "Retry", afterMillis: failure.nextDelay }
  return policy.exhausted === "block"
    ? { _tag: "Retry", afterMillis: failure.nextDelay ?? failure.lastDelay }
    // What no retry can mend does not come back by itself.
    : { _tag: "GiveUp", route: policy.exhausted === "retryLater" && permanent ? "save" : policy.exhausted }
}

const maxDelays = 100
/** Dead letters are kept for 7 days at least: what comes back must lie there still. */
const maxDelayMillis = 3 * 86_400_000

const millisOf = (delay: Duration.Input): number =>
  Option.match(Duration.fromInput(delay), { onNone: () => Number.NaN, onSome: Duration.toMillis })

/**
 * What is wrong with a policy's delays, or `undefined`.
 *
 * @internal
 */
export const illegalDelays = ({ delays, exhausted }: FailurePolicy<never>): string | undefined => {
  if (exhausted !== "retryLater" || delays === undefined) return undefined
  if (delays.length === 0 || delays.length > maxDelays) {
    return `retryLater has ${delays.length} delays; give it 1 to ${maxDelays}`
  }
  const index = delays.findIndex((delay) => {
    const millis = millisOf(delay)
    return !(millis >= 1 && millis <= maxDelayMillis)
  })
  return index < 0
    ? undefined
    : `delay ${index + 1} of retryLater is ${
      millisOf(delays[index]!)
    } ms; use 1 ms to 3 days, since dead letters may be deleted after 7`
}

/**
 * How long after its first failure an event may still come back by itself, in
 * milliseconds: all delays of `retryLater` together.
 *
 * @internal
 */
export const horizonOf = ({ delays = defaultDelays, exhausted }: FailurePolicy<never>): number =>
  exhausted === "retryLater" ? delays.reduce<number>((sum, delay) => sum + millisOf(delay), 0) : 0

/**
 * When an event comes back that has come back so often by itself, in
 * milliseconds from now; `undefined`: it does not.
 *
 * @internal
 */
export const delayOf = (policy: FailurePolicy<never>, times: number): number | undefined => {
  const delay = (policy.delays ?? defaultDelays)[times]
  return delay === undefined ? undefined : millisOf(delay)
}

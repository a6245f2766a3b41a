/**
 * What options may hold: counts and durations in range. Says what is wrong in
 * words that name the option and what to write instead.
 *
 * @internal
 */
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type * as Semaphore from "effect/Semaphore"

/** Whether a number is whole and from 1 to `most`. */
export const isCount = (n: number, most: number): boolean => Number.isInteger(n) && n >= 1 && n <= most

const maxConcurrency = 10_000

/** Why a limit of concurrency cannot be used, or `undefined`. */
export const illegalConcurrency = (concurrency: number | Semaphore.Semaphore | undefined): string | undefined =>
  typeof concurrency !== "number" || isCount(concurrency, maxConcurrency)
    ? undefined
    : `concurrency is ${concurrency}; use a whole number from 1 to ${maxConcurrency}, or a Semaphore`

const show = (input: Duration.Input): string =>
  Duration.isDuration(input)
    ? Duration.format(input)
    : typeof input === "bigint"
    ? `${input}n`
    : typeof input === "object"
    ? JSON.stringify(input)
    : String(input)

/** Why a duration cannot be used, or `undefined`. */
export const illegalDuration = (
  name: string,
  input: Duration.Input,
  range: "positive" | "not negative"
): string | undefined => {
  const millis = Number.isNaN(input)
    ? NaN
    : Option.match(Duration.fromInput(input), { onNone: () => NaN, onSome: Duration.toMillis })
  if (range === "positive" ? millis > 0 : millis >= 0) return undefined
  const allowed = range === "positive" ? "a duration above 0" : "a duration of 0 or more"
  return `${name} is ${show(input)}; use ${allowed}, as in "5 seconds"`
}

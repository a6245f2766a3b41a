/**
 * What a Layer tells the conformance suites about itself, and how their cases
 * make use of it.
 *
 * A feature may change *how* a case is checked. A case that a Layer cannot be
 * put through is `skipped` with a reason, which is printed in the run; cases
 * about loss, duplicates and order take no control and are never skipped.
 *
 * Cases wait for events, with a bound in real time: under the test clock time
 * stands still. Only what time itself brings about, such as the end of a lease,
 * is asked for again and again (`askUntil`).
 */
import type { Vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import type { TopicPartition } from "../../src/Broker.ts"

/** Why a case cannot be run on a Layer. */
export interface Skipped {
  readonly _tag: "Skipped"
  readonly reason: string
}

export const skipped = (reason: string): Skipped => ({ _tag: "Skipped", reason })

/** Something that a suite does to a backend from outside. */
export type Control<F extends (...args: ReadonlyArray<never>) => unknown> = F | Skipped

interface CommonFeatures {
  /** `"test"`: Effect's TestClock stands still. `"live"`: the backend has a clock of its own. */
  readonly clock: "test" | "live"
  /** Bound of one case, in milliseconds of real time. Default: 30 s with `"test"`, 4 minutes with `"live"`. */
  readonly timeout?: number
}

/**
 * Features of a broker's Layer. The suite uses random names of topics and
 * groups, so that it may run against a broker that others use.
 */
export interface BrokerFeatures<R = never> extends CommonFeatures {
  readonly deleteTopic: Control<(topic: string) => Effect.Effect<void, unknown, R>>
  /** Raises the number of a topic's partitions to `count`. */
  readonly addPartitions: Control<(topic: string, count: number) => Effect.Effect<void, unknown, R>>
  /** Adds offsets without a record to the end of a partition, such as transaction markers; at least one. */
  readonly skipOffsets: Control<(at: TopicPartition) => Effect.Effect<void, unknown, R>>
  /** Ends the session of the group's only member, as if its heartbeats had stopped. It gets `Lost` and joins again. */
  readonly expire: Control<(group: string) => Effect.Effect<void, unknown, R>>
}

/** Features of a store's Layer. The suite needs a store that nobody else uses at the same time. */
export interface StoreFeatures<R = never> extends CommonFeatures {
  /** Whether two transactions can be open at the same time. */
  readonly concurrentTransactions: boolean
  /** `"exact"`: no wake-up without rows of this process. `"shared"`: hints may also come from elsewhere, or late. */
  readonly wakeups: "exact" | "shared"
  /** A business table that takes part in the store's transactions. */
  readonly business: {
    readonly write: (key: string, value: string) => Effect.Effect<void, unknown, R>
    readonly read: (key: string) => Effect.Effect<string | undefined, unknown, R>
  }
}

/** The part of `it` that a suite uses: cases with the Layer under test and a scope. */
export type It<R> = Vitest.MethodsNonLive<R>

export const caseTimeout = (features: CommonFeatures): number =>
  features.timeout ?? (features.clock === "test" ? 30_000 : 240_000)

/** Registers cases that share a bound. */
export const cases = <R>(it: It<R>, features: CommonFeatures) => {
  const timeout = caseTimeout(features)

  const check = <A, E>(name: string, body: () => Effect.Effect<A, E, R | Scope.Scope>): void =>
    it.effect(name, () => body(), timeout)

  /** A case that needs something done to the backend from outside. */
  const checkWith = <F extends (...args: ReadonlyArray<never>) => unknown, A, E>(
    control: Control<F>,
    name: string,
    body: (control: F) => Effect.Effect<A, E, R | Scope.Scope>
  ): void => {
    if (isSkipped(control)) {
      it.effect(`${name} (skipped: ${control.reason})`, (context) =>
        Effect.sync(() => {
          process.stderr.write(`skipped: ${name}: ${control.reason}\n`)
          context.skip(control.reason)
        }))
    } else {
      check(name, () => body(control))
    }
  }

  return { check, checkWith }
}

const isSkipped = (control: unknown): control is Skipped =>
  typeof control === "object" && control !== null && "_tag" in control && control._tag === "Skipped"

/** Sleeps in real time, whatever clock the test has. */
const realSleep = (millis: number): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const timer = setTimeout(() => resume(Effect.void), millis)
    return Effect.sync(() => clearTimeout(timer))
  })

/** Dies with a sentence when an effect takes too long in real time. */
export const within = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  millis: number,
  what: () => string
): Effect.Effect<A, E, R> =>
  Effect.raceFirst(
    effect,
    Effect.andThen(realSleep(millis), Effect.suspend(() => Effect.die(new Error(`waited ${millis} ms: ${what()}`))))
  )

/**
 * Asks until an answer satisfies, letting time pass in between: on the test
 * clock by moving it, on a live one by waiting. For what only time brings
 * about, such as the end of a lease.
 */
export const askUntil = Effect.fnUntraced(function*<A, E, R>(
  features: CommonFeatures,
  what: string,
  ask: Effect.Effect<A, E, R>,
  satisfies: (answer: A) => boolean
) {
  const attempts = features.clock === "test" ? 400 : 4_000
  for (let attempt = 0; attempt < attempts; attempt++) {
    const answer = yield* ask
    if (satisfies(answer)) {
      return answer
    }
    yield* features.clock === "test" ? TestClock.adjust("25 millis") : realSleep(25)
  }
  return yield* Effect.die(new Error(`asked ${attempts} times: ${what}`))
})

/** A name that no other run has used. */
export const freshName = (prefix: string): Effect.Effect<string> =>
  Effect.sync(() => `${prefix}-${globalThis.crypto.randomUUID()}`)

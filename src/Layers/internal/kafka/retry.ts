/**
 * Owns the patience with calls that somebody waits for: how long a transient
 * failure is tried again.
 *
 * The insight: a topic that was created a moment ago is unknown to some
 * brokers still, but not for long; everything else may take as long as a
 * connect.
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { type KafkaFailure, unknownTopic } from "./failure.ts"
import type { Settings } from "./settings.ts"

const unknownTopicGrace = 500

/** Waits a little longer each time, up to `most` ms. */
export const backOff = (tries: number, most: number): Effect.Effect<void> =>
  Effect.sleep(Math.min(most, 50 * 2 ** Math.min(tries, 10)))

/** Retries transient failures: of a missing topic for half a second, others for so many milliseconds. */
export const retryWithin = (clock: Clock.Clock, patience: number) => <A>(self: Effect.Effect<A, KafkaFailure>) =>
  Effect.suspend(() => {
    const started = clock.currentTimeMillisUnsafe()
    const patienceWith = (failure: KafkaFailure) => unknownTopic(failure) ? unknownTopicGrace : patience
    const loop = (tries: number): Effect.Effect<A, KafkaFailure> =>
      Effect.catch(
        self,
        (failure) =>
          failure.transient && clock.currentTimeMillisUnsafe() - started < patienceWith(failure)
            ? Effect.andThen(backOff(tries, 500), loop(tries + 1))
            : Effect.fail(failure)
      )
    return loop(0)
  })

/** Retries transient failures: of a missing topic for half a second, others for `connectTimeout`. */
export const retryFor = (clock: Clock.Clock, settings: Settings) => retryWithin(clock, settings.connectTimeout)

/** Retries transient failures for ever, once a second. */
export const retryTransient = <A>(self: Effect.Effect<A, KafkaFailure>): Effect.Effect<A, KafkaFailure> =>
  Effect.catch(
    self,
    (failure) => failure.transient ? Effect.andThen(Effect.sleep(1_000), retryTransient(self)) : Effect.fail(failure)
  )

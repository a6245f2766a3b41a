/**
 * One topic of one broker, read once for all who listen to it in this process.
 *
 * Invariant: `listening` succeeds only while the tail runs, and then the
 * subscriber is in the registry in the same step; so whatever is published
 * afterwards reaches it.
 *
 *     Starting ─▶ Running ─▶ Failing ─▶ Starting …
 *
 * A start that fails is told to those who wait for it. The next one comes after
 * a delay that doubles, or at once when somebody subscribes; a hub that has
 * never run waits for that.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Scope from "effect/Scope"
import { type Broker, BrokerError, Refused, type Signal, type TopicCreation } from "../../Broker.ts"
import * as Health from "../../Health.ts"
import type * as Topic from "../../Topic.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Dispatch from "./dispatch.ts"
import type { Subscriber } from "./subscriber.ts"

const firstRestartMillis = 1_000
const longestRestartMillis = 30_000

export interface Hub {
  /** Registers a subscriber of the running tail until the scope closes; fails if the tail cannot start. */
  readonly listen: (
    topic: Topic.Any,
    subscriber: Subscriber
  ) => Effect.Effect<void, BrokerError, Scope.Scope>
  /** How many listen. */
  readonly size: () => number
}

/** Reads from the first subscriber on, until the scope closes. */
export const make = Effect.fnUntraced(function*(
  broker: Broker["Service"],
  name: string
): Effect.fn.Return<Hub, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const scope = yield* Scope.Scope
  const dispatch = Dispatch.make(name, clock)
  let create: TopicCreation | undefined
  /** What becomes of the present start, or else of the next one. */
  let started = Deferred.makeUnsafe<void, BrokerError>()
  let running = false
  /** Open when somebody waits for a start. */
  const wanted = Latch.makeUnsafe(false)

  const onSignal = (signal: Signal): Effect.Effect<void> =>
    signal._tag === "Records" && dispatch.size() > 0
      ? dispatch.records(signal.assignment.partition, signal.records)
      : Effect.void

  /** Reads until the tail fails. */
  const readOnce = (onStarted: Effect.Effect<void>): Effect.Effect<never, BrokerError> =>
    Effect.scoped(Effect.gen(function*() {
      yield* broker.ensureTopics([{ name, create }])
      const flow = yield* broker.tail({ topics: [name], onSignal })
      yield* onStarted
      running = true
      yield* Deferred.succeed(started, undefined)
      return yield* Effect.ensuring(flow.failed, Effect.sync(() => void (running = false)))
    })).pipe(Effect.catchDefect((defect) => Effect.fail(unexpected(name, defect))))

  const keepReading = Effect.gen(function*() {
    let health: Health.Report | undefined
    let afterMillis = firstRestartMillis
    const onStarted = Effect.gen(function*() {
      afterMillis = firstRestartMillis
      health ??= yield* Scope.provide(Health.register("broadcast", name), scope)
      yield* health.running
      yield* EngineEvent.log({ _tag: "BroadcastStarted", topic: name })
    })
    yield* wanted.await
    while (true) {
      const error = yield* Effect.flip(readOnce(onStarted))
      const outcome = started
      started = Deferred.makeUnsafe()
      wanted.closeUnsafe()
      yield* Deferred.fail(outcome, error)
      if (health === undefined) {
        yield* wanted.await
        continue
      }
      yield* dispatch.each((subscriber) => subscriber.tailFailed(error))
      yield* health.failing(error.message)
      yield* EngineEvent.log({ _tag: "BroadcastRestarting", topic: name, reason: error.message, afterMillis })
      yield* Effect.raceFirst(Effect.sleep(afterMillis), wanted.await)
      afterMillis = Math.min(longestRestartMillis, afterMillis * 2)
    }
  })

  const register = (topic: Topic.Any, subscriber: Subscriber): Effect.Effect<void, BrokerError> =>
    Effect.suspend(() => {
      create ??= topic.create
      if (running) return dispatch.add(topic, subscriber)
      // Before the latch opens: a start may run to its end meanwhile, and leave the next one's.
      const outcome = started
      wanted.openUnsafe()
      return Effect.andThen(Deferred.await(outcome), register(topic, subscriber))
    })

  yield* Effect.addFinalizer(() =>
    Effect.andThen(
      dispatch.each((subscriber) => {
        subscriber.end()
        return "Ended"
      }),
      Deferred.interrupt(started)
    )
  )
  yield* Effect.forkScoped(keepReading)

  return {
    // The way out is there before the way in, so that no interruption falls between.
    listen: (topic, subscriber) =>
      Effect.andThen(
        Effect.addFinalizer(() => Effect.andThen(dispatch.remove(subscriber), Effect.sync(() => subscriber.end()))),
        register(topic, subscriber)
      ),
    size: dispatch.size
  }
})

const unexpected = (topic: string, cause: unknown): BrokerError =>
  new BrokerError({
    reason: new Refused({
      operation: `read topic "${topic}"`,
      detail: cause instanceof Error ? cause.message : String(cause),
      cause
    })
  })

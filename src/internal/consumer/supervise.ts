/**
 * Keeps consumers running: what ends by itself starts again, after a delay that
 * doubles, with a log line, and `Health` says so meanwhile.
 *
 * Whatever ends them counts, also a defect of a Layer: a group that stands
 * still in silence is what nobody finds at three in the morning.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Health from "../../Health.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Thrown from "../thrown.ts"
import type { ConsumerError } from "./definition.ts"
import type { Started } from "./start.ts"

const firstRestartMillis = 1_000
const longestRestartMillis = 30_000
/** What fails again within so long has not recovered. */
const steadyMillis = 5_000

interface Running {
  readonly scope: Scope.Closeable
  readonly failed: Started["failed"]
}

/** Starts consumers, and keeps them running until the scope closes. Fails only if the first start does. */
export const supervise = <R>(
  group: string,
  start: Effect.Effect<Started, ConsumerError, R | Scope.Scope>
): Effect.Effect<void, ConsumerError, Exclude<R, Scope.Scope> | Scope.Scope> => {
  const startInScope = Effect.gen(function*() {
    const scope = yield* Scope.make()
    const { failed } = yield* Effect.onError(
      Scope.provide(start, scope),
      (cause) => Scope.close(scope, Exit.failCause(cause))
    )
    return { scope, failed }
  })

  /** Waits until consumers have run for a while, or have ended again. */
  const steady = Effect.fnUntraced(function*(running: Running) {
    const ended = yield* Effect.timeoutOption(Effect.exit(running.failed), steadyMillis)
    if (Option.isNone(ended)) return Exit.succeed(running)
    yield* Scope.close(running.scope, Exit.void)
    return ended.value
  })

  const keep = Effect.fnUntraced(function*(first: Running) {
    let current = first
    const health = yield* Health.register("consumer", group)
    yield* Effect.addFinalizer(() => Scope.close(current.scope, Exit.void))
    yield* Effect.forkScoped(Effect.gen(function*() {
      while (true) {
        let ended: Exit.Exit<Running, ConsumerError> = yield* Effect.exit(current.failed)
        yield* Scope.close(current.scope, Exit.void)
        for (let afterMillis = firstRestartMillis; Exit.isFailure(ended);) {
          const reason = Thrown.messageOf(Cause.squash(ended.cause))
          yield* EngineEvent.log({ _tag: "Restarting", group, reason, afterMillis })
          yield* health.failing(reason)
          yield* Effect.sleep(afterMillis)
          afterMillis = Math.min(longestRestartMillis, afterMillis * 2)
          // In one step, so that the finalizer finds what has started.
          ended = yield* Effect.uninterruptibleMask((restore) =>
            Effect.exit(Effect.map(restore(startInScope), (running) => current = running))
          )
          if (Exit.isSuccess(ended)) ended = yield* steady(current)
        }
        yield* health.running
      }
    }))
  })

  return Effect.uninterruptibleMask((restore) => Effect.flatMap(restore(startInScope), keep))
}

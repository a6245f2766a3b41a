/**
 * What a handler finds around it: a `Scope` of its own for each attempt, the
 * event that caused what it publishes, and that event's trace, which its spans
 * join; without it the span of a database transaction would begin a trace of
 * its own, and what is published inside would name that one.
 *
 * Runs for every event, so it is one primitive by hand instead of `suspend`,
 * `provideService` and `scoped` on top of each other.
 *
 * @internal
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import * as Event from "../../../Event.ts"
import * as Envelope from "../../wire/envelope.ts"
import * as TraceContext from "../../wire/traceContext.ts"

/** Calls a handler with its surroundings. `cause` is `undefined` for batches, which name their causes themselves. */
export const call = <A>(
  handle: (input: A) => Effect.Effect<unknown, unknown>,
  input: A,
  cause: Event.Event<unknown> | undefined
): Effect.Effect<unknown, unknown> =>
  Effect.withFiber((fiber) => {
    const before = fiber.context
    const scope = enter(fiber, before, cause)
    return Effect.onExitPrimitive(started(handle, input), (exit) => {
      fiber.setContext(before)
      return Scope.closeUnsafe(scope, exit)
    })
  })

/**
 * Gives a fiber the surroundings of an attempt, on top of the context that it
 * had before. Whoever calls this gives that one back, and closes the scope.
 */
export const enter = (
  fiber: Fiber.Fiber<unknown, unknown>,
  before: Context.Context<never>,
  cause: Event.Event<unknown> | undefined
): Scope.Closeable => {
  const scope = Scope.makeUnsafe()
  fiber.setContext(Context.add(Context.add(inTraceOf(before, cause), Event.Current, cause), Scope.Scope, scope))
  return scope
}

const inTraceOf = (
  context: Context.Context<never>,
  cause: Event.Event<unknown> | undefined
): Context.Context<never> => {
  const traceparent = cause === undefined ? undefined : Event.header(cause, Envelope.traceparent)
  const trace = traceparent === undefined ? undefined : TraceContext.parse(traceparent)
  return trace === undefined ? context : Context.add(context, Tracer.ParentSpan, Tracer.externalSpan(trace))
}

/** What a handler throws before it returns an effect is a defect like any other. */
export const started = <A>(
  handle: (input: A) => Effect.Effect<unknown, unknown>,
  input: A
): Effect.Effect<unknown, unknown> => {
  try {
    return handle(input)
  } catch (defect) {
    return Effect.die(defect)
  }
}

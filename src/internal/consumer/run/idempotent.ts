/**
 * The mode `idempotent` (and `broadcast`): the handler and nothing around it.
 * What it does may be done again after a crash.
 *
 * @internal
 */
import type * as Effect from "effect/Effect"
import type * as Event from "../../../Event.ts"
import type { Apply, Handler } from "../handler.ts"
import { call } from "./surroundings.ts"

type Plain = Pick<Handler, "apply" | "direct">

type Handle<A> = (input: A) => Effect.Effect<unknown, unknown>

/** A handler of single events; what it publishes meanwhile names the event as its cause. */
export const each = (handle: Handle<Event.Event<unknown>>): Plain => ({
  apply: (events) => call(handle, events[0], events[0]),
  direct: handle
})

/** A handler of batches. */
export const batch = (handle: Handle<Parameters<Apply>[0]>): Plain => ({
  apply: (events) => call(handle, events, undefined),
  direct: undefined
})

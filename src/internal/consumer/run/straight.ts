/**
 * The straight way, which nearly all events go: the record decodes at once,
 * and the handler succeeds. One loop runs event after event, and what an event
 * needs around it is set up once for all of them.
 *
 * The loop is interruptible as a whole. That is safe since what was taken is
 * settled in the same step in which its handler ends: in between, nothing is
 * taken and not settled.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Event from "../../../Event.ts"
import type { Handler } from "../handler.ts"
import type { Task } from "../order/assignment.ts"
import { isDone, type Undecodable } from "./decode.ts"
import type { Slot, Slots } from "./slots.ts"

/** A task for which the straight way is no way: it has not begun, or its attempt ended like this. */
export interface Left {
  readonly task: Task
  readonly exit: Exit.Exit<unknown, unknown> | undefined
}

export const make = (options: {
  readonly handler: Handler
  /** The task whose turn it is, if any. */
  readonly take: () => Task | undefined
  readonly decoded: (task: Task) => Effect.Effect<Event.Event<unknown>, Undecodable>
  readonly begin: Slots["begin"]
  /** Settles a task whose handler has succeeded; may return something more to do. */
  readonly succeeded: (slot: Slot, task: Task) => Effect.Effect<void> | undefined
}) => {
  const { begin, decoded, handler, succeeded, take } = options

  /** Runs events while it may go on and there are some. Returns the one that needs something else. */
  return (slot: Slot, mayGoOn: () => boolean): Effect.Effect<Left | undefined> => {
    let task: Task | undefined
    let event: Event.Event<unknown>
    const ended = (exit: Exit.Exit<unknown, unknown>) => {
      slot.running = []
      if (Exit.isFailure(exit)) return undefined
      const done = task!
      task = undefined
      return succeeded(slot, done)
    }
    const loop = Effect.whileLoop({
      while: () => {
        if (!mayGoOn()) return false
        task = take()
        if (task === undefined || task.failures !== undefined) return false
        const decoding = decoded(task)
        if (!isDone(decoding) || Exit.isFailure(decoding)) return false
        event = decoding.value
        return true
      },
      body: () => {
        begin(slot, [task!])
        task!.delivery.assignment.start(task!)
        return Effect.onExitPrimitive(handler.apply([event]), ended)
      },
      step: () => {}
    })
    return Effect.flatMap(Effect.exit(slot.restore(loop)), (exit) => {
      if (task !== undefined) return Effect.succeed({ task, exit: Exit.isFailure(exit) ? exit : undefined })
      // A defect outside of any handler: of the engine itself.
      return Exit.isFailure(exit) ? Effect.die(exit.cause) : Effect.undefined
    })
  }
}

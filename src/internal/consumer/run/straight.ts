/**
 * The straight way, which nearly all events go: the record decodes at once,
 * the handler succeeds, and its scope is empty. One loop runs event after
 * event, and what catches a failure is set up once for all of them.
 *
 * The loop is interruptible as a whole. That is safe since what was taken is
 * settled in the same step in which its handler ends: in between, nothing is
 * taken and not settled.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type * as Event from "../../../Event.ts"
import type { Handler } from "../handler.ts"
import type { Task } from "../order/assignment.ts"
import type { Slot, Slots } from "./slots.ts"
import * as Surroundings from "./surroundings.ts"

/** A task for which the straight way is no way: it has not begun, or its attempt ended like this. */
export interface Left {
  readonly task: Task
  readonly exit: Exit.Exit<unknown, unknown> | undefined
}

export const make = (options: {
  readonly handler: Handler
  /** The task whose turn it is, if any. */
  readonly take: () => Task | undefined
  /** The event of a task, if it decodes at once, and there is nothing else to be done for it. */
  readonly decoded: (task: Task) => Event.Event<unknown> | undefined
  readonly begin: Slots["begin"]
  /** Settles a task whose handler has succeeded. */
  readonly succeeded: (slot: Slot, task: Task) => void
}) => {
  const { begin, decoded, handler, succeeded, take } = options
  const { direct } = handler

  /** Runs events while it may go on and there are some. Returns the one that needs something else. */
  return (slot: Slot, mayGoOn: () => boolean): Effect.Effect<Left | undefined> => {
    const { fiber } = slot
    const before = fiber.context
    let task: Task | undefined
    let event: Event.Event<unknown> | undefined
    let scope: Scope.Closeable | undefined
    let success: Exit.Exit<unknown> | undefined
    const loop = Effect.whileLoop({
      while: () => {
        if (task !== undefined || !mayGoOn()) return false
        event = undefined
        task = take()
        if (task === undefined || task.failures !== undefined) return false
        event = decoded(task)
        return event !== undefined
      },
      body: () => {
        begin(slot, [task!])
        task!.delivery.assignment.start(task!)
        if (direct === undefined) return handler.apply([event!])
        scope = Surroundings.enter(fiber, before, event)
        return Surroundings.started(direct, event!)
      },
      step: (value) => {
        if (scope !== undefined) {
          // Finalizers belong to the attempt, and the straight way has no place for them.
          if (scope.state._tag !== "Empty") return void (success = Exit.succeed(value))
          Scope.closeUnsafe(scope, Exit.void)
        }
        const done = task!
        task = undefined
        slot.running = []
        succeeded(slot, done)
      }
    })
    return Effect.flatMap(Effect.exit(slot.restore(loop)), (end): Effect.Effect<Left | undefined> => {
      fiber.setContext(before)
      if (task === undefined) {
        // A defect outside of any handler: of the engine itself.
        return Exit.isFailure(end) ? Effect.die(end.cause) : Effect.undefined
      }
      const left = task
      if (event === undefined) return Effect.succeed({ task: left, exit: undefined })
      const exit = success ?? end
      const closing = scope === undefined ? undefined : Scope.closeUnsafe(scope, exit)
      return closing === undefined
        ? Effect.succeed({ task: left, exit })
        : Effect.map(Effect.exit(Effect.onExitPrimitive(exit, () => closing)), (exit) => ({ task: left, exit }))
    })
  }
}

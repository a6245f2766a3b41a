/**
 * How assignments end: by a drain that is waited for, or at once.
 *
 * A drain hands back what has not started, waits for what runs, interrupts it
 * at the deadline, and commits; only then may somebody else have the
 * partition. Draining an assignment that drains already joins that drain.
 *
 * @internal
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as EngineEvent from "../engineEvent.ts"
import { type Commits, logFailure } from "./commits.ts"
import type { Reader } from "./handler.ts"
import type { Assignment } from "./order/assignment.ts"

/** How long interrupted handlers are waited for: their finalizers run meanwhile. */
const interruptedWait = "5 seconds"

export const make = (options: {
  readonly group: string
  readonly readers: ReadonlyArray<Reader>
  readonly commits: Commits
}) => {
  const { commits, group, readers } = options
  const latches = new WeakMap<Assignment, Latch.Latch>()

  const drained = (assignment: Assignment): Effect.Effect<void> => {
    const known = latches.get(assignment)
    if (known !== undefined) return known.await
    const latch = Latch.makeUnsafe(false)
    latches.set(assignment, latch)
    assignment.drain(() => latch.openUnsafe())
    return latch.await
  }

  const interrupt = (assignments: ReadonlyArray<Assignment>): Effect.Effect<number> =>
    Effect.suspend(() => {
      const set = new Set(assignments)
      const fibers = readers.flatMap((reader) => reader.interrupt(set))
      return Fiber.awaitAll(fibers).pipe(Effect.timeoutOption(interruptedWait), Effect.as(fibers.length))
    })

  const draining = (begins: boolean) => {
    for (const reader of readers) reader.draining?.(begins)
  }

  /** Ends assignments in good order; `setting` names what to change when handlers take longer. */
  const drain = Effect.fnUntraced(function*(
    assignments: ReadonlyArray<Assignment>,
    within: Duration.Input,
    setting: string
  ) {
    const all = Effect.forEach(assignments, drained, { discard: true })
    const inTime = yield* Effect.acquireUseRelease(
      Effect.sync(() => draining(true)),
      () => Effect.timeoutOption(all, within),
      () => Effect.sync(() => draining(false))
    )
    if (inTime._tag === "None") {
      const running = yield* interrupt(assignments)
      // Whoever gave no time (an open stream, whose pipeline is gone) is not told that it was too short.
      if (running > 0 || !Duration.isZero(Duration.fromInputUnsafe(within))) {
        yield* EngineEvent.log({ _tag: "DrainOverdue", group, running, setting })
      }
    }
    yield* Effect.catch(commits.flush(() => assignments), (error) => logFailure(group, error))
    for (const assignment of assignments) assignment.release()
  })

  /** Ends assignments at once: nothing is committed. */
  const lose = (assignments: ReadonlyArray<Assignment>): Effect.Effect<void> =>
    Effect.suspend(() => {
      for (const assignment of assignments) assignment.lose()
      return Effect.asVoid(interrupt(assignments))
    })

  return { drain, lose }
}

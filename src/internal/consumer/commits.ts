/**
 * Commits watermarks: batched, one in flight per group, fenced by epoch.
 *
 * A commit goes out when 1,000 records have finished since the last one, or
 * 1 s after the first of them, and always on drain. Positions are read when
 * the request is made and not before, so a late commit never carries an older
 * position than an earlier one.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Semaphore from "effect/Semaphore"
import type { BrokerError, Position } from "../../Broker.ts"
import * as EngineEvent from "../engineEvent.ts"
import type { Assignment } from "./order/assignment.ts"

const maxUncommitted = 1_000
const maxDelay = "1 second"

export interface Commits {
  /** Why the last commit failed; `undefined` if it did not. */
  readonly error: () => string | undefined
  /** Says that records have finished. */
  readonly finished: (records: number) => void
  /** Commits what can be committed of these assignments now, and fails if that fails. */
  readonly flush: (assignments: () => Iterable<Assignment>) => Effect.Effect<void, BrokerError>
  /** Commits in the background, for as long as it runs. */
  readonly run: Effect.Effect<never>
}

/** Says that a commit failed, and whether it came too late. */
export const logFailure = (group: string, error: BrokerError): Effect.Effect<void> =>
  EngineEvent.log({
    _tag: error.reason._tag === "Fenced" ? "CommitFenced" : "CommitFailed",
    group,
    reason: error.message
  })

export const make = (options: {
  readonly group: string
  readonly assignments: () => Iterable<Assignment>
  readonly commit: (positions: ReadonlyArray<Position>) => Effect.Effect<void, BrokerError>
}): Commits => {
  const oneInFlight = Semaphore.makeUnsafe(1)
  const some = Latch.makeUnsafe(false)
  const many = Latch.makeUnsafe(false)
  let uncommitted = 0
  let failure: string | undefined

  const flush = (assignments: () => Iterable<Assignment>) =>
    oneInFlight.withPermit(Effect.suspend(() => {
      const due: Array<readonly [Assignment, bigint]> = []
      for (const assignment of assignments()) {
        const offset = assignment.watermark.position
        if (assignment.mayCommit && offset !== undefined && offset !== assignment.committed) {
          due.push([assignment, offset])
        }
      }
      if (due.length === 0) return Effect.void
      return options.commit(due.map(([assignment, offset]) => ({ ...assignment.grant, offset }))).pipe(
        Effect.tap(() => {
          failure = undefined
          for (const [assignment, offset] of due) assignment.committed = offset
          return EngineEvent.log({ _tag: "Committed", group: options.group, partitions: due.length })
        }),
        Effect.tapError((error) => Effect.sync(() => void (failure = error.message)))
      )
    }))

  const inBackground = flush(options.assignments).pipe(
    Effect.catch((error) => {
      // Fenced or not, what can still be committed is committed the next time.
      uncommitted++
      some.openUnsafe()
      return logFailure(options.group, error)
    })
  )

  return {
    error: () => failure,
    finished(records) {
      if (uncommitted === 0) some.openUnsafe()
      uncommitted += records
      if (uncommitted >= maxUncommitted) many.openUnsafe()
    },
    flush,
    run: some.await.pipe(
      Effect.andThen(Effect.raceFirst(many.await, Effect.sleep(maxDelay))),
      Effect.tap(() =>
        Effect.sync(() => {
          uncommitted = 0
          some.closeUnsafe()
          many.closeUnsafe()
        })
      ),
      Effect.andThen(inBackground),
      Effect.forever
    )
  }
}

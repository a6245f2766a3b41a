/**
 * Once a second: what has moved, what is stuck, what was counted.
 *
 * The engine's hot path knows nothing of it. A partition that gets stuck, or
 * moves again, is said once, and `Health` lists it meanwhile.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { Members, type Partition } from "../../../ConsumerGroup.ts"
import * as Health from "../../../Health.ts"
import * as EngineEvent from "../../engineEvent.ts"
import { PartitionGauges } from "../../metrics.ts"
import type { Reader } from "../handler.ts"
import type { Assignment } from "../order/assignment.ts"
import * as EventLoop from "./eventLoop.ts"
import { describe, Progress } from "./status.ts"

const every = "1 second"

/** What is known of an assignment from beat to beat. */
interface Watched {
  readonly progress: Progress
  readonly gauges: PartitionGauges
}

/** Watches a group, and lists it among those of the process, for as long as the scope lives. */
export const make = Effect.fnUntraced(function*(options: {
  readonly group: string
  readonly assignments: () => Iterable<Assignment>
  readonly readers: ReadonlyArray<Reader>
  readonly commits: () => boolean
  readonly commitError: () => string | null
  readonly stuckAfterMillis: number
}) {
  const { assignments, commitError, commits, group, readers, stuckAfterMillis } = options
  const members = yield* Members
  const parts = yield* Health.Parts
  const clock = yield* Clock.Clock
  const context = yield* Effect.context<never>()
  const watched = new Map<Assignment, Watched>()

  const observed = (assignment: Assignment, now: number): Watched => {
    let known = watched.get(assignment)
    if (known === undefined) {
      const { partition, topic } = assignment.grant
      const gauges = new PartitionGauges({ group, topic, partition: String(partition) }, context)
      known = { progress: new Progress(now), gauges }
      watched.set(assignment, known)
    }
    known.progress.observe(assignment, now)
    return known
  }

  const describeOne = (assignment: Assignment, progress: Progress, now: number): Partition =>
    describe(assignment, progress, {
      readers: readers.filter(({ topic }) => topic === assignment.grant.topic),
      commits: commits(),
      commitError: commitError(),
      stuckAfterMillis
    }, now)

  /** Says that a partition got stuck, or moves again. */
  const turned = (assignment: Assignment, progress: Progress, now: number): Effect.Effect<void> => {
    const place = { group, ...assignment.grant }
    if (!progress.stuck) {
      parts.delete(assignment)
      return EngineEvent.log({ _tag: "Unstuck", ...place })
    }
    const { reason } = describeOne(assignment, progress, now)
    const where = `${assignment.grant.topic}/${assignment.grant.partition}`
    parts.set(assignment, {
      kind: "consumer",
      name: group,
      sinceMillis: now,
      state: "Stuck",
      reason: `${where}: ${reason}`
    })
    return EngineEvent.log({ _tag: "Stuck", ...place, reason })
  }

  const forget = (assignment: Assignment, { gauges }: Watched) => {
    watched.delete(assignment)
    parts.delete(assignment)
    gauges.remove()
  }

  const flush = () => {
    for (const { meter } of readers) meter.flush()
  }

  const beat = Effect.suspend(() => {
    const now = clock.currentTimeMillisUnsafe()
    const turns: Array<Effect.Effect<void>> = []
    const present = new Set(assignments())
    for (const [assignment, known] of watched) if (!present.has(assignment)) forget(assignment, known)
    for (const assignment of present) {
      const { gauges, progress } = observed(assignment, now)
      const stuck = progress.isStuck(assignment, stuckAfterMillis, now)
      gauges.set(assignment.watermark.span, assignment.buffered, stuck ? 1 : 0)
      if (stuck === progress.stuck) continue
      progress.stuck = stuck
      turns.push(turned(assignment, progress, now))
    }
    flush()
    return Effect.all(turns, { discard: true })
  })

  const member = {
    group,
    handlers: readers.map(({ handler, topic }) => ({ topic, handler })),
    partitions: (now: number) =>
      Array.from(assignments(), (assignment) => describeOne(assignment, observed(assignment, now).progress, now))
  }

  yield* Effect.acquireRelease(
    Effect.sync(() => {
      members.add(member)
      return EventLoop.watch({
        now: () => clock.currentTimeMillisUnsafe(),
        running: () =>
          readers.flatMap((reader) =>
            Array.from(reader.running(), ({ running, startedMillis }) => ({
              handler: reader.handler,
              tasks: running,
              startedMillis,
              endedMillis: undefined
            }))
          ).filter(({ tasks }) => tasks.length > 0),
        fork: (effect) => void Effect.runForkWith(context)(effect)
      })
    }),
    (unwatch) =>
      Effect.sync(() => {
        unwatch()
        members.delete(member)
        flush()
        for (const [assignment, known] of watched) forget(assignment, known)
      })
  )
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(every), beat)))
})

/**
 * Bounded memory: how much of each partition, and of all, waits or runs here.
 *
 *     flows ──full──▶ waits 25 ms ──still full──▶ paused ──room──▶ resumed
 *                          └──room──▶ flows
 *
 * A partition is full when too many of its records are not finished, too many
 * offsets lie between its watermark and what was delivered last, or one key
 * holds half of the buffer. It is also full when all partitions together hold
 * too much; then those go on that hold less than their share, so that
 * partitions that are stuck cannot stop the others. There is room again when
 * half of what was too much is gone.
 *
 * One place pauses and resumes a partition, one after the other: `room` of an
 * assignment is set from when it is full until it has been resumed.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { Flow } from "../../../Broker.ts"
import type { PauseReason } from "../../pauseReason.ts"
import type { Assignment, Task } from "./assignment.ts"
import type { Held } from "./held.ts"

/** Records that may wait or run per partition before it is paused, unless batches ask for more. */
const leastPrefetch = 1_024
/** Batches that the records of one partition should fill, so that none waits for a fetch. */
const prefetchedBatches = 8
/** Offsets that may lie between watermark and highest delivered record. */
const maxSpan = 10_000
/** Records, and bytes of keys and values, of all partitions. */
const maxRecords = 20_480
const maxBytes = 64 * 1024 * 1024
/** How long a full partition waits for room before it is paused: a pause costs a fetch. */
const roomWait = "25 millis"

/** How much is too much, of each kind. */
type Bounds = { readonly [Reason in PauseReason]: number }

export const make = (options: {
  /** Most tasks that each reader takes at once. */
  readonly takes: ReadonlyArray<number>
  readonly flow: Effect.Effect<Pick<Flow, "pause" | "resume">>
  /** How many partitions share the total. */
  readonly partitions: () => number
  readonly fork: (effect: Effect.Effect<unknown>) => void
}) => {
  const { flow, fork, partitions } = options
  const prefetch = Math.max(leastPrefetch, ...options.takes.map((takes) => takes * prefetchedBatches))
  const full: Bounds = { prefetch, span: maxSpan, key: prefetch / 2, total: maxRecords, bytes: maxBytes }
  const half = (reason: PauseReason) => ({ ...full, [reason]: Math.floor(full[reason] / 2) + 1 })
  /** What is still too much for a partition that was full for this reason: half of that bound, and the others whole. */
  const after: { readonly [Reason in PauseReason]: Bounds } = {
    prefetch: half("prefetch"),
    span: half("span"),
    key: half("key"),
    total: half("total"),
    bytes: half("bytes")
  }
  const total: Held = { records: 0, bytes: 0 }
  const waiting = new Set<Assignment>()
  /** Whether somebody may wait for others to free the total. */
  let crowded = false

  const excess = (assignment: Assignment, bounds: Bounds): PauseReason | undefined => {
    const { buffered, bufferedBytes, hotLane, watermark } = assignment
    if (buffered >= bounds.prefetch) return "prefetch"
    if (watermark.span >= bounds.span) return "span"
    if (hotLane !== undefined && hotLane.length >= bounds.key) return "key"
    const shares = 2 * Math.max(1, partitions())
    const reason = total.records >= bounds.total && buffered >= bounds.total / shares
      ? "total"
      : total.bytes >= bounds.bytes && bufferedBytes >= bounds.bytes / shares
      ? "bytes"
      : undefined
    if (reason !== undefined) crowded = true
    return reason
  }

  const open = (assignment: Assignment) => {
    const { room } = assignment
    if (room === undefined || excess(assignment, after[room.reason]) !== undefined) return
    assignment.hotLane = undefined
    room.latch.openUnsafe()
  }

  const openOthers = () => {
    crowded = false
    for (const assignment of waiting) open(assignment)
  }

  /** Notes a task that was put into its lane. */
  const offered = (task: Task) => {
    if (task.lane.length >= full.key) task.delivery.assignment.hotLane = task.lane
  }

  /** Says that a record of an assignment may have finished. Synchronous and cheap. */
  const finished = (assignment: Assignment) => {
    if (assignment.room !== undefined) open(assignment)
    if (crowded && total.records < after.total.total && total.bytes < after.bytes.bytes) openOthers()
  }

  /** Says that an assignment has ended. */
  const ended = (assignment: Assignment) => {
    assignment.room?.latch.openUnsafe()
    openOthers()
  }

  /** Waits, after records were taken in, until their partition has room, or is paused. */
  const entered = (assignment: Assignment): Effect.Effect<void> =>
    Effect.suspend(() => {
      const { room } = assignment
      if (room !== undefined) {
        // A partition that is being resumed may be full again; before that, this chunk was on its way.
        return room.latch.isOpen() ? Effect.andThen(room.left.await, entered(assignment)) : Effect.void
      }
      const reason = excess(assignment, full)
      if (reason === undefined) return Effect.void
      // In the same step as the look, else what finishes in between would open nothing.
      const latch = Latch.makeUnsafe(false)
      assignment.room = { reason, latch, left: Latch.makeUnsafe(false) }
      waiting.add(assignment)
      return waitForRoom(assignment, reason, latch)
    })

  const waitForRoom = Effect.fnUntraced(function*(assignment: Assignment, reason: PauseReason, latch: Latch.Latch) {
    if ((yield* Effect.timeoutOption(latch.await, roomWait))._tag === "Some") return left(assignment)
    const { pause, resume } = yield* flow
    assignment.paused = reason
    yield* pause([assignment.grant])
    fork(Effect.gen(function*() {
      yield* latch.await
      if (assignment.phase._tag === "Owned") yield* resume([assignment.grant])
      assignment.paused = undefined
      left(assignment)
      if (assignment.phase._tag === "Owned") yield* entered(assignment)
    }))
  })

  const left = (assignment: Assignment) => {
    const { room } = assignment
    assignment.room = undefined
    waiting.delete(assignment)
    room?.left.openUnsafe()
  }

  return { total, offered, finished, ended, entered }
}

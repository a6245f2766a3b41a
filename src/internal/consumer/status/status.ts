/**
 * How one assignment is, in numbers and in a sentence: what its oldest
 * unfinished record waits for, what has run longest, and whether it moves.
 *
 * Looks at the engine's state when asked, so that being observable costs
 * nothing per record. Pure.
 *
 * @internal
 */
import type { Partition, PauseReason, Running, Waiting } from "../../../ConsumerGroup.ts"
import { reasonOf as failureOf } from "../../wire/deadLetter.ts"
import { asText, shortKey } from "../../wire/envelope.ts"
import type { Reader } from "../handler.ts"
import type { Assignment, Delivery, Task } from "../order/assignment.ts"

/** When an assignment last moved. */
export class Progress {
  progressMillis: number
  /** Since when its watermark is ahead of what is committed. */
  uncommittedMillis: number
  stuck = false
  private position: bigint | undefined
  private committed: bigint | undefined
  private busy = false

  constructor(now: number) {
    this.progressMillis = now
    this.uncommittedMillis = now
  }

  /** Takes note of what has changed since the last time. */
  observe(assignment: Assignment, now: number): void {
    const { buffered, committed, watermark: { position } } = assignment
    const busy = buffered > 0
    if (position !== this.position || busy && !this.busy) this.progressMillis = now
    if (committed !== this.committed || committed === position) this.uncommittedMillis = now
    this.position = position
    this.committed = committed
    this.busy = busy
  }

  isStuck(assignment: Assignment, stuckAfterMillis: number, now: number): boolean {
    const waitsForItsTime = (dueOf(assignment.watermark.first) ?? 0) > now
    return assignment.buffered > 0 && !waitsForItsTime && now - this.progressMillis >= stuckAfterMillis ||
      this.isUncommitted(assignment, stuckAfterMillis, now)
  }

  isUncommitted(assignment: Assignment, forMillis: number, now: number): boolean {
    return assignment.committed !== assignment.watermark.position && now - this.uncommittedMillis >= forMillis
  }
}

/** What is known about an assignment beside its own state. */
export interface Surroundings {
  /** Those of its topic, in the order in which tasks are made. */
  readonly readers: ReadonlyArray<Reader>
  /** Whether its positions are committed at all. */
  readonly commits: boolean
  readonly commitError: string | null
  readonly stuckAfterMillis: number
}

export const keyOf = ({ delivery: { record: { key } } }: Task): string | null =>
  key === null ? null : shortKey(asText(key))

const recordOf = (handler: string, task: Task) => ({
  handler,
  key: keyOf(task),
  offset: String(task.delivery.offset)
})

interface Oldest {
  readonly running: Running
  readonly timeoutMillis: number
}

const oldestRunning = (assignment: Assignment, readers: ReadonlyArray<Reader>, now: number): Oldest | undefined => {
  let oldest: Oldest | undefined
  for (const { handler, running, timeoutMillis } of readers) {
    for (const { startedMillis, running: tasks } of running()) {
      const task = tasks.find(({ delivery, finished }) => delivery.assignment === assignment && !finished)
      if (task === undefined) continue
      const ageMillis = now - startedMillis
      if (oldest !== undefined && oldest.running.ageMillis >= ageMillis) continue
      oldest = { running: { ...recordOf(handler, task), ageMillis, batchSize: tasks.length }, timeoutMillis }
    }
  }
  return oldest
}

/** When a dead letter comes back, if it does so by itself. */
const dueOf = (delivery: Delivery | undefined): number | undefined => delivery?.letter?.head.due

/** What the first unfinished record waits for; `undefined` while it runs, or if there is none. */
const waitingOf = (assignment: Assignment, readers: ReadonlyArray<Reader>): Waiting | undefined => {
  const delivery = assignment.watermark.first
  const untilMillis = dueOf(delivery)
  if (delivery?.tasks?.lane.state === "Waiting" && untilMillis !== undefined) {
    const { head, raw } = delivery.letter!
    const error = failureOf(raw)
    return { ...recordOf(head.handler, delivery.tasks), for: "due", attempts: head.round + 1, untilMillis, error }
  }
  // The tasks of a delivery are chained from the last handler to the first.
  let at = readers.length - 1
  for (let task = delivery?.tasks; task !== undefined; task = task.sibling, at--) {
    const reader = readers[at]
    if (task.finished || reader === undefined) continue
    const waiting = {
      ...recordOf(reader.handler, task),
      attempts: task.failures?.attempts ?? 0,
      untilMillis: null,
      error: null
    }
    if (task.waits !== undefined && task.lane.state !== "Busy" && task.lane.state !== "Ready") {
      return { ...waiting, ...task.waits }
    }
    if (reader.open) return { ...waiting, for: assignment.hasStarted(task) ? "commit" : "pull" }
    if (task.lane.state === "Ready") return { ...waiting, for: "slot" }
  }
  return undefined
}

const seconds = (millis: number): string => `${Math.max(0, Math.round(millis / 1_000))} s`

const times = (count: number): string => count === 1 ? "once" : `${count} times`

const at = ({ key, offset }: { readonly key: string | null; readonly offset: string }): string =>
  key === null ? `offset ${offset}` : `offset ${offset} (key "${key}")`

const runs = ({ running, timeoutMillis }: Oldest): string => {
  const batch = running.batchSize > 1 ? ` in a batch of ${running.batchSize}` : ""
  const ran = `Handler "${running.handler}" has run for ${seconds(running.ageMillis)} at ${at(running)}${batch}`
  return running.ageMillis < timeoutMillis
    ? `${ran}; it is interrupted after ${seconds(timeoutMillis)}.`
    : `${ran} although it was interrupted after ${seconds(timeoutMillis)}: look for an uninterruptible region in it.`
}

const waits = (waiting: Waiting, oldest: Oldest | undefined, now: number): string => {
  const { attempts, error, handler, untilMillis } = waiting
  const again = untilMillis === null ? "" : ` Next try in ${seconds(untilMillis - now)}.`
  switch (waiting.for) {
    case "retry":
      return `Handler "${handler}" failed ${times(attempts)} at ${at(waiting)}: ${error}.${again}`
    case "block":
      return `Handler "${handler}" failed ${times(attempts)} at ${
        at(waiting)
      } and its policy never gives up: ${error}. ` +
        `Remove the cause, or give the handler a policy that gives up.${again}`
    case "deadLetter":
      return `The dead letter of handler "${handler}" for ${at(waiting)} cannot be written: ${error}. ` +
        `Check the dead-letter topic, and the right to write to it.${again}`
    case "store":
      return `The database does not answer, and handler "${handler}" waits for it at ${at(waiting)}: ${error}. ` +
        `Check the database; no attempt is counted meanwhile.${again}`
    case "due":
      return `A dead letter of handler "${handler}" at ${
        at(waiting)
      } comes back later, as its policy retryLater says; it failed with: ${error}.${again}`
    case "slot":
      return `Handler "${handler}" has no free slot for ${at(waiting)}.` +
        (oldest === undefined ? " Its slots are taken by other partitions or handlers." : ` ${runs(oldest)}`)
    case "commit":
      return `The stream "${handler}" was given ${at(waiting)} and has not committed it. ` +
        `Commit every event that is done, also those that are skipped.`
    case "pull":
      return `Nobody pulls ${at(waiting)} from the stream "${handler}": what is behind the stream is busy.`
  }
}

const pauses: { readonly [Reason in PauseReason]: string } = {
  prefetch: "it holds as many records as it may",
  span: "its oldest unfinished record lies too far below the newest",
  key: "one key holds as many records of the buffer as it may",
  total: "all partitions together hold as many records as they may",
  bytes: "all partitions together hold as many bytes as they may"
}

/** What an assignment is doing, and what keeps it, in a sentence or three. */
const reasonOf = (
  status: Omit<Partition, "reason">,
  oldest: Oldest | undefined,
  uncommitted: boolean,
  now: number
): string => {
  const { commitError, paused, waiting } = status
  const parts: Array<string> = []
  if (uncommitted || commitError !== null && status.buffered === 0) {
    parts.push(
      commitError === null
        ? "Its position waits for a commit."
        : `Commits fail: ${commitError}. Check the broker; what is not committed comes again after a restart.`
    )
  }
  if (waiting !== null) parts.push(waits(waiting, oldest, now))
  else if (oldest !== undefined) parts.push(runs(oldest))
  else if (status.buffered > 0) parts.push(`${status.buffered} records are on their way to a handler.`)
  if (paused !== null) parts.push(`The partition is paused: ${pauses[paused]}.`)
  if (status.draining) parts.push("It is being handed over.")
  return parts.length > 0
    ? parts.join(" ")
    : status.verdict === "idle"
    ? "Nothing to do."
    : "Its position is about to be committed."
}

export const describe = (
  assignment: Assignment,
  progress: Progress,
  around: Surroundings,
  now: number
): Partition => {
  const { buffered, committed, grant, paused, watermark } = assignment
  const { commitError, commits, readers, stuckAfterMillis } = around
  const oldest = oldestRunning(assignment, readers, now)
  const busy = buffered > 0 || committed !== watermark.position
  const status: Omit<Partition, "reason"> = {
    topic: grant.topic,
    partition: grant.partition,
    epoch: grant.epoch,
    draining: assignment.phase._tag === "Draining",
    verdict: progress.isStuck(assignment, stuckAfterMillis, now) ? "stuck" : busy ? "ok" : "idle",
    watermark: text(watermark.position),
    highestDelivered: text(watermark.highest),
    committed: commits ? text(committed) : null,
    span: watermark.span,
    buffered,
    paused: paused ?? null,
    running: oldest?.running ?? null,
    waiting: waitingOf(assignment, readers) ?? null,
    commitError,
    progressMillis: progress.progressMillis
  }
  const uncommitted = progress.isUncommitted(assignment, stuckAfterMillis, now)
  return { ...status, reason: reasonOf(status, oldest, uncommitted, now) }
}

const text = (offset: bigint | undefined): string | null => offset === undefined ? null : String(offset)

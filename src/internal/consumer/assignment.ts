/**
 * The state of one (topic, partition, epoch): what was delivered, what is
 * finished, and whether we may still act on it.
 *
 *     Owned ──drain──▶ Draining ──release──▶ Released
 *       └───────────────── lose ───────────▶ Lost
 *
 * Draining hands back what lies above the highest started offset, and what
 * backs off; the rest is finished first, since a hole below would hold the
 * watermark back and have everything above it delivered again. After Released
 * and Lost nothing is committed: results that come late change only objects
 * that nobody looks at any more.
 *
 * Pure and mutable, changed in synchronous steps only.
 *
 * @internal
 */
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import type * as Pull from "effect/Pull"
import type { Assignment as Grant, ConsumerRecord } from "../../Broker.ts"
import { asText } from "../wire/envelope.ts"
import { Lane, type LaneTask } from "./lanes.ts"
import { type Entry, Watermark } from "./watermark.ts"

/** One record on its way through one handler. */
export class Task implements LaneTask<Task> {
  readonly delivery: Delivery
  readonly lane: Lane<Task>
  readonly bytes: number
  dropped = false
  finished = false
  behind: Task | undefined = undefined
  /** The task of the same delivery for the next handler. */
  readonly sibling: Task | undefined
  /** What earlier attempts left; `undefined` for a first attempt. */
  failures: Failures | undefined = undefined
  /** How long to back off before the next attempt; `undefined`: not at all. */
  waitMillis: number | undefined = undefined
  constructor(delivery: Delivery, lane: Lane<Task>) {
    this.delivery = delivery
    this.lane = lane
    this.sibling = delivery.tasks
    this.bytes = delivery.record.value === null ? 0 : delivery.record.value.length
  }
}

/** The failed attempts of a task. */
export interface Failures {
  readonly attempts: number
  readonly firstMillis: number
  readonly lastMillis: number
  readonly lastDelay: number
  /** Steps the retry schedule; kept, so that its state goes on. `undefined` if the schedule could not start. */
  readonly step: RetryStep | undefined
  /** The cause of the failure after which the task was given up on; only its dead letter is left to write. */
  readonly givenUp: Cause.Cause<unknown> | undefined
}

/** One step of a retry schedule: from time and failure to the next delay. */
export type RetryStep = (now: number, input: unknown) => Pull.Pull<[unknown, Duration.Duration], never, unknown>

/** One record of a partition, on its way through every handler of its topic. */
export class Delivery implements Entry {
  readonly assignment: Assignment
  readonly record: ConsumerRecord
  /** The first of its tasks, which are chained by `sibling`. */
  tasks: Task | undefined = undefined
  done = false
  pending = 0
  constructor(assignment: Assignment, record: ConsumerRecord) {
    this.assignment = assignment
    this.record = record
  }
  get offset(): bigint {
    return this.record.offset
  }
}

/** `open` counts the tasks that a drain still waits for. */
export type Phase =
  | { readonly _tag: "Owned" }
  | { readonly _tag: "Draining"; open: number; readonly drained: () => void }
  | { readonly _tag: "Released" }
  | { readonly _tag: "Lost" }

export type Ordering = "key" | "partition" | "unordered"

export class Assignment {
  readonly grant: Grant
  readonly watermark = new Watermark<Delivery>()
  phase: Phase = { _tag: "Owned" }
  /** Position of the last successful commit; at first, where the delivery began. */
  committed: bigint | undefined
  /** Delivered records that are not finished. */
  buffered = 0
  /** Whether the feed was asked to pause this partition. */
  paused = false
  private highestStarted = -1n
  private readonly keyed: ReadonlyArray<Map<string, Lane<Task>>>

  constructor(grant: Grant, handlers: number) {
    this.grant = grant
    this.keyed = Array.from({ length: handlers }, () => new Map())
  }

  get mayCommit(): boolean {
    return this.phase._tag === "Owned" || this.phase._tag === "Draining"
  }

  /** Takes in a record; returns its delivery, still without tasks. */
  deliver(record: ConsumerRecord): Delivery {
    const delivery = new Delivery(this, record)
    this.committed ??= record.offset
    this.watermark.deliver(delivery)
    this.buffered++
    return delivery
  }

  /** Makes the task of a delivery for one handler, in the lane that the ordering asks for. */
  task(delivery: Delivery, handler: number, ordering: Ordering): Task {
    const key = delivery.record.key
    const task = new Task(
      delivery,
      ordering === "partition"
        ? this.lane(handler, "")
        : ordering === "unordered" || key === null
        ? new Lane()
        : this.lane(handler, asText(key))
    )
    delivery.pending++
    delivery.tasks = task
    return task
  }

  private lane(handler: number, key: string): Lane<Task> {
    const lanes = this.keyed[handler]!
    const known = lanes.get(key)
    if (known !== undefined) return known
    const lane = new Lane<Task>(lanes, key)
    lanes.set(key, lane)
    return lane
  }

  start(task: Task): void {
    if (task.delivery.offset > this.highestStarted) this.highestStarted = task.delivery.offset
  }

  /** A delivery without any task is finished at once. */
  finishDelivery(delivery: Delivery): void {
    if (delivery.done) return
    this.watermark.finish(delivery)
    this.buffered--
  }

  /** Marks a task; the delivery is finished with its last one. */
  finish(task: Task): void {
    if (task.finished) return
    task.finished = true
    if (--task.delivery.pending === 0) this.finishDelivery(task.delivery)
    if (!task.dropped) this.close(1)
  }

  /** Hands a task back: it stays unfinished, and a drain no longer waits for it. */
  handBack(task: Task): void {
    if (task.dropped || task.finished) return
    task.dropped = true
    this.close(1)
  }

  private close(tasks: number): void {
    if (this.phase._tag !== "Draining") return
    this.phase.open -= tasks
    if (this.phase.open === 0) this.phase.drained()
  }

  /**
   * Begins to drain. `drained` is called once, when nothing is left to wait
   * for; at once, if nothing is.
   */
  drain(drained: () => void): void {
    if (this.phase._tag !== "Owned") return drained()
    let open = 0
    for (const delivery of this.watermark.unfinished()) {
      for (let task = delivery.tasks; task !== undefined; task = task.sibling) {
        if (task.finished) continue
        if (delivery.offset > this.highestStarted || task.lane.state === "Waiting") task.dropped = true
        else open++
      }
    }
    this.phase = { _tag: "Draining", open, drained }
    if (open === 0) drained()
  }

  /** Ends the assignment after a drain. What is unfinished is dropped. */
  release(): void {
    this.end({ _tag: "Released" })
  }

  /** Ends the assignment at once. */
  lose(): void {
    this.end({ _tag: "Lost" })
  }

  private end(phase: Phase): void {
    this.phase = phase
    for (const delivery of this.watermark.unfinished()) {
      for (let task = delivery.tasks; task !== undefined; task = task.sibling) if (!task.finished) task.dropped = true
    }
  }
}

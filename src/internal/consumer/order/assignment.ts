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
import type { Assignment as Grant, ConsumerRecord } from "../../../Broker.ts"
import type { PauseReason } from "../../pauseReason.ts"
import type { Returned } from "../../wire/deadLetter.ts"
import type { Failures } from "../failure/failures.ts"
import type { Waits } from "../status/waits.ts"
import type { Held, Room } from "./held.ts"
import { KeyedLanes, type Lane, type LaneTask, type Ordering } from "./lanes.ts"
import { type Entry, Watermark } from "./watermark.ts"

/** One record on its way through one handler. */
export class Task implements LaneTask<Task> {
  readonly delivery: Delivery
  readonly lane: Lane<Task>
  readonly bytes: number
  dropped = false
  finished = false
  /** Applied, and only the marker of its letter is left to write. */
  marking = false
  behind: Task | undefined = undefined
  /** The task of the same delivery for the next handler. */
  readonly sibling: Task | undefined
  /** What earlier attempts left; `undefined` for a first attempt. */
  failures: Failures | undefined = undefined
  dueMillis: number | undefined = undefined
  /** What it waited for the last time that it did not finish. */
  waits: Waits | undefined = undefined
  constructor(delivery: Delivery, lane: Lane<Task>) {
    this.delivery = delivery
    this.lane = lane
    this.sibling = delivery.tasks
    this.bytes = delivery.record.value === null ? 0 : delivery.record.value.length
  }
}

/** One record of a partition, on its way through every handler of its topic. */
export class Delivery implements Entry {
  readonly assignment: Assignment
  readonly record: ConsumerRecord
  /** Set if this is a dead letter that comes back: then `record` is what it was first. */
  readonly letter: Returned | undefined
  /** The first of its tasks, which are chained by `sibling`. */
  tasks: Task | undefined = undefined
  done = false
  pending = 0
  /** What it takes of the buffer: key and value. */
  readonly bytes: number
  constructor(assignment: Assignment, record: ConsumerRecord, letter: Returned | undefined) {
    this.assignment = assignment
    this.record = record
    this.letter = letter
    this.bytes = (record.key === null ? 0 : record.key.length) + (record.value === null ? 0 : record.value.length)
  }
  /** Where it was delivered. */
  get offset(): bigint {
    return this.letter === undefined ? this.record.offset : this.letter.raw.offset
  }
  /** The partition that the record lay in first. */
  get partition(): number {
    return this.letter === undefined ? this.assignment.grant.partition : this.letter.partition
  }
}

/** `open` counts the tasks that a drain still waits for. */
export type Phase =
  | { readonly _tag: "Owned" }
  | { readonly _tag: "Draining"; open: number; readonly drained: () => void }
  | { readonly _tag: "Released" }
  | { readonly _tag: "Lost" }

export class Assignment {
  readonly grant: Grant
  readonly watermark = new Watermark<Delivery>()
  phase: Phase = { _tag: "Owned" }
  /** Position of the last successful commit; at first, where the delivery began. */
  committed: bigint | undefined
  /** Delivered records that are not finished. */
  buffered = 0
  /** Bytes of their keys and values. */
  bufferedBytes = 0
  /** Why the feed was asked to pause this partition; `undefined`: it flows. */
  paused: PauseReason | undefined = undefined
  /** The lane that holds more than its part of the buffer. */
  hotLane: Lane<Task> | undefined = undefined
  /** `undefined`: it flows. */
  room: Room | undefined = undefined
  private highestStarted = -1n
  private readonly total: Held
  private readonly lanes: ReadonlyArray<KeyedLanes<Task>>

  /** `total` is what all assignments of the membership hold. */
  constructor(grant: Grant, handlers: number, total: Held = { records: 0, bytes: 0 }) {
    this.grant = grant
    this.total = total
    // Dead letters have a lane each, whichever handler they are for.
    this.lanes = Array.from({ length: Math.max(1, handlers) }, () => new KeyedLanes())
  }

  get mayCommit(): boolean {
    return this.phase._tag === "Owned" || this.phase._tag === "Draining"
  }

  /** Takes in a record; returns its delivery, still without tasks. */
  deliver(record: ConsumerRecord): Delivery {
    return this.take(new Delivery(this, record, undefined))
  }

  /** Takes in a dead letter that comes back. */
  deliverLetter(letter: Returned): Delivery {
    return this.take(new Delivery(this, letter.record, letter))
  }

  private take(delivery: Delivery): Delivery {
    this.committed ??= delivery.offset
    this.watermark.deliver(delivery)
    this.hold(1, delivery.bytes)
    return delivery
  }

  /** Makes the task of a delivery for one handler, in the lane that the ordering asks for. */
  task(delivery: Delivery, handler: number, ordering: Ordering): Task {
    const task = new Task(delivery, this.lanes[handler]!.of(delivery.record.key, ordering))
    delivery.pending++
    delivery.tasks = task
    return task
  }

  hasStarted(task: Task): boolean {
    return task.delivery.offset <= this.highestStarted
  }

  start(task: Task): void {
    if (task.delivery.offset > this.highestStarted) this.highestStarted = task.delivery.offset
  }

  /** A delivery without any task is finished at once. */
  finishDelivery(delivery: Delivery): void {
    if (delivery.done) return
    this.watermark.finish(delivery)
    // What an assignment held was freed when it ended.
    if (this.mayCommit) this.hold(-1, -delivery.bytes)
  }

  private hold(records: number, bytes: number): void {
    this.buffered += records
    this.bufferedBytes += bytes
    this.total.records += records
    this.total.bytes += bytes
  }

  /** Marks a task; the delivery is finished with its last one. */
  finish(task: Task): void {
    if (task.finished) return
    task.finished = true
    this.settle(task)
  }

  /** Marks the task of a letter as applied; it is finished with `marked`, once that is written down. */
  applied(task: Task): void {
    if (task.finished) return
    task.finished = true
    task.marking = true
  }

  marked(task: Task): void {
    if (!task.marking) return
    task.marking = false
    this.settle(task)
  }

  private settle(task: Task): void {
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
        if (task.finished && !task.marking) continue
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
    if (this.mayCommit) this.hold(-this.buffered, -this.bufferedBytes)
    this.phase = phase
    for (const delivery of this.watermark.unfinished()) {
      for (let task = delivery.tasks; task !== undefined; task = task.sibling) if (!task.finished) task.dropped = true
    }
  }
}

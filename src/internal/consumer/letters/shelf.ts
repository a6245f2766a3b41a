/**
 * The dead letters of one assignment that come back: which are under way,
 * which wait for their time, and which should be filed anew.
 *
 * A letter that waits holds the watermark of its partition. So those that wait
 * are written again behind the others, and their old copies finished, when too
 * many of them wait, or too much that is done lies above them and would come
 * again after a crash.
 *
 * Pure and mutable, changed in synchronous steps only.
 *
 * @internal
 */
import type { Kind } from "../../wire/deadLetter.ts"
import type { Reader } from "../handler.ts"
import type { Assignment, Task } from "../order/assignment.ts"

/** Letters that may wait in one partition; less than what makes the engine pause it. */
export const maxWaiting = 256
/** Applied letters that may lie above one that waits. */
const maxAbove = 100
/** Offsets that may lie between one that waits and the last that was delivered. */
const maxSpan = 5_000

export interface Waiting {
  readonly due: number
  readonly reader: Reader
}

const idOf = (task: Task): string => task.delivery.letter!.head.id

export class Shelf {
  readonly assignment: Assignment
  /** Letters that have not been filed anew yet, by when they are due. */
  readonly waiting = new Map<Task, Waiting>()
  /** The latest task of each letter; finished ones are swept out now and then. */
  private readonly open = new Map<string, Task>()
  /** Letters whose new copy has not come back, and what became of them meanwhile. */
  private readonly filed = new Map<string, Exclude<Kind, "letter"> | undefined>()
  /** The highest letter that was applied, and how many since letters were last filed. */
  private highestApplied = -1n
  private applied = 0
  /** Whether letters are being filed, and since when they have been. */
  filing = false
  filedMillis = -Infinity

  constructor(assignment: Assignment) {
    this.assignment = assignment
  }

  /** Notes what a marker says. Whatever of the letter has not started is finished. */
  close(id: string, kind: Exclude<Kind, "letter">): void {
    if (this.filed.has(id)) this.filed.set(id, kind)
    if (kind !== "replay") this.supersede(id, 0)
  }

  /** Takes note of a letter that came; says what became of it while this copy was on its way. */
  arrived(id: string): Exclude<Kind, "letter"> | undefined {
    const closed = this.filed.get(id)
    this.filed.delete(id)
    return closed
  }

  /**
   * Finishes what is open of a letter, and says whether a newer copy of it may
   * be taken: not while an older one of the same round runs.
   */
  supersede(id: string, round: number): boolean {
    const task = this.open.get(id)
    if (task === undefined || task.finished || task.dropped) return true
    // The letter of the next round may come before the attempt that wrote it has ended.
    if (task.lane.state === "Busy") return round > task.delivery.letter!.head.round
    this.forget(task)
    return true
  }

  add(task: Task, waiting: Waiting | undefined): void {
    if (this.open.size > 2 * this.assignment.buffered + 64) this.sweep()
    this.open.set(idOf(task), task)
    if (waiting !== undefined) this.waiting.set(task, waiting)
  }

  private sweep(): void {
    for (const [id, task] of this.open) if (task.finished || task.dropped) this.open.delete(id)
  }

  noteApplied(task: Task): void {
    this.applied++
    const { offset } = task.delivery
    if (offset > this.highestApplied) this.highestApplied = offset
  }

  private below(offset: bigint): Array<Task> {
    return Array.from(this.waiting.keys()).filter((task) => task.delivery.offset < offset)
  }

  /** Letters to file anew now. */
  crowding(): ReadonlyArray<Task> {
    if (this.waiting.size === 0) return []
    if (this.assignment.watermark.span > maxSpan) return Array.from(this.waiting.keys())
    if (this.waiting.size > maxWaiting) {
      return Array.from(this.waiting)
        .sort(([, a], [, b]) => b.due - a.due)
        .slice(0, this.waiting.size - maxWaiting / 2)
        .map(([task]) => task)
    }
    return this.applied >= maxAbove ? this.below(this.highestApplied) : []
  }

  /** Letters to file anew before the assignment ends, so that what is done above them does not come again. */
  holes(): ReadonlyArray<Task> {
    let highest = this.highestApplied
    const resting: Array<Task> = []
    for (const task of this.open.values()) {
      if (task.finished || task.dropped) continue
      if (task.lane.state === "Waiting") resting.push(task)
      else if (task.delivery.offset > highest) highest = task.delivery.offset
    }
    return resting.filter((task) => task.delivery.offset < highest)
  }

  /** Letters are on their way to a new place, and do not come due meanwhile. */
  file(tasks: ReadonlyArray<Task>): ReadonlyMap<Task, Waiting | undefined> {
    const taken = new Map<Task, Waiting | undefined>()
    for (const task of tasks) {
      taken.set(task, this.waiting.get(task))
      this.waiting.delete(task)
      this.filed.set(idOf(task), undefined)
    }
    this.applied = 0
    return taken
  }

  /** A letter has its new place: its old copy is done with, unless it runs after all. */
  moved(task: Task): void {
    if (!task.finished && !task.dropped && task.lane.state === "Waiting") this.forget(task)
  }

  /** A letter could not be filed: it waits where it is. */
  stays(task: Task, waiting: Waiting | undefined): void {
    this.filed.delete(idOf(task))
    if (waiting !== undefined && !task.finished && !task.dropped) this.waiting.set(task, waiting)
  }

  private forget(task: Task): void {
    this.waiting.delete(task)
    this.assignment.finish(task)
    // Its lane passes over it.
    task.dropped = true
  }
}

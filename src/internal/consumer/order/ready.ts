/**
 * Turns: which of the ready lanes gives tasks away next.
 *
 * Lanes stand in a queue in the order in which they became ready, so a hot key
 * takes its turn like others. But of single tasks every fourth turn goes to the
 * longest lane: else a hot key would have one event done while each other key
 * has one, and the rest of it would be left for the end, one after another,
 * with all other slots idle. A batch takes all that a lane holds, and needs no
 * such turn.
 *
 * Pure and mutable, changed in synchronous steps only.
 *
 * @internal
 */
import type { Lane, LaneTask } from "./lanes.ts"

export interface TakeLimits {
  readonly maxSize: number
  readonly maxBytes: number
}

const compactAt = 1_024
/** One turn in so many goes to the longest lane. */
const turnsPerLongest = 4

/** What ended a take: nothing more was ready, or a limit. */
export type TakeEnd = "empty" | "size" | "bytes"

/** The lanes of one handler that have something to run. */
export class Ready<T extends LaneTask<T>> {
  /** Ready lanes. */
  size = 0
  /** Tasks in ready lanes, dropped ones included. */
  tasks = 0
  /** What ended the last take. */
  end: TakeEnd = "empty"
  /** A lane that was taken out of turn leaves a gap. */
  private queue: Array<Lane<T> | undefined> = []
  private head = 0
  /** The place of the queue's first entry. */
  private base = 0
  /** The longest of the ready lanes that were added, or grew, since it was taken last. */
  private longest: Lane<T> | undefined
  private turns = 0

  /** Adds a task behind the others of its lane. */
  offer(task: T): void {
    const lane = task.lane
    lane.append(task)
    if (lane.state === "Idle") this.push(lane)
    else if (lane.state === "Ready") {
      this.tasks++
      this.compare(lane)
    }
  }

  /**
   * Takes tasks of ready lanes, in lane order, until a limit is reached, and
   * makes their lanes Busy; `end` says which. Empty when nothing is ready.
   */
  take(limits: TakeLimits): Array<T> {
    const taken: Array<T> = []
    let bytes = 0
    this.end = "empty"
    for (let lane = this.first(); lane !== undefined; lane = this.first()) {
      let own = 0
      for (let task = lane.first; task !== undefined; task = lane.first) {
        if (task.dropped) {
          lane.shift()
          this.tasks--
          continue
        }
        if (own > 0 && task.dueMillis !== undefined) break
        if (taken.length === limits.maxSize) this.end = "size"
        else if (taken.length > 0 && bytes + task.bytes > limits.maxBytes) this.end = "bytes"
        if (this.end !== "empty") break
        bytes += task.bytes
        own++
        taken.push(lane.shift()!)
        this.tasks--
      }
      if (own === 0 && lane.first !== undefined) break
      this.remove(lane)
      if (own === 0) lane.retire()
      else lane.state = "Busy"
      if (this.end !== "empty") break
    }
    if (taken.length === limits.maxSize) this.end = "size"
    return taken
  }

  /** Takes the first task of the lane whose turn it is, and makes the lane Busy. */
  takeOne(): T | undefined {
    for (let lane = this.next(); lane !== undefined; lane = this.next()) {
      this.remove(lane)
      let task = lane.shift()
      while (task !== undefined && task.dropped) task = lane.shift()
      if (task !== undefined) {
        lane.state = "Busy"
        return task
      }
      lane.retire()
    }
    return undefined
  }

  /** Ends the Busy state of a lane: it is ready again if tasks wait in it. */
  settle(lane: Lane<T>): void {
    if (lane.first === undefined) lane.retire()
    else this.push(lane)
  }

  /** Puts tasks back in front of their lane, which backs off until `wake`. */
  wait(lane: Lane<T>, tasks: ReadonlyArray<T>): void {
    lane.prepend(tasks)
    lane.state = "Waiting"
  }

  /** Ends a lane's back-off. */
  wake(lane: Lane<T>): void {
    if (lane.state === "Waiting") this.settle(lane)
  }

  private push(lane: Lane<T>): void {
    lane.state = "Ready"
    lane.place = this.base + this.queue.length
    this.size++
    this.tasks += lane.length
    this.queue.push(lane)
    this.compare(lane)
  }

  private compare(lane: Lane<T>): void {
    if (this.longest === undefined || lane.length > this.longest.length) this.longest = lane
  }

  /** The lane whose turn it is. */
  private next(): Lane<T> | undefined {
    if (++this.turns >= turnsPerLongest && this.longest !== undefined) {
      this.turns = 0
      return this.longest
    }
    return this.first()
  }

  /** The lane that is ready for longest. */
  private first(): Lane<T> | undefined {
    if (this.size === 0) return undefined
    while (this.queue[this.head] === undefined) this.head++
    return this.queue[this.head]
  }

  /** Takes a ready lane out of the queue. */
  private remove(lane: Lane<T>): void {
    this.tasks -= lane.length
    if (lane === this.longest) this.longest = undefined
    this.queue[lane.place - this.base] = undefined
    if (--this.size === 0) {
      this.queue = []
      this.head = 0
    } else if (this.head >= compactAt && this.head * 2 >= this.queue.length) {
      this.queue = this.queue.slice(this.head)
      this.base += this.head
      this.head = 0
    }
  }
}

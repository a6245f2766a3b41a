/**
 * Order: which tasks may run now, and which wait for an earlier one.
 *
 * A lane holds the tasks that must run one after another: those of one key, of
 * one partition, or a single task. A lane is in exactly one state:
 *
 *     Idle ──offer──▶ Ready ──take──▶ Busy ──settle──▶ Ready | Idle
 *                       ▲              │
 *                       └────wake──── Waiting (its first task backs off)
 *
 * Only a Ready lane gives tasks away, and it is Busy until they are settled:
 * so two workers never hold the same key. `Ready` is a queue of lanes in the
 * order in which they became ready, so a hot key takes its turn like others.
 *
 * Pure and mutable, changed in synchronous steps only.
 *
 * @internal
 */

/** What lanes need of a task. `dropped` tasks were handed back and are passed over. */
export interface LaneTask<T extends LaneTask<T>> {
  readonly bytes: number
  readonly lane: Lane<T>
  dropped: boolean
  /** The task behind this one in its lane. */
  behind: T | undefined
}

export type LaneState = "Idle" | "Ready" | "Busy" | "Waiting"

export class Lane<T extends LaneTask<T>> {
  state: LaneState = "Idle"
  first: T | undefined
  private last: T | undefined
  private readonly home: Map<string, Lane<T>> | undefined
  private readonly key: string

  /**
   * `home` is where the lane is found by its key. An idle lane leaves it: memory
   * follows the buffer, not the keys ever seen.
   */
  constructor(home?: Map<string, Lane<T>>, key = "") {
    this.home = home
    this.key = key
  }

  retire(): void {
    this.state = "Idle"
    this.home?.delete(this.key)
  }

  append(task: T): void {
    task.behind = undefined
    if (this.last === undefined) this.first = task
    else this.last.behind = task
    this.last = task
  }

  prepend(tasks: ReadonlyArray<T>): void {
    for (let i = tasks.length - 1; i >= 0; i--) {
      const task = tasks[i]!
      task.behind = this.first
      this.first = task
      if (this.last === undefined) this.last = task
    }
  }

  shift(): T | undefined {
    const task = this.first
    if (task !== undefined) {
      this.first = task.behind
      if (this.first === undefined) this.last = undefined
      task.behind = undefined
    }
    return task
  }
}

export interface TakeLimits {
  readonly maxSize: number
  readonly maxBytes: number
}

const compactAt = 1_024

/** The lanes of one handler that have something to run. */
export class Ready<T extends LaneTask<T>> {
  private queue: Array<Lane<T>> = []
  private head = 0

  get size(): number {
    return this.queue.length - this.head
  }

  /** Adds a task behind the others of its lane. */
  offer(task: T): void {
    const lane = task.lane
    lane.append(task)
    if (lane.state === "Idle") this.push(lane)
  }

  /**
   * Takes tasks of ready lanes, in lane order, until a limit is reached, and
   * makes their lanes Busy. Empty when nothing is ready.
   */
  take(limits: TakeLimits): Array<T> {
    const taken: Array<T> = []
    let bytes = 0
    while (this.size > 0 && taken.length < limits.maxSize) {
      const lane = this.queue[this.head]!
      let own = 0
      while (lane.first !== undefined && taken.length < limits.maxSize) {
        if (lane.first.dropped) {
          lane.shift()
          continue
        }
        if (taken.length > 0 && bytes + lane.first.bytes > limits.maxBytes) break
        bytes += lane.first.bytes
        own++
        taken.push(lane.shift()!)
      }
      if (own === 0 && lane.first !== undefined) break
      this.shift()
      if (own === 0) {
        lane.retire()
        continue
      }
      lane.state = "Busy"
      if (lane.first !== undefined) break
    }
    return taken
  }

  /** Takes the first task of the next ready lane, and makes the lane Busy. */
  takeOne(): T | undefined {
    while (this.size > 0) {
      const lane = this.queue[this.head]!
      this.shift()
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
    this.queue.push(lane)
  }

  private shift(): void {
    this.head++
    if (this.head === this.queue.length) {
      this.queue = []
      this.head = 0
    } else if (this.head >= compactAt && this.head * 2 >= this.queue.length) {
      this.queue = this.queue.slice(this.head)
      this.head = 0
    }
  }
}

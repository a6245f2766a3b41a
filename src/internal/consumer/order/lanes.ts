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
 * A task that backs off waits for its time also behind others: a batch ends
 * its lane's part before it.
 *
 * Only a Ready lane gives tasks away, and it is Busy until they are settled:
 * so two workers never hold the same key. Whose turn it is says `Ready`.
 *
 * Pure and mutable, changed in synchronous steps only.
 *
 * @internal
 */
import { asText } from "../../wire/envelope.ts"

/** What lanes need of a task. `dropped` tasks were handed back and are passed over. */
export interface LaneTask<T extends LaneTask<T>> {
  readonly bytes: number
  readonly lane: Lane<T>
  dropped: boolean
  /** Until when it backs off; `undefined`: it does not. */
  dueMillis: number | undefined
  /** The task behind this one in its lane. */
  behind: T | undefined
}

export type LaneState = "Idle" | "Ready" | "Busy" | "Waiting"

export class Lane<T extends LaneTask<T>> {
  state: LaneState = "Idle"
  first: T | undefined
  /** Tasks that wait in it, dropped ones included. */
  length = 0
  /** Where it stands in the queue of ready lanes, while it is Ready. `Ready` knows from where it counts. */
  place = 0
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
    this.length++
  }

  prepend(tasks: ReadonlyArray<T>): void {
    for (let i = tasks.length - 1; i >= 0; i--) {
      const task = tasks[i]!
      task.behind = this.first
      this.first = task
      if (this.last === undefined) this.last = task
    }
    this.length += tasks.length
  }

  shift(): T | undefined {
    const task = this.first
    if (task !== undefined) {
      this.first = task.behind
      if (this.first === undefined) this.last = undefined
      task.behind = undefined
      this.length--
    }
    return task
  }
}

export type Ordering = "key" | "partition" | "unordered"

/** The lanes of one handler in one partition, by key. */
export class KeyedLanes<T extends LaneTask<T>> {
  private readonly lanes = new Map<string, Lane<T>>()

  /** The lane that the ordering asks for. */
  of(key: Uint8Array | null, ordering: Ordering): Lane<T> {
    if (ordering === "partition") return this.named("")
    return ordering === "unordered" || key === null ? new Lane() : this.named(asText(key))
  }

  private named(key: string): Lane<T> {
    const known = this.lanes.get(key)
    if (known !== undefined) return known
    const lane = new Lane<T>(this.lanes, key)
    this.lanes.set(key, lane)
    return lane
  }
}

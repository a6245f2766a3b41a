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
import { hash } from "./hash.ts"

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
  /** Its key's hash. */
  readonly hash: number
  /** The next one that is found in the same place. */
  next: Lane<T> | undefined = undefined
  private last: T | undefined
  private readonly home: KeyedLanes<T> | undefined

  /**
   * `home` is where the lane is found by its key. An idle lane leaves it: memory
   * follows the buffer, not the keys ever seen.
   */
  constructor(home?: KeyedLanes<T>, hash = 0) {
    this.home = home
    this.hash = hash
  }

  retire(): void {
    this.state = "Idle"
    this.home?.forget(this)
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

const leastPlaces = 64

/**
 * The lanes of one handler in one partition, by the hash of their key: a table
 * of chains, since every record looks a lane up, adds it and removes it, and a
 * `Map` of texts costs five times as much. Keys whose hashes are equal (two of
 * 1,000 once in 8,000 times) share a lane: they wait for each other, and
 * nothing else.
 */
export class KeyedLanes<T extends LaneTask<T>> {
  private size = 0
  private places: Array<Lane<T> | undefined> = []

  /** The lane that the ordering asks for. */
  of(key: Uint8Array | null, ordering: Ordering): Lane<T> {
    if (ordering === "partition") return this.at(0)
    return ordering === "unordered" || key === null ? new Lane() : this.at(hash(key))
  }

  private at(hash: number): Lane<T> {
    if (this.size >= this.places.length) this.grow()
    const place = hash & (this.places.length - 1)
    const first = this.places[place]
    for (let lane = first; lane !== undefined; lane = lane.next) if (lane.hash === hash) return lane
    const lane = new Lane(this, hash)
    lane.next = first
    this.places[place] = lane
    this.size++
    return lane
  }

  /** Removes a lane, if it is there. */
  forget(lane: Lane<T>): void {
    const place = lane.hash & (this.places.length - 1)
    let before: Lane<T> | undefined
    for (let other = this.places[place]; other !== undefined; other = other.next) {
      if (other !== lane) {
        before = other
        continue
      }
      if (before === undefined) this.places[place] = lane.next
      else before.next = lane.next
      lane.next = undefined
      this.size--
      return
    }
  }

  /** Doubles the places, which are a power of two. */
  private grow(): void {
    const { places } = this
    this.places = new Array(Math.max(leastPlaces, places.length * 2)).fill(undefined)
    for (let lane of places) {
      while (lane !== undefined) {
        const { next } = lane
        const place: number = lane.hash & (this.places.length - 1)
        lane.next = this.places[place]
        this.places[place] = lane
        lane = next
      }
    }
  }
}

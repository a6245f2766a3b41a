/**
 * One timer for all that have a deadline: it sleeps until the earliest may be
 * due. A timer for each would cost a fiber or two per message.
 *
 * @internal
 */

export interface Bounded {
  /** In milliseconds. */
  readonly deadline: number
}

export class Deadlines<A extends Bounded> {
  private readonly open = new Set<A>()
  /** When timers ring. One that is due by a deadline serves it: it finds out who is next. */
  private readonly timers = new Set<number>()
  private readonly options: {
    readonly now: () => number
    /** Calls back after so many milliseconds. */
    readonly after: (millis: number, then: () => void) => void
    /** Told of what is due; it must delete it. */
    readonly onDue: (bounded: A) => void
  }

  constructor(options: Deadlines<A>["options"]) {
    this.options = options
  }

  get all(): Iterable<A> {
    return this.open
  }

  add(bounded: A): void {
    this.open.add(bounded)
    this.wakeAt(bounded.deadline)
  }

  delete(bounded: A): void {
    this.open.delete(bounded)
  }

  private wakeAt(deadline: number): void {
    if (deadline === Infinity) return
    for (const at of this.timers) if (at <= deadline) return
    const { after, now } = this.options
    this.timers.add(deadline)
    after(Math.max(0, deadline - now()), () => {
      this.timers.delete(deadline)
      this.wake()
    })
  }

  private wake(): void {
    const now = this.options.now()
    let next = Infinity
    for (const bounded of this.open) {
      if (bounded.deadline <= now) this.options.onDue(bounded)
      else next = Math.min(next, bounded.deadline)
    }
    this.wakeAt(next)
  }
}

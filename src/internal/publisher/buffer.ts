/**
 * Bounds what waits to be sent or is on its way: who does not fit waits, and
 * all get in in the order in which they came, so that no small call overtakes
 * a large one. One that is larger than the whole buffer gets in when nothing
 * else is there. Synchronous: who gets in goes on in the same step.
 *
 * @internal
 */

/** Somebody who wants in, with what they bring. */
export interface Guest {
  readonly bytes: number
  /** Most bytes in the buffer with theirs; `Infinity`: they never wait. */
  readonly most: number
  readonly enter: () => void
}

export class Buffer {
  private held = 0
  /** In the order in which they came. Many may give up at once, when a broker stays away. */
  private readonly line = new Set<Guest>()

  private fits({ bytes, most }: Guest): boolean {
    return this.held === 0 || this.held + bytes <= most
  }

  private admit(guest: Guest): void {
    this.held += guest.bytes
    guest.enter()
  }

  /** Lets somebody in, at once or as soon as there is room. */
  come(guest: Guest): void {
    if (guest.most === Infinity || this.line.size === 0 && this.fits(guest)) this.admit(guest)
    else this.line.add(guest)
  }

  /** Says that somebody who was in has gone. */
  leave({ bytes }: Guest): void {
    this.held -= bytes
    this.advance()
  }

  /** Says that somebody does not want in any more. */
  giveUp(guest: Guest): void {
    this.line.delete(guest)
    this.advance()
  }

  private advance(): void {
    for (const guest of this.line) {
      if (!this.fits(guest)) return
      this.line.delete(guest)
      this.admit(guest)
    }
  }
}

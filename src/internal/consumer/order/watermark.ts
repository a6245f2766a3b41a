/**
 * The offset below which every delivered record of one assignment is finished.
 *
 * Delivered offsets have gaps (compaction, control records), and records
 * finish out of order. The tracker is a queue of what was delivered: finishing
 * marks an entry, and the head moves over finished entries. So the watermark
 * never passes an unfinished record, whatever lies in the gaps, and the queue
 * holds no more than the span between watermark and highest delivered offset.
 * Of what has finished above an unfinished record it keeps the offsets: the
 * records themselves, which may be large, are let go a mebibyte at a time.
 *
 * Pure and mutable; the group's signals deliver, the workers finish, both in
 * synchronous steps.
 *
 * @internal
 */

/** What the tracker needs of a delivered record. `done` is set through `finish` alone. */
export interface Entry {
  readonly offset: bigint
  /** What it takes of memory. */
  readonly bytes: number
  done: boolean
}

/** What is kept of a record that has finished above the watermark. */
class Finished {
  readonly done = true
  readonly offset: bigint
  constructor(offset: bigint) {
    this.offset = offset
  }
}

const compactAt = 1_024
/** Bytes of finished records that may be kept. */
const maxKept = 1024 * 1024

export class Watermark<E extends Entry> {
  /** What lies before `head` is gone; the first one from there on is not finished. */
  private entries: Array<E | Finished | undefined> = []
  private head = 0
  private kept = 0
  private last: bigint | undefined
  private passed: bigint | undefined

  /** Appends a record. Offsets grow from call to call. */
  deliver(entry: E): void {
    this.entries.push(entry)
    this.last = entry.offset
  }

  /** Says that no record below `nextOffset` is still to come. */
  pass(nextOffset: bigint): void {
    if (this.passed === undefined || nextOffset > this.passed) this.passed = nextOffset
  }

  /** The lowest offset that may still come. Asked for seldom: a sum of big integers per record would cost more. */
  private get next(): bigint | undefined {
    const { last, passed } = this
    return last === undefined || (passed !== undefined && passed > last) ? passed : last + 1n
  }

  /** Marks a record. Finishing twice changes nothing. */
  finish(entry: E): void {
    if (entry.done) return
    entry.done = true
    if (entry === this.entries[this.head]) return this.advance()
    this.kept += entry.bytes
    if (this.kept >= maxKept) this.letGo()
  }

  /** Moves the head over the entry that has just finished, and over the finished ones behind it. */
  private advance(): void {
    this.entries[this.head++] = undefined
    for (let next = this.entries[this.head]; next?.done === true; next = this.entries[this.head]) {
      if (!(next instanceof Finished)) this.kept -= next.bytes
      this.entries[this.head++] = undefined
    }
    if (this.head === this.entries.length) {
      this.entries = []
      this.head = 0
    } else if (this.head >= compactAt && this.head * 2 >= this.entries.length) {
      this.entries = this.entries.slice(this.head)
      this.head = 0
    }
  }

  private letGo(): void {
    this.kept = 0
    for (let i = this.head; i < this.entries.length; i++) {
      const entry = this.entries[i]!
      if (entry.done && !(entry instanceof Finished)) this.entries[i] = new Finished(entry.offset)
    }
  }

  /** The position to commit: the first offset that is not finished. `undefined` before anything came. */
  get position(): bigint | undefined {
    return this.head < this.entries.length ? this.entries[this.head]!.offset : this.next
  }

  /** The first record that is not finished. */
  get first(): E | undefined {
    return this.entries[this.head] as E | undefined
  }

  /** The highest offset that was delivered, or is known not to come. `undefined` before anything came. */
  get highest(): bigint | undefined {
    return this.next === undefined ? undefined : this.next - 1n
  }

  /** Offsets between the watermark and the highest delivered record. */
  get span(): number {
    return this.head < this.entries.length ? Number(this.next! - this.entries[this.head]!.offset) : 0
  }

  /** Records that are not finished, in offset order. */
  unfinished(): Array<E> {
    return this.entries.slice(this.head).filter((entry): entry is E => !entry!.done)
  }
}

/**
 * What a lane holds, and what its next request takes. Pure and mutable,
 * changed in synchronous steps only.
 *
 * An entry is what one call gave to one lane, in its order. Its messages are
 * settled one by one; `next` says which of them have left, `blocked` which
 * keys may not go on, because an earlier message of that key was refused
 * (`undefined`: none).
 *
 * @internal
 */
import type { Exit } from "effect/Exit"
import type { BrokerError, ProducerRecord } from "../../Broker.ts"

/** A message whose partition follows from its key, unless it names one. */
export interface Message extends ProducerRecord {
  readonly topic: string
  /** Counted round if the topic has fewer. */
  readonly partition?: number
  /** Of key, value and headers. */
  readonly bytes: number
}

/** Where a message lies in the log. `offset` is `-1n` if a retry was only told that the broker has it already. */
export interface Position {
  readonly partition: number
  readonly offset: bigint
}

export type Outcome = Exit<Position, BrokerError>

export interface Entry {
  readonly messages: ReadonlyArray<Message>
  /** On the monotonic clock, in milliseconds. */
  readonly deadline: number
  /** The first message that has not left in a request. */
  next: number
  /** Nobody waits for the outcome any more: what has not left does not leave. */
  cancelled: boolean
  /** By key, why what follows of it may not go. */
  blocked: Map<string, Outcome> | undefined
  readonly settle: (index: number, outcome: Outcome) => void
}

export interface Lane {
  readonly topic: string
  readonly partition: number
  entries: Array<Entry>
  running: boolean
}

/** One message of a request. */
export interface Piece {
  readonly entry: Entry
  readonly index: number
}

export interface Request {
  readonly pieces: ReadonlyArray<Piece>
  /** The latest of the calls in it: an impatient one ends by itself. */
  readonly deadline: number
}

/**
 * Largest request. Kafka's default `max.message.bytes` (1,048,588) bounds the
 * batch of a partition, not the single message.
 */
const maxBytes = 900_000
/** What a record costs beside its key, value and headers, at most. */
const overhead = 64

export const messageOf = ({ entry, index }: Piece): Message => entry.messages[index]!

/** Keys as text, for `blocked`; a key of bytes is told apart by them. */
const keyOf = ({ key }: Message): string | undefined =>
  key === null ? undefined : typeof key === "string" ? key : Buffer.from(key).toString("latin1")

/** What keeps a message from going: an earlier one of its key and call that was refused. */
export const blockOf = (piece: Piece): Outcome | undefined => {
  const { blocked } = piece.entry
  if (blocked === undefined) return undefined
  const key = keyOf(messageOf(piece))
  return key === undefined ? undefined : blocked.get(key)
}

/** Settles a refused message; what follows of its key in its call does not overtake it. */
export const refuse = (piece: Piece, outcome: Outcome): void => {
  const key = keyOf(messageOf(piece))
  if (key !== undefined) (piece.entry.blocked ??= new Map()).set(key, outcome)
  piece.entry.settle(piece.index, outcome)
}

/** Settles all that has not left. */
export const abandon = (entry: Entry, outcome: Outcome): void => {
  while (entry.next < entry.messages.length) entry.settle(entry.next++, outcome)
}

/**
 * Forgets entries that have nothing left to send, or whose time is up: a
 * process that was frozen may get here before its timers have told them.
 */
const sweep = (lane: Lane, now: number, late: () => Outcome): void => {
  for (const entry of lane.entries) if (entry.deadline <= now) abandon(entry, late())
  lane.entries = lane.entries.filter((entry) => entry.next < entry.messages.length && !entry.cancelled)
}

/** Takes what the next request of a lane carries, in order. Empty when nothing waits; `late` is told to what has waited too long. */
export const take = (lane: Lane, now: number, late: () => Outcome): Request => {
  sweep(lane, now, late)
  const pieces: Array<Piece> = []
  let bytes = 0
  let deadline = 0
  for (const entry of lane.entries) {
    while (entry.next < entry.messages.length) {
      const piece = { entry, index: entry.next }
      const block = blockOf(piece)
      const size = messageOf(piece).bytes + overhead
      if (block === undefined && pieces.length > 0 && bytes + size > maxBytes) return { pieces, deadline }
      entry.next++
      if (block !== undefined) {
        entry.settle(piece.index, block)
        continue
      }
      bytes += size
      deadline = Math.max(deadline, entry.deadline)
      pieces.push(piece)
    }
  }
  return { pieces, deadline }
}

/**
 * Who may relay which part, and until when. Pure.
 *
 * A lease is a row of the database, on the database's clock. Its owner trusts
 * it until a local deadline: counted on a monotonic clock from *before* the
 * renewal was sent, so that however long the answer took, the owner stops
 * before the database lets somebody else begin. What is not acknowledged by
 * then is given up. An owner that was frozen finds its deadline passed when it
 * wakes, and what waits in its lanes is dropped by the same deadline; at most
 * the requests that had left already, one per partition, still arrive.
 *
 * @internal
 */
import type { Lease } from "../../MessageStore.ts"

/** The leases of one relay. `deadlineNanos` is on the local monotonic clock. */
export interface Held {
  readonly leases: ReadonlyMap<number, Lease>
  readonly deadlineNanos: bigint
}

export const none: Held = { leases: new Map(), deadlineNanos: 0n }

/** The share of the lease that is kept for the request on its way. */
const margin = 0.2

export const held = (leases: ReadonlyArray<Lease>, askedNanos: bigint, ttlMillis: number): Held => ({
  leases: new Map(leases.map((lease) => [lease.part, lease])),
  deadlineNanos: askedNanos + BigInt(Math.floor(ttlMillis * (1 - margin))) * 1_000_000n
})

/** What is held, but for these parts. */
export const without = (held: Held, parts: ReadonlyArray<number>): Held =>
  parts.length === 0
    ? held
    : { ...held, leases: new Map([...held.leases].filter(([part]) => !parts.includes(part))) }

/** Milliseconds for which the leases may still be acted upon; 0 or less: not at all. */
export const leftMillis = (held: Held, nowNanos: bigint): number => Number((held.deadlineNanos - nowNanos) / 1_000_000n)

/** What a renewal does: which parts to give back, and how many to take. */
export interface Plan {
  readonly keep: ReadonlyArray<number>
  readonly surplus: ReadonlyArray<number>
  readonly wanted: number
}

/** Shares the parts evenly among the living. */
export const plan = (mine: ReadonlyArray<number>, living: number, parts: number): Plan => {
  const share = Math.ceil(parts / Math.max(1, living))
  const sorted = [...mine].sort((a, b) => a - b)
  return { keep: sorted.slice(0, share), surplus: sorted.slice(share), wanted: Math.max(0, share - sorted.length) }
}

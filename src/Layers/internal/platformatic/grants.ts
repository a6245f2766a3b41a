/**
 * Owns what a member holds, and the signals about it.
 *
 * Invariant: signals of one partition never overlap, and a signal names only
 * grants that hold when it is sent.
 *
 *   Announced --signal taken--> Live --goes elsewhere--> Draining --> (gone)
 *       any of them --evicted, session over--> Lost --> (gone)
 *
 * The insight: what stays with this member is not touched by a rebalance. So a
 * grant lives for as long as its partition is ours, over any number of
 * generations, and each change names its grants. Everything late is measured
 * against the grant object.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Semaphore from "effect/Semaphore"
import type * as Broker from "../../../Broker.ts"
import type { Owned } from "../kafka/assigner.ts"
import type { Position } from "../kafka/fetching.ts"
import type { Settings } from "../kafka/settings.ts"

/** One partition, from when it comes to when it goes. */
export interface Grant extends Position {
  readonly assignment: Broker.Assignment
  /** What is committed with its positions. */
  readonly label: string
  /** Held while a signal about it is under way. */
  readonly mutex: Semaphore.Semaphore
  /** Opens when it is lost: what runs for it ends. */
  readonly lost: Latch.Latch
  state: "Announced" | "Live" | "Draining" | "Gone"
}

/** What is needed to know of a partition before it is granted. */
export type Start = Pick<Grant, "topic" | "partition" | "next" | "leader" | "label" | "assignment">

export interface Grants {
  readonly settings: Settings
  readonly onSignal: (signal: Broker.Signal) => Effect.Effect<void>
  readonly now: () => number
  /** Held while a signal about several grants is under way. */
  readonly control: Semaphore.Semaphore
  /** By physical topic and partition. */
  readonly held: Map<string, Grant>
  closed: boolean
}

export const make = Effect.fnUntraced(function*(
  settings: Settings,
  onSignal: Grants["onSignal"]
): Effect.fn.Return<Grants> {
  const clock = yield* Clock.Clock
  const control = yield* Semaphore.make(1)
  return { settings, onSignal, now: () => clock.currentTimeMillisUnsafe(), control, held: new Map(), closed: false }
})

export const keyOf = (topic: string, partition: number): string => `${topic}/${partition}`

const assignmentsOf = (grants: ReadonlyArray<Grant>) => grants.map(({ assignment }) => assignment)

/** What is held. A grant that was lost is not, although its signal may be under way still. */
export const current = ({ held }: Grants): Array<Grant> =>
  Array.from(held.values()).filter(({ lost, state }) => state !== "Gone" && !lost.isOpen())

/** What may be fetched. */
export const live = ({ closed, held }: Grants): Array<Grant> =>
  closed ? [] : Array.from(held.values()).filter(({ state }) => state === "Live")

/** What is held, for the group: also what is just going. */
export const owned = (self: Grants): Owned => {
  const byTopic: Record<string, Array<number>> = {}
  for (const { partition, topic } of current(self)) (byTopic[topic] ??= []).push(partition)
  return byTopic
}

/** Whether positions of this grant may still be committed. */
export const mayCommit = ({ closed, held }: Grants, grant: Grant): boolean =>
  !closed &&
  held.get(keyOf(grant.topic, grant.partition)) === grant && !grant.lost.isOpen()

/** No further records of these, after those under way. */
const quiesce = (grants: ReadonlyArray<Grant>) =>
  Effect.forEach(grants, ({ mutex }) => mutex.withPermit(Effect.void), { discard: true, concurrency: "unbounded" })

const signal = (self: Grants, grants: ReadonlyArray<Grant>, make: () => Broker.Signal) =>
  Effect.andThen(quiesce(grants), Effect.suspend(() => self.closed ? Effect.void : self.onSignal(make())))

/** Takes partitions, and announces them; a join that brings none is announced, too. */
export const grant = (self: Grants, starts: ReadonlyArray<Start>): Effect.Effect<void> =>
  Effect.suspend(() => {
    const grants = starts.map((start): Grant => ({
      ...start,
      paused: false,
      busy: false,
      turn: 0,
      mutex: Semaphore.makeUnsafe(1),
      lost: Latch.makeUnsafe(false),
      state: "Announced"
    }))
    for (const one of grants) self.held.set(keyOf(one.topic, one.partition), one)
    return self.control.withPermit(Effect.suspend(() =>
      self.closed ? Effect.void : self.onSignal({ _tag: "Assigned", assignments: assignmentsOf(grants) })
    )).pipe(
      Effect.andThen(Effect.sync(() => {
        for (const one of grants) {
          if (one.state === "Announced") {
            one.state = "Live"
          }
        }
      }))
    )
  })

/** Hands records over, if the grant still holds when their turn comes. */
export const deliver = (
  self: Grants,
  grant: Grant,
  records: ReadonlyArray<Broker.ConsumerRecord>,
  nextOffset: bigint
): Effect.Effect<void> =>
  grant.mutex.withPermit(Effect.suspend(() => {
    if (self.closed || grant.state !== "Live") return Effect.void
    grant.next = nextOffset
    const { assignment, lost } = grant
    return Effect.raceFirst(self.onSignal({ _tag: "Records", assignment, records, nextOffset }), lost.await)
  }))

const forget = (self: Grants, grants: ReadonlyArray<Grant>) =>
  Effect.sync(() => {
    for (const one of grants) {
      one.state = "Gone"
      if (self.held.get(keyOf(one.topic, one.partition)) === one) self.held.delete(keyOf(one.topic, one.partition))
    }
  })

/** Ends grants at once: somebody else may have them already. */
export const lose = (
  self: Grants,
  grants: ReadonlyArray<Grant> = Array.from(self.held.values())
): Effect.Effect<void> =>
  Effect.suspend(() => {
    // Those that drain are told by the drain, which ends now.
    const told = grants.filter(({ lost, state }) => state !== "Draining" && !lost.isOpen())
    for (const one of grants) one.lost.openUnsafe()
    if (told.length === 0) return Effect.void
    for (const one of told) one.state = "Gone"
    const losing = signal(self, told, () => ({ _tag: "Lost", assignments: assignmentsOf(told) }))
    return Effect.ensuring(self.control.withPermit(losing), forget(self, told))
  })

/** A drain that takes longer is cut short: in a rebalance the coordinator began to count before we heard of it. */
const overdue = ({ drain, heartbeatInterval, rebalanceTimeout }: Settings) =>
  Math.max(drain, rebalanceTimeout - heartbeatInterval - 2_000)

/** Gives partitions back, after what runs for them has been finished. */
export const revoke = (self: Grants, leaving: ReadonlyArray<Grant>): Effect.Effect<void> =>
  Effect.suspend(() => {
    const grants = current(self).filter((grant) => leaving.includes(grant))
    if (grants.length === 0) return Effect.void
    const deadline = self.now() + self.settings.drain
    const anyLost = Effect.raceAllFirst(grants.map(({ lost }) => lost.await))
    for (const one of grants) one.state = "Draining"
    const revoked = signal(self, grants, () => ({
      _tag: "Revoked",
      assignments: assignmentsOf(grants),
      within: Duration.millis(Math.max(0, deadline - self.now()))
    }))
    const cut = Effect.delay(Effect.sync(() => grants.forEach(({ lost }) => lost.openUnsafe())), overdue(self.settings))
    const lost = Effect.suspend(() =>
      grants.some(({ lost }) => lost.isOpen())
        ? signal(self, grants, () => ({ _tag: "Lost", assignments: assignmentsOf(grants) }))
        : Effect.void
    )
    return revoked.pipe(
      Effect.raceFirst(anyLost),
      Effect.raceFirst(Effect.andThen(cut, Effect.never)),
      Effect.andThen(lost),
      Semaphore.withPermit(self.control),
      Effect.ensuring(forget(self, grants))
    )
  })

/** Nothing is signalled any more. */
export const close = (self: Grants): void => {
  self.closed = true
}

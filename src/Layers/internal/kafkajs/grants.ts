/**
 * Owns what a member holds, and the signals about it.
 *
 * Invariant: signals of one partition never overlap, and a signal names only
 * the grant that holds when it is sent.
 *
 *   Outside --join--> Granted --before the next join--> Draining --> Outside
 *                     Granted --evicted, session over, end--> Outside (Lost)
 *                         Draining --evicted, drain overdue--> Outside (Lost)
 *
 * The insight: results come late, and numbers of partitions say nothing about
 * when. Each grant is an object of its own with an epoch; everything late is
 * measured against it. Within a grant, too: when a leader moves, the old one
 * may still answer what the new one has answered already.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import * as Semaphore from "effect/Semaphore"
import type * as Broker from "../../../Broker.ts"
import type { Owned } from "../kafka/assigner.ts"
import { logical, type Settings } from "../kafka/settings.ts"

/** One partition in one generation. */
export interface Grant {
  readonly assignment: Broker.Assignment
  readonly mutex: Semaphore.Semaphore
  readonly lost: Latch.Latch
  live: boolean
  /** The offset after what was handed over: it never goes back. */
  next: bigint
}

interface Held {
  readonly byKey: ReadonlyMap<string, Grant>
  /** Opens when the grants are lost: what runs for them ends. */
  readonly lost: Latch.Latch
}

type State =
  | { readonly _tag: "Outside"; readonly since: number }
  /** `announced` opens when `Assigned` has been taken. */
  | { readonly _tag: "Granted"; readonly held: Held; readonly since: number; readonly announced: Latch.Latch }
  /** `evicted`: nothing may be committed any more, for the member was removed or its time is over. */
  | { readonly _tag: "Draining"; readonly held: Held; readonly evicted: boolean }
  | { readonly _tag: "Closed" }

export interface Grants {
  readonly settings: Settings
  readonly nextEpoch: () => number
  readonly onSignal: (signal: Broker.Signal) => Effect.Effect<void>
  readonly now: () => number
  /** Held while a signal about all grants is under way. */
  readonly control: Semaphore.Semaphore
  state: State
  /** What to tell the group at the next join. */
  owned: Owned
}

export const make = Effect.fnUntraced(function*(
  options: Pick<Grants, "settings" | "nextEpoch" | "onSignal">
): Effect.fn.Return<Grants> {
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const { nextEpoch, onSignal, settings } = options
  const control = yield* Semaphore.make(1)
  return { settings, nextEpoch, onSignal, now, control, state: { _tag: "Outside", since: now() }, owned: {} }
})

const keyOf = (topic: string, partition: number) => `${topic}/${partition}`
const assignmentsOf = (held: Held) => [...held.byKey.values()].map((grant) => grant.assignment)

/** The grant of a partition while records may be delivered. */
export const open = ({ state }: Grants, topic: string, partition: number): Grant | undefined =>
  state._tag === "Granted" ? state.held.byKey.get(keyOf(topic, partition)) : undefined

/** Whether positions of this epoch may still be committed. */
export const mayCommit = ({ state }: Grants, { epoch, partition, topic }: Broker.Assignment): boolean =>
  (state._tag === "Granted" || (state._tag === "Draining" && !state.evicted)) &&
  state.held.byKey.get(keyOf(topic, partition))?.assignment.epoch === epoch

/** Sends a signal about all grants, after those under way; none follows. */
const signal = (grants: Grants, held: Held, make: () => Broker.Signal) => {
  const last = (grant: Grant) =>
    grant.mutex.withPermit(Effect.sync(() => {
      grant.live = false
    }))
  return held.byKey.size === 0
    ? Effect.void
    : Effect.forEach(held.byKey.values(), last, { discard: true, concurrency: "unbounded" }).pipe(
      Effect.andThen(Effect.suspend(() => grants.onSignal(make())))
    )
}

const signalLost = (grants: Grants, held: Held) =>
  signal(grants, held, () => ({ _tag: "Lost", assignments: assignmentsOf(held) }))

/** Takes what a join has brought (physical names), and announces it. What was granted until then is lost. */
export const grant = (grants: Grants, assignment: Owned): Effect.Effect<void> => {
  const before = grants.state._tag === "Granted" ? grants.state.held : undefined
  before?.lost.openUnsafe()
  const epoch = grants.nextEpoch()
  const lost = Latch.makeUnsafe(false)
  const byKey = new Map<string, Grant>()
  for (const [name, partitions] of Object.entries(assignment)) {
    const topic = logical(grants.settings, name)
    for (const partition of partitions) {
      const mutex = Semaphore.makeUnsafe(1)
      byKey.set(keyOf(topic, partition), { assignment: { topic, partition, epoch }, mutex, lost, live: true, next: 0n })
    }
  }
  const held = { byKey, lost }
  const announced = Latch.makeUnsafe(false)
  grants.owned = assignment
  grants.state = { _tag: "Granted", held, since: grants.now(), announced }
  const losing = before === undefined ? Effect.void : signalLost(grants, before)
  const assigned = Effect.suspend(() => grants.onSignal({ _tag: "Assigned", assignments: assignmentsOf(held) }))
  return grants.control.withPermit(Effect.andThen(losing, assigned)).pipe(Effect.ensuring(announced.open))
}

/** Hands records over, if their grant still holds when their turn comes. */
export const deliver = (
  grants: Grants,
  given: Grant,
  records: ReadonlyArray<Broker.ConsumerRecord>,
  lastOffset: string
): Effect.Effect<void> => {
  const { assignment, lost, mutex } = given
  const nextOffset = BigInt(lastOffset) + 1n
  const handOverNew = () => {
    const first = given.next
    given.next = nextOffset
    const fresh = records.length > 0 && records[0]!.offset < first
      ? records.filter(({ offset }) => offset >= first)
      : records
    return grants.onSignal({ _tag: "Records", assignment, records: fresh, nextOffset })
  }
  const handOver = Effect.suspend(() =>
    given.live && nextOffset > given.next && open(grants, assignment.topic, assignment.partition) === given
      ? Effect.raceFirst(handOverNew(), lost.await)
      : Effect.void
  )
  const announced = grants.state._tag === "Granted" ? grants.state.announced.await : Effect.void
  return Effect.andThen(announced, mutex.withPermit(handOver))
}

/** Ends all grants at once: somebody else may have them already. */
export const lose = (grants: Grants): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (grants.state._tag !== "Granted") return Effect.void
    const { held } = grants.state
    grants.state = { _tag: "Outside", since: grants.now() }
    grants.owned = {}
    held.lost.openUnsafe()
    return grants.control.withPermit(signalLost(grants, held))
  })

/** Ends a drain whose partitions are no longer ours. */
export const evict = (grants: Grants): void => {
  grants.owned = {}
  if (grants.state._tag !== "Draining") return
  grants.state = { ...grants.state, evicted: true }
  grants.state.held.lost.openUnsafe()
}

/** A drain that takes longer is cut short, since the coordinator began to count before we heard of it. */
const overdue = (settings: Settings) =>
  Math.max(settings.drain, settings.rebalanceTimeout - settings.heartbeatInterval - settings.maxWait - 1_000)

/** Gives back what is held; `keepAlive` is repeated meanwhile. */
export const revoke = (grants: Grants, keepAlive: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.suspend(() => {
    // Whatever signal is under way comes to its end before the join goes on.
    if (grants.state._tag !== "Granted") return grants.control.withPermit(Effect.void)
    const { held } = grants.state
    const deadline = grants.now() + grants.settings.drain
    grants.state = { _tag: "Draining", held, evicted: false }
    const revoked = signal(grants, held, () => ({
      _tag: "Revoked",
      assignments: assignmentsOf(held),
      within: Duration.millis(Math.max(0, deadline - grants.now()))
    }))
    const cut = Effect.delay(Effect.sync(() => evict(grants)), overdue(grants.settings))
    return revoked.pipe(
      Effect.raceFirst(held.lost.await),
      Effect.raceFirst(Effect.andThen(cut, Effect.never)),
      Effect.raceFirst(Effect.andThen(Effect.repeat(keepAlive, Schedule.spaced("1 second")), Effect.never)),
      Effect.andThen(Effect.suspend(() => held.lost.isOpen() ? signalLost(grants, held) : Effect.void)),
      Semaphore.withPermit(grants.control),
      Effect.ensuring(Effect.sync(() => {
        if (grants.state._tag === "Draining") grants.state = { _tag: "Outside", since: grants.now() }
      }))
    )
  })

/** Nothing is signalled any more. */
export const close = (grants: Grants): void => {
  grants.state = { _tag: "Closed" }
}

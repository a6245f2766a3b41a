/**
 * One member of a group at work: it follows its phase in the group's state and
 * tells the consumer.
 *
 * Invariant: `Assigned`, then `Records`, then `Revoked` or `Lost`, never two
 * calls at once for one partition. `Revoked` waits for running `Records` calls;
 * `Lost` interrupts whatever call still runs.
 *
 * Insight: every change of the group goes through one synchronous step, after
 * which each member is woken and compares its phase *by identity* with the one
 * it acted on. A phase that comes and goes in between is never mistaken for an
 * old one.
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import type { Signal } from "../../../Broker.ts"
import * as Feed from "./feed.ts"
import * as Group from "./group.ts"
import type * as Log from "./log.ts"

/** How long a member may take to give its partitions back. */
const rebalanceTimeout = Duration.seconds(60)

/** A group's state, and the only way to change it. */
export interface GroupCell {
  group: Group.Group
  readonly latches: Map<number, Latch.Latch>
  readonly count: (topic: string) => number
}

/** Makes a transition and wakes all members. */
export const step = (cell: GroupCell, transition: (group: Group.Group) => Group.Group): void => {
  cell.group = transition(cell.group)
  cell.latches.forEach((latch) => latch.openUnsafe())
}

export interface Membership {
  /** Runs until interrupted, or until the member is lost for good. */
  readonly run: Effect.Effect<void>
  /** Returns once the member has been in a generation. */
  readonly joined: Effect.Effect<void>
  /** The feed of the current grants. */
  readonly feed: () => Feed.Feed | undefined
}

export const make = (options: {
  readonly cell: GroupCell
  readonly id: number
  readonly onSignal: (signal: Signal) => Effect.Effect<void>
  readonly logOf: (topic: string, partition: number) => Log.PartitionLog | undefined
}): Membership => {
  const { cell, id, logOf, onSignal } = options
  const wake = Latch.makeUnsafe()
  const joined = Latch.makeUnsafe()
  cell.latches.set(id, wake)
  let feed: Feed.Feed | undefined

  /** Waits until the member's phase passes a test. */
  const phaseWhere = Effect.fnUntraced(function*(test: (phase: Group.Phase) => boolean) {
    while (true) {
      wake.closeUnsafe()
      const phase = Group.memberOf(cell.group, id)?.phase
      if (phase !== undefined && test(phase)) {
        return phase
      }
      yield* wake.await
    }
  })

  const consume = Effect.fnUntraced(function*(current: Feed.Feed, grants: GrantedPhase["grants"]) {
    yield* onSignal({ _tag: "Assigned", assignments: grants })
    yield* Effect.forEach(grants, (grant) => {
      const log = logOf(grant.topic, grant.partition)
      const from = cell.group.committed.get(Group.partitionKey(grant)) ?? 0n
      return log === undefined ? Effect.void : current.read(grant, log, from)
    }, { concurrency: "unbounded", discard: true })
  })

  /** Ends the reading, tells the consumer, and joins the next generation. */
  const handOver = Effect.fnUntraced(
    function*(working: Fiber.Fiber<void>, grants: GrantedPhase["grants"]) {
      const began = yield* Clock.currentTimeMillis
      yield* Fiber.await(working)
      if (grants.length > 0) {
        const spent = (yield* Clock.currentTimeMillis) - began
        const within = Duration.subtract(rebalanceTimeout, Duration.millis(spent))
        yield* onSignal({ _tag: "Revoked", assignments: grants, within })
      }
      step(cell, (group) => Group.revoked(group, id, cell.count))
    },
    Effect.timeoutOrElse({
      duration: rebalanceTimeout,
      orElse: () => Effect.sync(() => step(cell, (group) => Group.expire(group, id, true, cell.count)))
    })
  )

  /** From one grant to its end. */
  const generation = Effect.fnUntraced(function*(granted: GrantedPhase) {
    const current = feed = Feed.make(onSignal)
    const working = yield* Effect.forkScoped(consume(current, granted.grants))
    let phase: Group.Phase = granted
    if (phase._tag === "Granted") {
      phase = yield* phaseWhere((next) => next !== granted)
    }
    if (phase._tag === "Revoking") {
      const revoking = phase
      current.stop()
      yield* Effect.forkScoped(handOver(working, granted.grants))
      phase = yield* phaseWhere((next) => next !== revoking)
    }
    return phase
  }, Effect.scoped)

  const run = Effect.gen(function*() {
    while (true) {
      let phase = yield* phaseWhere((next) => next._tag !== "Joining")
      if (phase._tag === "Granted" || phase._tag === "Revoking") {
        joined.openUnsafe()
        phase = yield* generation(phase)
      }
      feed = undefined
      if (phase._tag === "Lost") {
        if (phase.grants.length > 0) {
          yield* onSignal({ _tag: "Lost", assignments: phase.grants })
        }
        if (!phase.rejoins) {
          return
        }
        step(cell, (group) => Group.rejoin(group, id, cell.count))
      }
    }
  })

  return { run, joined: joined.await, feed: () => feed }
}

type GrantedPhase = Extract<Group.Phase, { readonly _tag: "Granted" | "Revoking" }>

/**
 * Owns the parts of one relay: renews their leases, shares them with other
 * relays, and knows which are in a batch.
 *
 * Invariant: a part is in one batch at a time, and is given back when it is in
 * none. So batches that are under way side by side never share a key, and
 * nobody else sends rows of a part while one of ours may.
 *
 * Who comes, gives back or goes says so, and the others share anew at once
 * where they hear it, else at their next renewal.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import { type MessageStore, type MessageStoreError, parts as allParts } from "../../MessageStore.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Lease from "./lease.ts"

const everyPart = Array.from({ length: allParts }, (_, part) => part)

export interface Ownership {
  /** The parts that are held and in no batch, in order. */
  readonly idle: () => ReadonlyArray<number>
  /** What is held now: to act upon until its deadline, and not under what a later renewal says. */
  readonly held: () => Lease.Held
  /** Puts parts into a batch. */
  readonly take: (parts: ReadonlyArray<number>) => void
  /** Takes parts out of their batch. */
  readonly leave: (parts: ReadonlyArray<number>) => void
  /** Renews what is held, takes what is free of our share, and gives back what is beyond it. */
  readonly renew: Effect.Effect<void, MessageStoreError>
  /** Gives everything back. To call when no batch runs any more. */
  readonly close: Effect.Effect<void, MessageStoreError>
}

export const make = Effect.fnUntraced(function*(options: {
  readonly instance: string
  readonly leases: MessageStore["Service"]["leases"]
  readonly ttl: Duration.Duration
  /** Parts are ours that others may have had. */
  readonly onGained: () => void
}): Effect.fn.Return<Ownership> {
  const { instance, leases, onGained, ttl } = options
  const clock = yield* Clock.Clock
  const inBatches = new Set<number>()
  let held = Lease.none
  /** Whether the others have been told of us. */
  let isKnown = false
  let someLeft = Deferred.makeUnsafe<void>()

  const left = Effect.suspend(() => Deferred.await(someLeft))

  const renew = Effect.gen(function*() {
    const askedNanos = clock.monotonicTimeNanosUnsafe()
    const before = held
    const living = yield* leases.beat(instance, ttl)
    if (!isKnown) {
      isKnown = true
      yield* leases.announce
    }
    const { keep, surplus, wanted } = Lease.plan(Array.from(before.leases.keys()), living, allParts)
    held = Lease.without(held, surplus)
    const free = wanted > 0 ? yield* leases.free : []
    const taken = (yield* Random.shuffle(free)).slice(0, wanted)
    const asked = new Set([...keep, ...taken])
    const found = yield* leases.hold({ owner: instance, ttl, parts: [...asked] })
    // Only what was asked for has been renewed: of the rest the end is near, or unknown.
    const granted = found.filter(({ part }) => asked.has(part))
    held = Lease.held(granted, askedNanos, Duration.toMillis(ttl))
    if (granted.some(({ epoch, part }) => before.leases.get(part)?.epoch !== epoch)) onGained()
    if (held.leases.size !== before.leases.size) {
      yield* EngineEvent.log({ _tag: "PartsHeld", instance, parts: held.leases.size })
    }
    // The surplus, and what could not be given back before.
    yield* giveBack(found.filter(({ part }) => !asked.has(part)).map(({ part }) => part))
  })

  const release = (parts: ReadonlyArray<number>) => Effect.andThen(leases.release(instance, parts), leases.announce)

  /** What is in a batch follows when that is over. */
  const giveBack = (surplus: ReadonlyArray<number>): Effect.Effect<void, MessageStoreError> =>
    Effect.suspend(() => {
      const busy = surplus.filter((part) => inBatches.has(part))
      const ready = surplus.filter((part) => !inBatches.has(part))
      const now = ready.length > 0 ? release(ready) : busy.length > 0 ? left : Effect.void
      return busy.length > 0 ? Effect.andThen(now, giveBack(busy)) : now
    })

  return {
    idle: () => Array.from(held.leases.keys()).filter((part) => !inBatches.has(part)).sort((a, b) => a - b),
    held: () => held,
    take: (parts) => {
      for (const part of parts) inBatches.add(part)
    },
    leave: (parts) => {
      for (const part of parts) inBatches.delete(part)
      const before = someLeft
      someLeft = Deferred.makeUnsafe()
      Deferred.doneUnsafe(before, Effect.void)
    },
    renew,
    // All of them: a renewal may have been interrupted that was giving some back.
    close: leases.release(instance, everyPart).pipe(
      Effect.andThen(leases.leave(instance)),
      Effect.andThen(leases.announce)
    )
  }
})

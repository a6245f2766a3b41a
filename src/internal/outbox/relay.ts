/**
 * Sends committed outbox rows to the broker, in order, with any number of
 * instances: reads one batch after another, and lets several be under way.
 *
 *     read 1 │ send 1 ─────── delete 1
 *            │ read 2 │ send 2 ─────── delete 2
 *                     │ read 3 │ …
 *
 * Invariant: a batch has its parts to itself (`ownership.ts`), so what
 * overlaps are batches without a key in common. There is no cursor: each read
 * begins with the first row of its parts, for ids become visible in the order
 * of commits, which is another one. A part whose rows are all of the backlog
 * is read when its last batch is over.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import { uuidV7Unsafe } from "effect/crypto/SecureRandom"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import type { Broker, BrokerError } from "../../Broker.ts"
import * as Health from "../../Health.ts"
import type { MessageStore, MessageStoreError } from "../../MessageStore.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Metrics from "../metrics.ts"
import * as Lanes from "../publisher/lanes.ts"
import * as Batch from "./batch.ts"
import * as Lease from "./lease.ts"
import * as Ownership from "./ownership.ts"
import * as Parts from "./parts.ts"
import * as Schedule from "./schedule.ts"

export interface Settings {
  readonly lease: Duration.Duration
  readonly batchSize: number
  /** How long a refusal is waited out that may pass. */
  readonly patience: Duration.Duration
  /** For how long what was sent is kept; `undefined`: not at all. */
  readonly keep: Duration.Duration | undefined
}

/** One is read, one sent and one deleted, and one more makes up for what takes longer. */
const batchesAtOnce = 4
/** How often what was kept for long enough is forgotten. */
const pruneEvery = Duration.minutes(1)
const shortestPollMillis = 20
const longestPollMillis = 1_000
const shortestBackOffMillis = 100
const longestBackOffMillis = 10_000

const reasonOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}

/** The name of the reason: one of a few, and never a text with data in it. */
const kindOf = (cause: Cause.Cause<BrokerError | MessageStoreError>): string =>
  Option.match(Cause.findErrorOption(cause), { onNone: () => "Defect", onSome: ({ reason }) => reason._tag })

/** Starts a relay; it stops with the scope, after the batches under way, and hands its parts over at once. */
export const start = Effect.fnUntraced(function*(options: {
  readonly broker: Broker["Service"]
  readonly store: MessageStore["Service"]
  readonly settings: Settings
}) {
  const { broker, settings, store } = options
  const instance = uuidV7Unsafe()
  const ttlMillis = Duration.toMillis(settings.lease)
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  // Closed in the other order: first the fibers below end, then the batches
  // under way, then the leases are given back, then what is sent with closes.
  const sending = yield* Scope.fork(scope)
  const leased = yield* Scope.fork(scope)
  const flights = yield* Scope.fork(scope)
  const lanes = yield* broker.producer.pipe(
    Effect.flatMap((producer) => Lanes.make({ producer, address: broker.address })),
    Scope.provide(sending)
  )
  const wakeups = yield* store.outbox.wakeups
  const changes = yield* store.leases.changes
  const health = yield* Health.register("relay", instance)
  const batches = yield* Batch.make({
    instance,
    outbox: store.outbox,
    lanes,
    source: broker.source,
    size: settings.batchSize,
    patience: settings.patience,
    isKept: settings.keep !== undefined
  })
  const ownership = yield* Ownership.make({
    instance,
    leases: store.leases,
    ttl: settings.lease,
    onGained: batches.someMayBeParked
  })

  // --- batches ---

  /** Batches that were read and are not over. */
  let underWay = 0
  /** Opens when one is over. */
  const over = Latch.makeUnsafe(false)
  /** How long to wait since the last batches of which nothing left. */
  let backOffMillis = 0
  let readAfter: number | undefined = undefined

  const failed = (cause: Cause.Cause<unknown>, afterMillis: number) =>
    EngineEvent.log({ _tag: "RelayFailed", instance, reason: reasonOf(cause), afterMillis })

  /** What can go on goes on: only a batch of which nothing left is waited for. */
  const settle = Effect.fnUntraced(function*(exit: Exit.Exit<Batch.Outcome, MessageStoreError>) {
    const cause = Exit.isFailure(exit) ? exit.cause : exit.value.failure
    const isStuck = Exit.isFailure(exit) || (cause !== undefined && exit.value.gone === 0)
    const longest = Exit.isSuccess(exit) && exit.value.isPartial ? longestPollMillis : longestBackOffMillis
    backOffMillis = isStuck ? Math.min(longest, Math.max(shortestBackOffMillis, backOffMillis * 2)) : 0
    if (cause === undefined) return yield* health.running
    yield* Metrics.countRelayFailed(kindOf(cause))
    yield* health.failing(reasonOf(cause))
    yield* failed(cause, backOffMillis)
  })

  const send = (reading: Batch.Reading, parts: ReadonlyArray<number>) =>
    Effect.exit(batches.send(reading)).pipe(
      Effect.flatMap(settle),
      Effect.ensuring(Effect.sync(() => {
        ownership.leave(parts)
        underWay--
        over.openUnsafe()
      })),
      Effect.uninterruptible
    )

  /** Reads a batch and lets it go. Whether something was read, and another read is to follow at once. */
  const next = Effect.gen(function*() {
    const held = ownership.held()
    const parts = Parts.next(ownership.idle(), readAfter)
    // What is read now could not be sent: without this, it would be read again and again until the next renewal.
    if (Lease.leftMillis(held, clock.monotonicTimeNanosUnsafe()) < Batch.leastMillis) {
      return { some: false, more: false }
    }
    if (!Arr.isReadonlyArrayNonEmpty(parts)) return { some: false, more: false }
    ownership.take(parts)
    const reading = yield* Effect.onError(batches.read(held, parts), () => Effect.sync(() => ownership.leave(parts)))
    const wrapped = readAfter !== undefined
    readAfter = Parts.after(reading.all, reading.limit)
    const busy = new Set(reading.rows.map(({ part }) => part))
    ownership.leave(parts.filter((part) => !busy.has(part)))
    if (busy.size > 0) {
      underWay++
      yield* Effect.forkIn(send(reading, [...busy]), flights, { startImmediately: true })
    } else if (underWay === 0 && !wrapped) {
      // Nothing in some parts would say nothing about the others, whose rows may be waiting for the broker.
      yield* settle(Exit.succeed(Batch.nothing))
    }
    return { some: busy.size > 0, more: readAfter !== undefined || wrapped }
  })

  /** Waits until at most so many batches are under way. */
  const atMost = (batches: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (underWay <= batches) return Effect.void
      over.closeUnsafe()
      return Effect.andThen(over.await, atMost(batches))
    })

  const idle = (pollMillis: number) =>
    Effect.flatMap(
      Random.nextBetween(pollMillis * 0.75, pollMillis * 1.25),
      (millis) => Effect.raceAllFirst([Queue.take(wakeups), over.await, Effect.sleep(millis)])
    )

  const relay = Effect.gen(function*() {
    let pollMillis = shortestPollMillis
    while (true) {
      // One batch alone finds out whether it goes on.
      if (backOffMillis > 0) yield* Effect.andThen(atMost(0), Effect.suspend(() => Effect.sleep(backOffMillis)))
      yield* atMost(batchesAtOnce - 1)
      over.closeUnsafe()
      const exit = yield* Effect.exit(Effect.uninterruptible(next))
      if (Exit.isFailure(exit)) {
        yield* settle(Exit.failCause(exit.cause))
        continue
      }
      pollMillis = exit.value.some ? shortestPollMillis : Math.min(longestPollMillis, pollMillis * 2)
      if (!exit.value.more) yield* idle(pollMillis)
    }
  })

  // --- beside them ---

  const scheduling = Effect.gen(function*() {
    for (let failures = 0;;) {
      const exit = yield* Effect.exit(Schedule.moveAndWait(store.outbox.scheduled))
      if (Exit.isSuccess(exit)) {
        failures = 0
        continue
      }
      const afterMillis = Math.min(longestBackOffMillis, Schedule.mostMillis * 2 ** failures++)
      yield* failed(exit.cause, afterMillis)
      yield* Effect.sleep(afterMillis)
    }
  })

  const leasing = Effect.gen(function*() {
    while (true) {
      yield* Effect.raceFirst(Queue.take(changes), Effect.sleep(ttlMillis / 3))
      yield* Effect.catchCause(
        Effect.andThen(ownership.renew, batches.freeFollowers),
        (cause) => failed(cause, ttlMillis / 3)
      )
    }
  })

  const pruning = (keep: Duration.Duration) =>
    store.outbox.sent.prune(keep).pipe(
      Effect.catchCause((cause) => failed(cause, Duration.toMillis(pruneEvery))),
      Effect.andThen(Effect.sleep(pruneEvery)),
      Effect.forever
    )

  yield* ownership.renew
  yield* batches.freeFollowers
  yield* EngineEvent.log({ _tag: "RelayStarted", instance })
  yield* Effect.addFinalizer(() =>
    ownership.close.pipe(
      Effect.ignore({ log: "Warn" }),
      Effect.andThen(EngineEvent.log({ _tag: "RelayStopped", instance }))
    )
  ).pipe(Scope.provide(leased))
  yield* Effect.forkScoped(leasing)
  yield* Effect.forkScoped(scheduling)
  if (settings.keep !== undefined) yield* Effect.forkScoped(pruning(settings.keep))
  yield* Effect.forkScoped(relay)
})

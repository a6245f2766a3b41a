/**
 * Sends committed outbox rows to the broker, in order, with any number of
 * instances.
 *
 * Each part has one owner at a time (`lease.ts`). The owner reads its parts in
 * order, checks its deadline, sends, and deletes by exact id what the broker
 * acknowledged. So a crash at any point sends rows again and never loses one;
 * and rows of one key leave in commit order, since one key lies in one part
 * and in one partition, and what follows a failure in a partition is not sent.
 * What the broker refuses is parked (`parking.ts`).
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
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type { Broker, BrokerError } from "../../Broker.ts"
import * as Health from "../../Health.ts"
import {
  type Lease as StoreLease,
  type MessageStore,
  type MessageStoreError,
  parts,
  type StoredRow
} from "../../MessageStore.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Metrics from "../metrics.ts"
import * as Lanes from "../publisher/lanes.ts"
import * as Envelope from "../wire/envelope.ts"
import * as Lease from "./lease.ts"
import * as Parking from "./parking.ts"
import * as Parts from "./parts.ts"

export interface Settings {
  readonly lease: Duration.Duration
  readonly batchSize: number
  /** How long a refusal is waited out that may pass. */
  readonly patience: Duration.Duration
}

/** Least time that must be left of a lease to begin a send. */
const leastMillis = 500
const shortestPollMillis = 20
const longestPollMillis = 1_000
/** Scheduled rows that are moved in one transaction. */
const dueAtOnce = 1_000
const longestBackOffMillis = 10_000

const messageOf = (row: StoredRow, source: string): Lanes.Message => ({
  topic: row.topic,
  key: row.key,
  value: row.payload,
  headers: row.headers[Envelope.source] === undefined ? { ...row.headers, [Envelope.source]: source } : row.headers,
  bytes: sizeOf(row)
})

const sizeOf = (row: StoredRow): number => {
  let bytes = (row.key?.length ?? 0) * 3 + (row.payload?.length ?? 0)
  for (const name in row.headers) bytes += name.length + row.headers[name]!.length * 3
  return bytes
}

const reasonOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}

interface Batch {
  readonly rows: number
  readonly more: boolean
  readonly refused: Cause.Cause<BrokerError> | undefined
}

/** Starts a relay; it stops with the scope, after the batch in flight, and hands its parts over at once. */
export const start = Effect.fnUntraced(function*(options: {
  readonly broker: Broker["Service"]
  readonly store: MessageStore["Service"]
  readonly settings: Settings
}) {
  const { broker, settings, store } = options
  const instance = uuidV7Unsafe()
  const ttlMillis = Duration.toMillis(settings.lease)
  const clock = yield* Clock.Clock
  // A scope of their own: what they open while they send closes after the fibers
  // below, and so the batch in flight is finished and not cut off.
  const sending = yield* Effect.flatMap(Effect.scope, (scope) => Scope.fork(scope))
  const lanes = yield* broker.producer.pipe(
    Effect.flatMap((producer) => Lanes.make({ producer, address: broker.address })),
    Scope.provide(sending)
  )
  const wakeups = yield* store.outbox.wakeups
  const health = yield* Health.register("relay", instance)
  // Leases change only between batches.
  const between = Semaphore.makeUnsafe(1)
  let held = Lease.none

  // --- leases ---

  const renew = Effect.gen(function*() {
    const asked = clock.monotonicTimeNanosUnsafe()
    const living = yield* store.leases.beat(instance, settings.lease)
    const plan = Lease.plan(Array.from(held.leases.keys()), living, parts)
    if (plan.surplus.length > 0) yield* between.withPermit(giveBack(plan.surplus))
    const free = plan.wanted > 0 ? yield* store.leases.free : []
    const taken = (yield* Random.shuffle(free)).slice(0, plan.wanted)
    const leases = yield* store.leases.hold({ owner: instance, ttl: settings.lease, parts: [...plan.keep, ...taken] })
    const before = held.leases.size
    if (leases.some(({ epoch, part }) => held.leases.get(part)?.epoch !== epoch)) someParked = true
    held = Lease.held(leases, asked, ttlMillis)
    if (held.leases.size !== before) {
      yield* EngineEvent.log({ _tag: "PartsHeld", instance, parts: held.leases.size })
    }
  })

  const giveBack = (surplus: ReadonlyArray<number>) =>
    Effect.suspend(() => {
      const leases = new Map(held.leases)
      for (const part of surplus) leases.delete(part)
      held = { ...held, leases }
      return store.leases.release(instance, surplus)
    })

  // --- rows ---

  let readAfter: number | undefined = undefined
  /** Whether rows of parts of ours may be parked: only owners park. */
  let someParked = true
  /** How often we have parked rows. */
  let timesParked = 0
  /** Since when topics are refused, by what may pass. */
  const refusedSince = new Map<string, number>()
  const patienceMillis = Duration.toMillis(settings.patience)

  /**
   * Reads rows, and which of their keys have parked ones. Those are looked up
   * before the rows that count are read: what is released in between is among
   * the rows then, and nothing overtakes it.
   */
  const read = Effect.fnUntraced(function*(owned: Arr.NonEmptyReadonlyArray<number>) {
    const reading = store.outbox.read({ parts: owned, limit: settings.batchSize })
    const rows = yield* reading
    const keys = someParked ? Parking.keysOf(rows) : []
    if (!Arr.isArrayNonEmpty(keys)) return { rows, all: rows, blocked: Parking.blockedBy([]) }
    const blocked = Parking.blockedBy(yield* store.outbox.parked.keys(keys))
    const all = yield* reading
    return { rows: Parking.ofKeys(all, keys), all, blocked }
  })

  /** Why a row that was not sent is parked; `undefined` if it stays. */
  const refusalOf = (row: StoredRow, cause: Cause.Cause<BrokerError>, now: number): string | undefined => {
    const error = Option.getOrUndefined(Cause.findErrorOption(cause))
    const verdict = error === undefined ? "Outage" : Parking.verdictOf(error)
    if (verdict === "Outage") return undefined
    if (verdict === "MayPass") {
      const since = refusedSince.get(row.topic)
      if (since === undefined) refusedSince.set(row.topic, now)
      if (now - (since ?? now) < patienceMillis) return undefined
    }
    return error!.message
  }

  const park = Effect.fnUntraced(function*(
    leases: ReadonlyMap<number, StoreLease>,
    parkings: ReadonlyArray<Parking.Parking>
  ) {
    const rows = parkings.map(({ reason, row: { id, part } }) => ({ part, id, reason }))
    if (!Arr.isArrayNonEmpty(rows)) return 0
    someParked = true
    timesParked++
    const parked = yield* store.outbox.parked.park({ owner: instance, leases: Array.from(leases.values()), rows })
    for (const [topic, { first, rows }] of Parking.byTopic(parkings)) {
      yield* Metrics.countParked(topic, rows)
      if (first === undefined) continue
      const { reason, row: { key, messageKey } } = first
      yield* EngineEvent.log({
        _tag: "RowsParked",
        instance,
        topic,
        rows,
        messageKey,
        key: key === null ? null : Envelope.shortKey(key),
        reason
      })
    }
    return parked
  })

  /** Relays one batch. `more`: the read was full, so another follows at once. What was refused stays and is tried again. */
  const batch: Effect.Effect<Batch, MessageStoreError> = Effect.gen(function*() {
    const leases = held.leases
    const owned = Parts.next(Array.from(leases.keys()).sort((a, b) => a - b), readAfter)
    if (!Arr.isReadonlyArrayNonEmpty(owned)) return { rows: 0, more: false, refused: undefined }
    const { all, blocked, rows } = yield* read(owned)
    const wrapped = readAfter !== undefined
    readAfter = Parts.after(all, settings.batchSize)
    if (rows.length === 0) return { rows: 0, more: wrapped, refused: undefined }
    // The check that keeps order against a frozen owner: right before the send.
    const left = Lease.leftMillis(held, clock.monotonicTimeNanosUnsafe())
    if (left < leastMillis) {
      yield* EngineEvent.log({ _tag: "LeaseOverdue", instance, parts: leases.size })
      return { rows: 0, more: false, refused: undefined }
    }
    const behind = rows.filter((row) => Parking.isBehind(blocked, row))
    const going = behind.length === 0 ? rows : rows.filter((row) => !Parking.isBehind(blocked, row))
    const outcomes = yield* lanes.send(going.map((row) => messageOf(row, broker.source)), Duration.millis(left))
    const now = clock.currentTimeMillisUnsafe()
    const sent: Array<StoredRow> = []
    const refused = new Map<StoredRow, string>()
    let failure: Cause.Cause<BrokerError> | undefined
    for (const [i, row] of going.entries()) {
      const outcome = outcomes[i]!
      if (Exit.isSuccess(outcome)) {
        sent.push(row)
        refusedSince.delete(row.topic)
        continue
      }
      const reason = refusalOf(row, outcome.cause, now)
      if (reason === undefined) failure ??= outcome.cause
      else refused.set(row, reason)
    }
    if (Arr.isArrayNonEmpty(sent)) {
      yield* store.outbox.remove({ owner: instance, leases: Array.from(leases.values()), rows: sent })
      yield* EngineEvent.log({ _tag: "Relayed", instance, rows: sent.length })
    }
    const parked = yield* park(leases, [
      ...Parking.withFollowers(going, refused),
      ...behind.map((row): Parking.Parking => ({ row, reason: null }))
    ])
    return { rows: sent.length + parked, more: readAfter !== undefined || wrapped, refused: failure }
  })

  const idle = (pollMillis: number) =>
    Effect.flatMap(
      Random.nextBetween(pollMillis * 0.75, pollMillis * 1.25),
      (millis) => Effect.raceFirst(Queue.take(wakeups), Effect.sleep(millis))
    )

  const relay = Effect.gen(function*() {
    let pollMillis = shortestPollMillis
    let failures = 0
    while (true) {
      const exit = yield* Effect.exit(between.withPermit(Effect.uninterruptible(batch)))
      const cause = Exit.isFailure(exit) ? exit.cause : exit.value.refused
      const rows = Exit.isSuccess(exit) ? exit.value.rows : 0
      yield* cause === undefined ? health.running : health.failing(reasonOf(cause))
      if (cause !== undefined) yield* failed(cause, Math.min(longestBackOffMillis, 100 * 2 ** failures))
      // What can go on goes on: only a batch of which nothing left is waited for.
      if (cause !== undefined && rows === 0) {
        yield* Effect.sleep(Math.min(longestBackOffMillis, 100 * 2 ** failures++))
        continue
      }
      failures = 0
      pollMillis = rows > 0 ? shortestPollMillis : Math.min(longestPollMillis, pollMillis * 2)
      if (Exit.isSuccess(exit) && !exit.value.more) yield* idle(pollMillis)
    }
  })

  const failed = (cause: Cause.Cause<unknown>, afterMillis: number) =>
    EngineEvent.log({ _tag: "RelayFailed", instance, reason: reasonOf(cause), afterMillis })

  // A row may have been parked behind another that was released at the same time.
  const freeFollowers = Effect.gen(function*() {
    if (!someParked) return
    const before = timesParked
    const some = yield* store.outbox.parked.list({ selection: {}, limit: 1 })
    if (some.length > 0) yield* store.outbox.parked.free
    else if (timesParked === before) someParked = false
  })

  // --- schedule ---

  /** Moves what is due, and waits until something may be. */
  const schedule = Effect.gen(function*() {
    const left = yield* store.outbox.scheduled.next
    if (left !== undefined && left <= 0) {
      while ((yield* store.outbox.scheduled.move(dueAtOnce)) === dueAtOnce) yield* Effect.yieldNow
    }
    const idleMillis = left === undefined || left <= 0 ? longestPollMillis : left
    yield* Effect.sleep(Math.min(longestPollMillis, Math.max(shortestPollMillis, idleMillis)))
  })

  const scheduling = Effect.gen(function*() {
    for (let failures = 0;;) {
      const exit = yield* Effect.exit(schedule)
      if (Exit.isSuccess(exit)) {
        failures = 0
        continue
      }
      const afterMillis = Math.min(longestBackOffMillis, longestPollMillis * 2 ** failures++)
      yield* failed(exit.cause, afterMillis)
      yield* Effect.sleep(afterMillis)
    }
  })

  const leasing = Effect.gen(function*() {
    while (true) {
      yield* Effect.sleep(ttlMillis / 3)
      yield* Effect.catchCause(Effect.andThen(renew, freeFollowers), (cause) => failed(cause, ttlMillis / 3))
    }
  })

  yield* renew
  yield* freeFollowers
  yield* EngineEvent.log({ _tag: "RelayStarted", instance })
  // Runs after both fibers have ended, since it is registered before them.
  yield* Effect.addFinalizer(() =>
    store.leases.release(instance, Array.from(held.leases.keys())).pipe(
      Effect.andThen(store.leases.leave(instance)),
      Effect.ignore({ log: "Warn" }),
      Effect.andThen(EngineEvent.log({ _tag: "RelayStopped", instance }))
    )
  )
  yield* Effect.forkScoped(leasing)
  yield* Effect.forkScoped(scheduling)
  yield* Effect.forkScoped(relay)
})

/**
 * Owns the way of one batch: read, check the deadline, send, and delete by
 * exact id (or put aside, where it is kept) what the broker acknowledged.
 *
 * Invariant: a row is deleted after its acknowledgement and under the lease
 * under which it was read. So a crash at any point sends rows again and never
 * loses one; and rows of one key leave in commit order, since one key lies in
 * one part and in one partition, and what follows a failure there is not sent.
 * What the broker refuses is parked (`parking.ts`).
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import type { BrokerError } from "../../Broker.ts"
import type { MessageStore, MessageStoreError, StoredRow } from "../../MessageStore.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Metrics from "../metrics.ts"
import type * as Lanes from "../publisher/lanes.ts"
import * as Envelope from "../wire/envelope.ts"
import * as Lease from "./lease.ts"
import * as Parking from "./parking.ts"
import { ReadSize } from "./readSize.ts"

/** Least time that must be left of a lease to begin a send. */
export const leastMillis = 500

/** What was read of some parts, under the leases of that time. */
export interface Reading {
  readonly held: Lease.Held
  /** All rows that were read. */
  readonly all: ReadonlyArray<StoredRow>
  /** The most rows that it could have brought. */
  readonly limit: number
  /** Those of which it is known whether an earlier one of their key is parked. */
  readonly rows: ReadonlyArray<StoredRow>
  readonly blocked: Parking.Blocked
}

/** What became of a batch. */
export interface Outcome {
  /** Rows that are no longer in the outbox. */
  readonly gone: number
  /** Why rows stayed that are tried again. */
  readonly failure: Cause.Cause<BrokerError> | undefined
  /** Whether only some rows are concerned: others may be sent. */
  readonly isPartial: boolean
}

/** Of a batch without rows. */
export const nothing: Outcome = { gone: 0, failure: undefined, isPartial: true }

export interface Batches {
  /** Reads up to a batch of rows of these parts, which must be in no other batch until it is over. */
  readonly read: (
    held: Lease.Held,
    parts: Arr.NonEmptyReadonlyArray<number>
  ) => Effect.Effect<Reading, MessageStoreError>
  /** Sends what was read, and takes out of the outbox what needs no other try. */
  readonly send: (reading: Reading) => Effect.Effect<Outcome, MessageStoreError>
  /** Others may have parked rows of parts that are ours now. */
  readonly someMayBeParked: () => void
  /** Rows may have been parked behind others that were released at the same time: puts those back. */
  readonly freeFollowers: Effect.Effect<void, MessageStoreError>
}

/** What may go well the next time. */
const mayPass = ({ reason: { _tag } }: MessageStoreError): boolean =>
  _tag === "Conflict" || _tag === "StoreUnreachable" || _tag === "StoreFull"

const sizeOf = (row: StoredRow): number => {
  let bytes = (row.key?.length ?? 0) * 3 + (row.payload?.length ?? 0)
  for (const name in row.headers) bytes += name.length + row.headers[name]!.length * 3
  return bytes
}

const messageOf = (row: StoredRow, source: string): Lanes.Message => ({
  topic: row.topic,
  key: row.key,
  value: row.payload,
  headers: row.headers[Envelope.source] === undefined ? { ...row.headers, [Envelope.source]: source } : row.headers,
  bytes: sizeOf(row)
})

export const make = Effect.fnUntraced(function*(options: {
  readonly instance: string
  readonly outbox: MessageStore["Service"]["outbox"]
  readonly lanes: Lanes.Lanes
  /** The broker's name in events that have no source of their own. */
  readonly source: string
  /** The most rows of a batch. */
  readonly size: number
  /** How long a refusal is waited out that may pass. */
  readonly patience: Duration.Duration
  /** Whether what was sent is kept aside. */
  readonly isKept: boolean
}): Effect.fn.Return<Batches> {
  const { instance, isKept, lanes, outbox, source } = options
  const takeOut = isKept ? outbox.sent.keep : outbox.remove
  const patienceMillis = Duration.toMillis(options.patience)
  const clock = yield* Clock.Clock
  const readSize = new ReadSize(options.size)
  /** Whether rows of parts of ours may be parked: only owners park. */
  let someParked = true
  /** How often we have parked rows. */
  let timesParked = 0
  /** Since when topics are refused, by what may pass. */
  const refusedSince = new Map<string, number>()

  const learn = (rows: ReadonlyArray<StoredRow>) => {
    let bytes = 0
    for (const row of rows) bytes += sizeOf(row)
    readSize.learn(rows.length, bytes)
  }

  /**
   * The parked keys among what was read are looked up before the rows that
   * count are read: what is released in between is among the rows then, and
   * nothing overtakes it.
   */
  const read = Effect.fnUntraced(function*(held: Lease.Held, parts: Arr.NonEmptyReadonlyArray<number>) {
    const { limit } = readSize
    const reading = Effect.tap(outbox.read({ parts, limit }), (rows) => Effect.sync(() => learn(rows)))
    const rows = yield* reading
    const keys = someParked ? Parking.keysOf(rows) : []
    if (!Arr.isArrayNonEmpty(keys)) return { held, limit, rows, all: rows, blocked: Parking.blockedBy([]) }
    const blocked = Parking.blockedBy(yield* outbox.parked.keys(keys))
    const all = yield* reading
    return { held, limit, rows: Parking.ofKeys(all, keys), all, blocked }
  })

  /** For as long as the leases hold: what is not taken out would be sent once more. */
  const insist = <A>(held: Lease.Held, takingOut: Effect.Effect<A, MessageStoreError>) =>
    Effect.retry(takingOut, {
      while: (error) => mayPass(error) && Lease.leftMillis(held, clock.monotonicTimeNanosUnsafe()) > 0,
      schedule: Schedule.jittered(Schedule.exponential("20 millis"))
    })

  /** What is to be done about a row that was not sent, and why. */
  const judge = (row: StoredRow, cause: Cause.Cause<BrokerError>, now: number) => {
    const error = Option.getOrUndefined(Cause.findErrorOption(cause))
    const reason = error?.message ?? Cause.pretty(cause)
    const verdict = error === undefined ? "Outage" : Parking.verdictOf(error)
    if (verdict !== "MayPass") return { verdict, reason }
    const since = refusedSince.get(row.topic) ?? now
    refusedSince.set(row.topic, since)
    return { verdict: now - since < patienceMillis ? verdict : "Refused", reason }
  }

  const park = Effect.fnUntraced(function*(held: Lease.Held, parkings: ReadonlyArray<Parking.Parking>) {
    const rows = parkings.map(({ reason, row: { id, part } }) => ({ part, id, reason }))
    if (!Arr.isArrayNonEmpty(rows)) return 0
    someParked = true
    timesParked++
    const leases = Array.from(held.leases.values())
    const parked = yield* insist(held, outbox.parked.park({ owner: instance, leases, rows }))
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

  const remove = Effect.fnUntraced(function*(held: Lease.Held, sent: ReadonlyArray<StoredRow>) {
    if (!Arr.isReadonlyArrayNonEmpty(sent)) return
    yield* insist(held, takeOut({ owner: instance, leases: Array.from(held.leases.values()), rows: sent }))
    yield* EngineEvent.log({ _tag: "Relayed", instance, rows: sent.length })
    const topics = new Map<string, number>()
    for (const { topic } of sent) topics.set(topic, (topics.get(topic) ?? 0) + 1)
    for (const [topic, rows] of topics) yield* Metrics.countRelayed(topic, rows)
  })

  const send = Effect.fnUntraced(function*({ blocked, held, rows }: Reading): Effect.fn.Return<
    Outcome,
    MessageStoreError
  > {
    if (rows.length === 0) return nothing
    // The check that keeps order against a frozen owner: right before the send.
    const left = Lease.leftMillis(held, clock.monotonicTimeNanosUnsafe())
    if (left < leastMillis) {
      yield* EngineEvent.log({ _tag: "LeaseOverdue", instance, parts: held.leases.size })
      return nothing
    }
    const behind = rows.filter((row) => Parking.isBehind(blocked, row))
    const going = behind.length === 0 ? rows : rows.filter((row) => !Parking.isBehind(blocked, row))
    const outcomes = yield* lanes.send(going.map((row) => messageOf(row, source)), Duration.millis(left))
    const now = clock.currentTimeMillisUnsafe()
    const sent: Array<StoredRow> = []
    const refused = new Map<StoredRow, string>()
    let failure: Cause.Cause<BrokerError> | undefined
    let isPartial = true
    for (const [i, row] of going.entries()) {
      const outcome = outcomes[i]!
      if (Exit.isSuccess(outcome)) {
        sent.push(row)
        refusedSince.delete(row.topic)
        continue
      }
      const { reason, verdict } = judge(row, outcome.cause, now)
      if (verdict === "Refused") {
        refused.set(row, reason)
        continue
      }
      failure ??= outcome.cause
      isPartial &&= verdict === "MayPass"
    }
    yield* remove(held, sent)
    const parked = yield* park(held, [
      ...Parking.withFollowers(going, refused),
      ...behind.map((row): Parking.Parking => ({ row, reason: null }))
    ])
    return { gone: sent.length + parked, failure, isPartial }
  })

  const freeFollowers = Effect.gen(function*() {
    if (!someParked) return
    const before = timesParked
    const some = yield* outbox.parked.list({ selection: {}, limit: 1 })
    if (some.length > 0) yield* outbox.parked.free
    else if (timesParked === before) someParked = false
  })

  return {
    read,
    send,
    someMayBeParked: () => {
      someParked = true
    },
    freeFollowers
  }
})

/**
 * Members and tails whose signals are written down, in one journal per case.
 *
 * The journal checks the protocol of every signal by itself: `Assigned` before
 * `Records`, a new epoch for each grant, offsets that grow, no two calls at
 * once for one partition, `Revoked` and `Lost` only of what is held, and no two
 * members of one group that hold one partition. A breach fails the case.
 * Nothing is de-duplicated.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type {
  Assignment,
  BrokerError,
  ConsumerRecord,
  Flow,
  Position,
  Signal,
  Subscription
} from "../../../src/Broker.ts"
import { Broker } from "../../../src/Broker.ts"
import { within } from "../features.ts"

export interface Entry {
  readonly reader: string
  /** `"begin"` when `onSignal` was called, `"end"` when it returned. */
  readonly at: "begin" | "end"
  readonly signal: Signal
}

/** A record with where and by whom it was read. */
export interface Delivery extends Assignment {
  readonly reader: string
  readonly record: ConsumerRecord
  /** The value as text; `null` for a tombstone. */
  readonly text: string | null
}

/** Runs after a signal was written down and before `onSignal` returns. */
export type Hook = (signal: Signal) => Effect.Effect<void>

export interface Journal {
  readonly entries: ReadonlyArray<Entry>
  /** Joins a group under a name of its own. */
  readonly member: (
    reader: string,
    options: { readonly group: string; readonly topics: ReadonlyArray<string>; readonly hook?: Hook }
  ) => Effect.Effect<Subscription, BrokerError, Broker | Scope.Scope>
  readonly tail: (
    reader: string,
    options: { readonly topics: ReadonlyArray<string>; readonly hook?: Hook }
  ) => Effect.Effect<Flow, BrokerError, Broker | Scope.Scope>
  /** Waits for the journal to satisfy a test. */
  readonly until: (what: string, test: () => boolean) => Effect.Effect<void>
  /** All deliveries, or those of one reader, in order. */
  readonly deliveries: (reader?: string) => ReadonlyArray<Delivery>
  /** The texts of the deliveries, in order, repeats and all. */
  readonly texts: (reader?: string) => ReadonlyArray<string | null>
  /** What a reader holds now. */
  readonly held: (reader: string) => ReadonlyArray<Assignment>
  /** The position after everything that a reader got under its present grants. */
  readonly positions: (reader: string) => ReadonlyArray<Position>
  /** The signals of one kind that a reader got. */
  readonly signals: <Tag extends Signal["_tag"]>(
    reader: string,
    tag: Tag
  ) => ReadonlyArray<Extract<Signal, { readonly _tag: Tag }>>
}

/** Bound of one wait, in real time. */
const patience = 120_000

const decoder = new TextDecoder()

const partitionsOf = (signal: Signal): ReadonlyArray<Assignment> =>
  signal._tag === "Records" ? [signal.assignment] : signal.assignments

const keyOf = (at: { readonly topic: string; readonly partition: number }) => `${at.topic}/${at.partition}`

export const make: Effect.Effect<Journal, never, Scope.Scope> = Effect.gen(function*() {
  const entries: Array<Entry> = []
  const waiting = new Set<{ readonly test: () => boolean; readonly deferred: Deferred.Deferred<void> }>()
  const breaches: Array<string> = []
  const holders = new Map<string, string>()
  const protocols = new Map<string, ReturnType<typeof protocol>>()

  const write = (entry: Entry) => {
    entries.push(entry)
    for (const waiter of waiting) {
      if (breaches.length > 0 || waiter.test()) {
        waiting.delete(waiter)
        Deferred.doneUnsafe(waiter.deferred, Effect.void)
      }
    }
  }

  const failOnBreach = Effect.suspend(() =>
    breaches.length === 0 ? Effect.void : Effect.die(new Error(`broker protocol: ${breaches.join("; ")}`))
  )
  yield* Effect.addFinalizer(() => failOnBreach)

  const listen = (reader: string, group: string, hook: Hook | undefined): Hook => {
    const rules = protocol(reader, group, holders, breaches)
    protocols.set(reader, rules)
    return (signal) =>
      Effect.suspend(() => {
        rules.begin(signal)
        write({ reader, at: "begin", signal })
        return hook?.(signal) ?? Effect.void
      }).pipe(Effect.onExit((exit) =>
        Effect.sync(() => {
          rules.end(signal, Exit.isSuccess(exit))
          write({ reader, at: "end", signal })
        })
      ))
  }

  const deliveries = (reader?: string): ReadonlyArray<Delivery> =>
    entries.flatMap(({ at, reader: by, signal }) =>
      at === "begin" && signal._tag === "Records" && (reader === undefined || reader === by)
        ? signal.records.map((record) => ({
          ...signal.assignment,
          reader: by,
          record,
          text: record.value === null ? null : decoder.decode(record.value)
        }))
        : []
    )

  return {
    entries,
    member: (reader, { group, hook, topics }) =>
      Broker.use((broker) => broker.subscribe({ group, topics, onSignal: listen(reader, `group ${group}`, hook) }))
        .pipe(
          // A scope that closes while it subscribes interrupts that, and signals may have come before.
          Effect.onError(() => Effect.sync(() => protocols.get(reader)?.leave())),
          Effect.tap(Effect.addFinalizer(() => Effect.sync(() => protocols.get(reader)?.leave())))
        ),
    tail: (reader, { hook, topics }) =>
      Broker.use((broker) => broker.tail({ topics, onSignal: listen(reader, `tail ${reader}`, hook) })),
    until: (what, test) =>
      Effect.suspend(() => {
        if (breaches.length > 0 || test()) {
          return failOnBreach
        }
        const waiter = { test, deferred: Deferred.makeUnsafe<void>() }
        waiting.add(waiter)
        return within(Deferred.await(waiter.deferred), patience, () => `${what}; the journal says ${summary(entries)}`)
      }).pipe(Effect.andThen(failOnBreach)),
    deliveries,
    texts: (reader) => deliveries(reader).map((delivery) => delivery.text),
    held: (reader) => Array.from(protocols.get(reader)?.held.values() ?? []),
    positions: (reader) => Array.from(protocols.get(reader)?.positions.values() ?? []),
    signals: <Tag extends Signal["_tag"]>(reader: string, tag: Tag) =>
      entries.flatMap((entry) =>
        entry.reader === reader && entry.at === "begin" && entry.signal._tag === tag
          ? [entry.signal as Extract<Signal, { readonly _tag: Tag }>]
          : []
      )
  }
})

/** The rules that one reader's signals keep; `holders` says which member of a group holds a partition. */
const protocol = (reader: string, group: string, holders: Map<string, string>, breaches: Array<string>) => {
  const held = new Map<string, Assignment>()
  const positions = new Map<string, Position>()
  const running = new Set<string>()
  const epochs = new Set<string>()

  const rule = (holds: boolean, sentence: () => string) => {
    if (!holds) {
      breaches.push(`${reader}: ${sentence()}`)
    }
  }

  const begin = (signal: Signal) => {
    for (const at of partitionsOf(signal)) {
      const key = keyOf(at)
      rule(!running.has(key), () => `${signal._tag} of ${key} while another call for it ran`)
      running.add(key)
      if (signal._tag === "Assigned") {
        rule(!held.has(key), () => `Assigned ${key}, which it held already`)
        rule(!epochs.has(`${key}@${at.epoch}`), () => `Assigned ${key} under epoch ${at.epoch} a second time`)
        rule(
          !holders.has(`${group} ${key}`),
          () => `Assigned ${key}, which ${holders.get(`${group} ${key}`)} still held`
        )
        epochs.add(`${key}@${at.epoch}`)
        holders.set(`${group} ${key}`, reader)
        held.set(key, at)
      } else {
        rule(
          held.get(key)?.epoch === at.epoch,
          () => `${signal._tag} of ${key} epoch ${at.epoch}, which it did not hold`
        )
      }
    }
    if (signal._tag === "Records") {
      advance(signal)
    }
  }

  const advance = (signal: Extract<Signal, { readonly _tag: "Records" }>) => {
    const key = keyOf(signal.assignment)
    let position = positions.get(key)?.offset ?? 0n
    for (const { offset } of signal.records) {
      rule(offset >= position, () => `offset ${offset} of ${key} after position ${position}`)
      position = offset + 1n
    }
    rule(signal.nextOffset >= position, () => `nextOffset ${signal.nextOffset} of ${key} below ${position}`)
    positions.set(key, { ...signal.assignment, offset: signal.nextOffset })
  }

  /** A `Revoked` that was cut short has given nothing back; `Lost` follows. */
  const end = (signal: Signal, returned: boolean) => {
    for (const at of partitionsOf(signal)) {
      running.delete(keyOf(at))
      if (signal._tag === "Lost" || (signal._tag === "Revoked" && returned)) {
        held.delete(keyOf(at))
        holders.delete(`${group} ${keyOf(at)}`)
        positions.delete(keyOf(at))
      }
    }
  }

  /** The member leaves: its partitions are nobody's. */
  const leave = () => {
    for (const [key, holder] of holders) {
      if (holder === reader && key.startsWith(`${group} `)) {
        holders.delete(key)
      }
    }
  }

  return { held, positions, begin, end, leave }
}

const summary = (entries: ReadonlyArray<Entry>): string =>
  entries.slice(-12).map(({ at, reader, signal }) =>
    `${reader} ${at} ${signal._tag}(${
      signal._tag === "Records"
        ? `${keyOf(signal.assignment)} ${signal.records.length} to ${signal.nextOffset}`
        : signal.assignments.map((one) => `${keyOf(one)}@${one.epoch}`).join(" ")
    })`
  ).join(", ")

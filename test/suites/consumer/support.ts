/**
 * What the suites of the fronts share: topics, members, the ledger that
 * handlers write to, and logs that cases await.
 *
 * A log keeps everything in the order in which it came, repeats and all.
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import { Broker, BrokerError, type ConsumerRecord, type TopicPartition, Unreachable } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import type * as Event from "../../../src/Event.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import { partitionOf } from "../../../src/internal/wire/partitioner.ts"
import { MessageStore, parts } from "../../../src/MessageStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import * as Publisher from "../../../src/Publisher.ts"
import * as Topic from "../../../src/Topic.ts"
import { sendRecords } from "../broker/support.ts"
import { askUntil, freshName, within } from "../features.ts"
import type { Outside } from "./outside.ts"

/** Writes of handlers: lines on pages that take part in the store's transactions. */
export class Ledger extends Context.Service<Ledger, {
  /** Adds a line, within the transaction of the calling fiber if it is in one. */
  readonly write: (page: string, line: string) => Effect.Effect<void, unknown>
  /** The lines of a page that the calling fiber sees, in the order in which they were written, repeats and all. */
  readonly read: (page: string) => Effect.Effect<ReadonlyArray<string>, unknown>
}>()("effect-events/test/Ledger") {}

/** What the cases of the fronts run on. */
export type Services = Broker | MessageStore | Ledger | Outside

/** How the cases of the fronts make use of a Layer. */
export interface FrontFeatures {
  readonly clock: "live"
  /** How many events the large cases send. */
  readonly events: number
  /** How many members the large cases have. */
  readonly members: number
  /** Whether two transactions can be open at the same time. */
  readonly concurrentTransactions: boolean
  /** Whether cases that leave the store alone run at the same time: on a real broker they mostly wait. Default: no. */
  readonly concurrent?: boolean
  /** After how long in silence a member is taken for dead, in milliseconds. Default: the broker asks for no signs of life. */
  readonly sessionMillis?: number
  /** Whether a topic that is replaced leaves the others of its member alone. Default: yes. */
  readonly topicsApart?: boolean
  /** How many events the case about memory sends. Default: it is left out, since others use the same process. */
  readonly flood?: number
  readonly timeout?: number
}

/** Nobody reads what the engine says about thousands of failures on purpose. */
export const silent = Layer.succeed(References.MinimumLogLevel, "None")

// --- topics and events ---

export class Item extends Schema.Class<Item>("Item")({ key: Schema.String, n: Schema.Number }) {}

export type ItemTopic = Topic.Topic<typeof Item>

export const partitionsOf = (topic: ItemTopic): number => topic.create!.partitions!

export const itemTopic = (name: string, partitions: number): ItemTopic =>
  Topic.make(name, { schema: Item, key: (item) => item.key, create: { partitions } })

/** Makes sure that a topic exists. */
export const created = <S extends Schema.Constraint>(topic: Topic.Topic<S>) =>
  Effect.as(Broker.use((broker) => broker.ensureTopics([topic])), topic)

/** A topic of items that no other run uses, keyed by `key`. */
export const freshTopic = (partitions = 3) =>
  Effect.flatMap(freshName("front"), (name) => created(itemTopic(name, partitions)))

/** Part of the name of every group of this run. */
export const run = globalThis.crypto.randomUUID().slice(0, 8)

export const freshGroup = freshName(`group-${run}`)
export const freshPage = freshName("page")

/** Numbers from 0, as an array. */
export const upTo = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index)

/** Items whose keys take turns. */
export const items = (count: number, keys: number, from = 0): ReadonlyArray<Item> =>
  upTo(count).map((index) => new Item({ key: `key-${(from + index) % keys}`, n: from + index }))

export const publishAll = (topic: ItemTopic, all: ReadonlyArray<Item>) => Publisher.publishAll(topic, all)

/** A key whose events go to this one of `count` partitions. */
export const keyFor = (partition: number, count: number): string => {
  for (let i = 0;; i++) {
    if (partitionOf(`mark-${i}`, count) === partition) return `mark-${i}`
  }
}

/** `n` of the marks that `publishMarks` sends. */
export const markNumber = -1

/** Publishes one mark to each partition: what was published before lies before it. */
export const publishMarks = (topic: ItemTopic, n = markNumber) =>
  Publisher.publishAll(
    topic,
    upTo(partitionsOf(topic)).map((partition) => new Item({ key: keyFor(partition, partitionsOf(topic)), n }))
  )

// --- logs ---

export interface Log<A> {
  readonly all: ReadonlyArray<A>
  readonly add: (item: A) => Effect.Effect<void>
  /** Waits until the log satisfies a test, which is asked after each entry. */
  readonly until: (what: string, test: (all: ReadonlyArray<A>) => boolean) => Effect.Effect<void>
  /** Waits until so many entries are there. */
  readonly untilCount: (count: number) => Effect.Effect<void>
}

/** Bound of one wait. */
const patience = 120_000

export const makeLog = <A>(): Log<A> => {
  const all: Array<A> = []
  const waiting = new Set<
    { readonly test: (all: ReadonlyArray<A>) => boolean; readonly met: Deferred.Deferred<void> }
  >()
  const until = (what: string, test: (all: ReadonlyArray<A>) => boolean) =>
    Effect.suspend(() => {
      if (test(all)) return Effect.void
      const waiter = { test, met: Deferred.makeUnsafe<void>() }
      waiting.add(waiter)
      return within(
        Deferred.await(waiter.met),
        patience,
        () => `${what}; ${all.length} entries, the last ${JSON.stringify(all.slice(-8), printable)}`
      )
    })
  return {
    all,
    add: (item) =>
      Effect.sync(() => {
        all.push(item)
        for (const waiter of waiting) {
          if (waiter.test(all)) {
            waiting.delete(waiter)
            Deferred.doneUnsafe(waiter.met, Effect.void)
          }
        }
      }),
    until,
    untilCount: (count) => until(`${count} entries`, () => all.length >= count)
  }
}

const printable = (_: string, value: unknown) => typeof value === "bigint" ? String(value) : value

/** One call of a handler. */
export interface Call {
  readonly member: string
  readonly handler: string
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  readonly id: string
  readonly key: string | null
  readonly n: number
  readonly attempt: number
}

export const callOf = (event: Event.Event<Item>, member = "", handler = ""): Call => ({
  member,
  handler,
  topic: event.topic,
  partition: event.partition,
  offset: event.offset,
  id: event.id,
  key: event.key,
  n: event.payload.n,
  attempt: event.attempt
})

/** The numbers of calls, in order. */
export const numbers = (calls: ReadonlyArray<{ readonly n: number }>): ReadonlyArray<number> => calls.map(({ n }) => n)

/** Sorted, for comparing as multisets. */
export const ascending = (all: ReadonlyArray<number>): ReadonlyArray<number> => all.toSorted((a, b) => a - b)
export const alphabetical = (all: ReadonlyArray<string>): ReadonlyArray<string> => all.toSorted()

// --- members ---

/** Another process, as far as the library can tell: a service of its own on the same broker. */
export const anotherProcess: Effect.Effect<Broker["Service"], never, Broker> = Broker.use((broker) =>
  Effect.succeed(Broker.of({ ...broker }))
)

export interface Member {
  /** Stops it as a program would: gracefully, until it has left. */
  readonly stop: Effect.Effect<void>
}

/** Runs consumers as a process of its own; it stops with the scope, if not before. */
export const member = Effect.fnUntraced(function*<const C extends ReadonlyArray<Consumer.Any>>(
  group: string,
  consumers: C,
  options?: Consumer.GroupOptions & { readonly change?: (broker: Broker["Service"]) => Broker["Service"] }
) {
  const process = yield* anotherProcess
  const scope = yield* Scope.fork(yield* Effect.scope)
  yield* Layer.buildWithScope(Layer.fresh(Consumer.layer(group, consumers, options)), scope).pipe(
    Effect.provideService(Broker, options?.change?.(process) ?? process)
  )
  const running: Member = { stop: Scope.close(scope, Exit.void) }
  return running
})

/** A broker to which no commit gets through, as in a process that is killed before it commits. */
export const withoutCommits = (broker: Broker["Service"]): Broker["Service"] =>
  Broker.of({
    ...broker,
    subscribe: (options) =>
      Effect.map(broker.subscribe(options), (subscription) => ({
        ...subscription,
        commit: () =>
          Effect.fail(
            new BrokerError({
              reason: new Unreachable({ address: broker.address, tried: "committing", cause: new Error("killed") })
            })
          )
      }))
  })

// --- policies ---

/** Retries at once, so many times. */
export const retries = (times: number): Schedule.Schedule<unknown, unknown> => Schedule.recurs(times)

/** Tries again at once, for ever. */
export const blocking: FailurePolicy.FailurePolicy<unknown> = {
  ...FailurePolicy.block(),
  retry: Schedule.spaced("2 millis")
}

/** Gives up at the first failure. */
export const savingAtOnce: FailurePolicy.FailurePolicy<unknown> = { ...FailurePolicy.save(), retry: retries(0) }

// --- the outbox ---

const everyPart = upTo(parts) as unknown as readonly [number, ...Array<number>]

/** Runs a relay, as a process of its own, until nothing is left in the outbox. */
export const relayed = Effect.scoped(Effect.gen(function*() {
  const store = yield* MessageStore
  yield* relay()
  yield* askUntil(
    { clock: "live" },
    "the outbox is empty",
    store.outbox.read({ parts: everyPart, limit: 1 }),
    (rows) => rows.length === 0
  )
}))

/** Runs a relay as a process of its own; it stops with the scope, if not before. */
export const relay = Effect.fnUntraced(function*(
  options?: Outbox.RelayOptions & {
    readonly changeStore?: (store: MessageStore["Service"]) => MessageStore["Service"]
    readonly changeBroker?: (broker: Broker["Service"]) => Broker["Service"]
  }
) {
  const scope = yield* Scope.fork(yield* Effect.scope)
  const store = yield* MessageStore
  const process = yield* anotherProcess
  yield* Layer.buildWithScope(Layer.fresh(Outbox.layerRelay(options)), scope).pipe(
    Effect.provideService(Broker, options?.changeBroker?.(process) ?? process),
    Effect.provideService(MessageStore, options?.changeStore?.(store) ?? store)
  )
  const running: Member = { stop: Scope.close(scope, Exit.void) }
  return running
})

// --- looking into a topic ---

/**
 * All records of a topic, as they lie in the log now. Sends a mark to each
 * partition and reads up to it, so that "none" is known and not guessed. The
 * mark is no item: a consumer that reads the topic should have stopped.
 */
export const recordsOf = Effect.fnUntraced(function*(name: string, partitions: number) {
  const mark = yield* freshName(`mark-${run}`)
  for (const partition of upTo(partitions)) {
    yield* sendRecords(name, partition, [{ key: null, value: null, headers: { mark } }])
  }
  const found = makeLog<ConsumerRecord & TopicPartition>()
  // Counted as they come: a look at all of them with each new one takes minutes for a topic of 30,000.
  let marks = 0
  const broker = yield* Broker
  yield* Effect.scoped(Effect.gen(function*() {
    yield* broker.subscribe({
      group: mark,
      topics: [name],
      onSignal: (signal) =>
        signal._tag === "Records"
          ? Effect.forEach(signal.records, (record) => {
            if (headerText(record, "mark") === mark) marks++
            return found.add({ ...record, topic: name, partition: signal.assignment.partition })
          }, { discard: true })
          : Effect.void
    })
    yield* found.until("a mark in each partition", () => marks >= partitions)
  }))
  return found.all.filter((record) => headerText(record, "mark") === undefined)
})

const decoder = new TextDecoder()

export const text = (bytes: Uint8Array | null): string | null => bytes === null ? null : decoder.decode(bytes)

/** The first value of a header as text. */
export const headerText = (record: { readonly headers: ConsumerRecord["headers"] }, name: string) => {
  const value = record.headers[name]
  const first = Array.isArray(value) ? value[0] : value
  return first === undefined ? undefined : typeof first === "string" ? first : decoder.decode(first as Uint8Array)
}

/** The dead letters of a topic and group. */
export const deadLetters = (topic: ItemTopic, group: string) =>
  recordsOf(`${topic.name}.${group}.dead-letter`, partitionsOf(topic))

/**
 * The transactional outbox: events are written in the same database
 * transaction as the business data, and a relay sends them to the broker.
 *
 * Guarantee: once the transaction has committed, each of its events reaches
 * the log at least once; if it has not, none does. A crash of the relay
 * between the broker's acknowledgement and the delete sends up to one batch
 * again, with the same ids: `Consumer.exactlyOnce` recognises them. An event
 * that the broker refuses is kept aside (`parked`), and with it those of its
 * key that come after it.
 *
 * Order: events of one key reach the log in commit order, with any number of
 * relays, provided that transactions of one key are serialised: by a row lock,
 * an advisory lock, optimistic concurrency, or the option `serialize`. It does not matter where in the
 * transaction `publish` stands.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Broker, type BrokerError } from "./Broker.ts"
import * as Relay from "./internal/outbox/relay.ts"
import * as Tx from "./internal/transaction.ts"
import { messageKey } from "./internal/wire/messageId.ts"
import * as Outgoing from "./internal/wire/outgoing.ts"
import {
  MessageStore,
  type MessageStoreError,
  type OutboxRow,
  type Page,
  type PartOwner,
  type RowSelection,
  type StoredRow
} from "./MessageStore.ts"
import type * as Topic from "./Topic.ts"

export {
  /**
   * Evidence of a running transaction. `Outbox.publish` needs it;
   * `Outbox.transaction` and `exactlyOnce` handlers provide it.
   *
   * @category services
   * @since 0.1.0
   */
  Transaction
} from "./internal/transaction.ts"

/**
 * Runs an effect in a database transaction, and inserts the events that it
 * publishes just before the commit.
 *
 * **Details**
 *
 * The transaction is that of the `SqlClient` behind the store, so every
 * statement of the effect takes part. A failure, a defect or an interruption
 * rolls back both. It never retries by itself.
 *
 * Inside another `Outbox.transaction`, or an `exactlyOnce` handler, it is a
 * savepoint: when it fails and the failure is caught, exactly its own writes
 * and events are dropped. Inside a larger plain `sql.withTransaction` its
 * events are inserted at its own end, so locks taken after it do not order
 * them.
 *
 * **Gotchas**
 *
 * A fiber that publishes must not outlive the transaction: `publish` then
 * fails with reason `TransactionEnded`.
 *
 * **Example** (One row, one event, or neither)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { SqlClient } from "effect/sql"
 * import { Outbox, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 *
 * const placeOrder = (orderId: string) =>
 *   Effect.gen(function*() {
 *     const sql = yield* SqlClient.SqlClient
 *     yield* sql`INSERT INTO orders ${sql.insert({ id: orderId })}`
 *     yield* Outbox.publish(Orders, { orderId })
 *   }).pipe(Outbox.transaction)
 * ```
 *
 * @category transactions
 * @since 0.1.0
 */
export const transaction = <A, E, R>(
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | MessageStoreError, Exclude<R, Tx.Transaction> | MessageStore> =>
  Effect.flatMap(MessageStore, (store) => Tx.run(store, effect))

/**
 * Options of one `Outbox.publish`.
 *
 * @category options
 * @since 0.1.0
 */
export interface PublishOptions extends Outgoing.PublishOptions {
  /**
   * Not before this time, by the database's clock. Default: with the
   * transaction. An event that is scheduled takes its place in the order of its
   * key when it is due, not when it is published.
   */
  readonly deliverAt?: DateTime.DateTime | undefined
  /** The same, from now on. `deliverAt` goes before it. */
  readonly delay?: Duration.Input | undefined
  /**
   * Whether the transaction waits, just before it inserts its events, for
   * others that have published an event of the same topic and key with this
   * option, until they have committed or rolled back. For programs that have no
   * row per key to lock: without either, two transactions that run side by side
   * may be sent in another order than they committed. It does not order what
   * the transactions have read. Default: the topic's `serialize`, `false`.
   */
  readonly serialize?: boolean | undefined
}

/**
 * Publishes an event with the running transaction.
 *
 * **Details**
 *
 * Encodes, validates and checks the size at once: what cannot be sent fails
 * here with `PublishError`, inside the transaction, and never later in the
 * relay. Succeeds with the event's id.
 *
 * It does not compile outside of `Outbox.transaction` or an `exactlyOnce`
 * handler.
 *
 * @category publishing
 * @since 0.1.0
 */
export const publish = <S extends Schema.Constraint>(
  topic: Topic.Topic<S>,
  payload: Topic.Input<S>,
  options?: PublishOptions
): Effect.Effect<string, Outgoing.PublishError, Tx.Transaction | S["EncodingServices"]> =>
  Effect.flatMap(
    Outgoing.prepare(topic, payload, undefined, options),
    (message) =>
      Effect.flatMap(dueOf(options), (dueMillis) =>
        Effect.as(
          Tx.Transaction.use((transaction) =>
            transaction.add([{ ...message, dueMillis, serialize: options?.serialize ?? topic.serialize }])
          ),
          message.id
        ))
  )

/** When an event is due; `undefined`: with its transaction. */
const dueOf = (options: PublishOptions | undefined): Effect.Effect<number | undefined> => {
  if (options?.deliverAt !== undefined) return Effect.succeed(DateTime.toEpochMillis(options.deliverAt))
  const { delay } = options ?? {}
  return delay === undefined
    ? Effect.undefined
    : Effect.map(Clock.currentTimeMillis, (now) => now + Duration.toMillis(Duration.fromInputUnsafe(delay)))
}

/**
 * Publishes events of one topic with the running transaction, in order.
 * Succeeds with their ids.
 *
 * @category publishing
 * @since 0.1.0
 */
export const publishAll = <S extends Schema.Constraint>(
  topic: Topic.Topic<S>,
  payloads: ReadonlyArray<Topic.Input<S>>,
  options?: Pick<PublishOptions, "headers" | "cause" | "serialize">
): Effect.Effect<Array<string>, Outgoing.PublishError, Tx.Transaction | S["EncodingServices"]> =>
  Effect.flatMap(Outgoing.prepareAll(topic, payloads, undefined, options), (messages) =>
    Effect.as(
      Tx.Transaction.use((transaction) => {
        const serialize = options?.serialize ?? topic.serialize
        return transaction.add(serialize ? messages.map((message) => ({ ...message, serialize })) : messages)
      }),
      messages.map((message) => message.id)
    ))

/**
 * An event that the broker refuses, or that waits behind such a one of its key.
 *
 * @category models
 * @since 0.1.0
 */
export interface Parked {
  /** The event's id. */
  readonly id: string
  readonly topic: string
  readonly key: string | null
  readonly headers: { readonly [name: string]: string }
  readonly payload: Uint8Array | null
  /** Why the broker refuses it; `null`: it waits behind another. */
  readonly reason: string | null
  readonly parkedAt: Date
}

/**
 * Which events are meant: those that agree with all that is given.
 *
 * @category options
 * @since 0.1.0
 */
export interface Filter {
  readonly id?: string | undefined
  readonly topic?: string | undefined
  readonly key?: string | undefined
}

const selectionOf = ({ id, key, topic }: Filter): RowSelection => ({
  messageKey: id === undefined ? undefined : messageKey({ id, source: "" }),
  key,
  topic
})

/** Rows that one read of a listing takes. */
const listChunk = 200

/** All rows of a listing, page by page. */
const pages = <Row extends StoredRow>(
  filter: Filter,
  page: (store: MessageStore["Service"], page: Page) => Effect.Effect<ReadonlyArray<Row>, MessageStoreError>
): Stream.Stream<Row, MessageStoreError, MessageStore> =>
  Stream.unwrap(Effect.map(MessageStore, (store) =>
    Stream.paginate(
      undefined as Row | undefined,
      (after) =>
        Effect.map(
          page(store, { selection: selectionOf(filter), after, limit: listChunk }),
          (rows) => [rows, rows.length < listChunk ? Option.none() : Option.some(rows.at(-1))] as const
        )
    )))

const eventOf = ({ headers, key, messageKey, payload, topic }: OutboxRow) => ({
  id: headers.ce_id ?? messageKey,
  topic,
  key,
  headers,
  payload
})

const list = (filter: Filter = {}): Stream.Stream<Parked, MessageStoreError, MessageStore> =>
  Stream.map(
    pages(filter, (store, page) => store.outbox.parked.list(page)),
    (row): Parked => ({ ...eventOf(row), reason: row.reason, parkedAt: row.parkedAt })
  )

const release = (filter: Filter = {}): Effect.Effect<number, MessageStoreError, MessageStore> =>
  Effect.flatMap(MessageStore, (store) =>
    store.transaction(Effect.zipWith(
      store.outbox.parked.release(selectionOf(filter)),
      store.outbox.parked.free,
      (refused, behind) => refused + behind
    )))

const edit = <S extends Schema.Constraint>(
  topic: Topic.Topic<S>,
  id: string,
  payload: Topic.Input<S>
): Effect.Effect<boolean, Outgoing.PublishError | MessageStoreError, MessageStore | S["EncodingServices"]> =>
  Effect.flatMap(
    Outgoing.prepare(topic, payload, undefined),
    ({ value }) => MessageStore.use((store) => store.outbox.parked.edit(messageKey({ id, source: "" }), value))
  )

const drop = (filter: Filter): Effect.Effect<number, MessageStoreError, MessageStore> =>
  Effect.flatMap(
    MessageStore,
    (store) =>
      store.transaction(Effect.tap(store.outbox.parked.drop(selectionOf(filter)), () => store.outbox.parked.free))
  )

/**
 * Events that the broker refuses, taken out of the outbox so that others go
 * on.
 *
 * **Details**
 *
 * The relay parks an event that is too large or that the broker refuses for
 * good at once, and one whose topic is missing or denied after `patience` (5
 * minutes). Later events of its topic and key are parked behind it, so that
 * none overtakes it; events of other keys, and those without a key, go on. An
 * Error line per topic says how many were parked, and why. While no broker
 * answers nothing is parked.
 *
 * - `list`: all of them, or some, as a stream, in the order in which they would
 *   be sent.
 * - `release`: sends refused ones again, and those behind them after them. One
 *   that is refused again is parked again. Returns how many events go.
 * - `edit`: gives an event another payload, checked against the topic's schema
 *   and size; `release` it then. Its key stays. Returns whether it is there.
 * - `drop`: removes events for good; those behind them go. Returns how many.
 *
 * **Example** (Raising a limit, and trying again)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Outbox } from "effect-events"
 *
 * const show = Outbox.parked.list({ topic: "orders.placed" }).pipe(
 *   Stream.runForEach(({ id, key, reason }) => Effect.log(id, { key, reason }))
 * )
 * const again = Outbox.parked.release({ topic: "orders.placed" })
 * ```
 *
 * @category parking
 * @since 0.1.0
 */
export const parked = { list, release, edit, drop } as const

/**
 * An event that was sent, and is kept.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sent {
  /** The event's id. */
  readonly id: string
  readonly topic: string
  readonly key: string | null
  readonly headers: { readonly [name: string]: string }
  readonly payload: Uint8Array | null
  readonly sentAt: Date
}

/**
 * The events that were sent, for audits, in the order of each key.
 *
 * **When to use**
 *
 * With relays that keep them: `Outbox.layerRelay({ keep: "30 days" })`. The
 * table (`effect_events_sent`) is as good a source for SQL of your own.
 *
 * **Gotchas**
 *
 * It reads through all that is kept; there is no index on ids or keys.
 *
 * **Example** (What was sent of an order)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { Outbox } from "effect-events"
 *
 * const audit = Outbox.sent({ topic: "orders.placed", key: "order-1" }).pipe(
 *   Stream.runForEach(({ id, sentAt }) => Effect.log(id, { sentAt }))
 * )
 * ```
 *
 * @category state
 * @since 0.1.0
 */
export const sent = (filter: Filter = {}): Stream.Stream<Sent, MessageStoreError, MessageStore> =>
  Stream.map(
    pages(filter, (store, page) => store.outbox.sent.list(page)),
    (row): Sent => ({ ...eventOf(row), sentAt: row.sentAt })
  )

/**
 * An event that waits for its time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Scheduled {
  /** The event's id. */
  readonly id: string
  readonly topic: string
  readonly key: string | null
  readonly headers: { readonly [name: string]: string }
  readonly payload: Uint8Array | null
  readonly dueAt: DateTime.Utc
}

/**
 * Events that were published with `deliverAt` or `delay`, and wait for it.
 *
 * **Details**
 *
 * A relay moves them into the outbox within a second of their time, those that
 * are due together in the order in which they are due; while no relay runs they
 * wait.
 *
 * - `list`: the next ones, at most `limit` (100), of one topic or of all.
 * - `cancel`: removes one by its id; within `Outbox.transaction` together with
 *   its other writes. Returns whether it was still there.
 *
 * **Example** (A reminder, unless the order is paid)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Outbox, Topic } from "effect-events"
 *
 * const Reminders = Topic.make("reminders", { schema: Schema.Struct({ orderId: Schema.String }) })
 *
 * const remind = (orderId: string) =>
 *   Outbox.publish(Reminders, { orderId }, { id: `reminder-${orderId}`, delay: "3 days" }).pipe(Outbox.transaction)
 *
 * const paid = (orderId: string) => Outbox.scheduled.cancel(`reminder-${orderId}`)
 * ```
 *
 * @category scheduling
 * @since 0.1.0
 */
export const scheduled = {
  list: (
    options: { readonly topic?: string | undefined; readonly limit?: number | undefined } = {}
  ): Effect.Effect<ReadonlyArray<Scheduled>, MessageStoreError, MessageStore> =>
    Effect.flatMap(
      MessageStore,
      (store) =>
        Effect.map(store.outbox.scheduled.list({ topic: options.topic, limit: options.limit ?? 100 }), (rows) =>
          rows.map((row): Scheduled => ({ ...eventOf(row), dueAt: DateTime.makeUnsafe(row.dueMillis) })))
    ),
  cancel: (id: string): Effect.Effect<boolean, MessageStoreError, MessageStore> =>
    MessageStore.use((store) => store.outbox.scheduled.cancel(messageKey({ id, source: "" })))
} as const

/**
 * How the outbox stands.
 *
 * @category models
 * @since 0.1.0
 */
export interface State {
  /** Events to be sent. */
  readonly waiting: number
  /** For how long the oldest of them has waited; `undefined` without any. */
  readonly oldest: Duration.Duration | undefined
  /** Events that were taken out, as refused or behind a refused one. */
  readonly parked: number
  /** Events whose time has not come. */
  readonly scheduled: number
  /** The parts of the outbox in order, and which relay sends each; `undefined`: none, at the moment. */
  readonly parts: ReadonlyArray<PartOwner>
}

/**
 * How the outbox stands, for probes, dashboards and tools: alert on `oldest`,
 * which grows while the broker or all relays are away.
 *
 * **Gotchas**
 *
 * It counts rows: some milliseconds for thousands, and the longer the more wait.
 *
 * **Example** (A line per minute)
 *
 * ```ts
 * import { Effect, Schedule } from "effect"
 * import { Outbox } from "effect-events"
 *
 * const report = Outbox.state.pipe(
 *   Effect.flatMap(({ oldest, parked, waiting }) => Effect.log("outbox", { waiting, oldest, parked })),
 *   Effect.repeat(Schedule.spaced("1 minute"))
 * )
 * ```
 *
 * @category state
 * @since 0.1.0
 */
export const state: Effect.Effect<State, MessageStoreError, MessageStore> = MessageStore.use(({ leases, outbox }) =>
  Effect.zipWith(outbox.counts, leases.owners, ({ oldestMillis, parked, scheduled, waiting }, parts): State => ({
    waiting,
    oldest: oldestMillis === undefined ? undefined : Duration.millis(oldestMillis),
    parked,
    scheduled,
    parts
  }))
)

/**
 * Options of the relay.
 *
 * @category options
 * @since 0.1.0
 */
export interface RelayOptions {
  /**
   * How long a part stays with an instance that no longer answers. Renewed at
   * a third of it. Default: 15 seconds; at least 1.
   */
  readonly lease?: Duration.Input | undefined
  /**
   * Most rows per batch, of which up to four are under way. Where rows are
   * large, fewer: as many as fit into 8 MiB, judged by those before. Default:
   * 500; at least 1.
   */
  readonly batchSize?: number | undefined
  /**
   * How long events wait whose topic is missing, or may not be written to,
   * before they are parked. Counted by each relay from the first refusal.
   * Default: 5 minutes.
   */
  readonly patience?: Duration.Input | undefined
  /**
   * For how long events are kept that were sent, in a table beside the outbox,
   * for audits: `Outbox.sent`. Each relay forgets once a minute what is older
   * than its own `keep`. Default: not at all.
   */
  readonly keep?: Duration.Input | undefined
}

/**
 * Runs a relay for as long as the Layer lives.
 *
 * **When to use**
 *
 * Provide it in at least one process of the service; in every one is fine:
 * instances share the outbox evenly and take over from the dead after `lease`.
 *
 * **Details**
 *
 * The Layer fails to build if broker or database do not answer at start.
 * Later outages are survived: rows wait, the business is not affected, and the
 * backlog leaves in order afterwards. When the Layer closes, the batch in
 * flight is finished and the parts are handed over.
 *
 * A process that was frozen past its lease can send at most the requests that
 * had left before, one per partition; consumers may then see those events once
 * more, behind newer ones.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerRelay = (
  options?: RelayOptions
): Layer.Layer<never, BrokerError | MessageStoreError, Broker | MessageStore> =>
  Layer.effectDiscard(Effect.gen(function*() {
    const broker = yield* Broker
    const store = yield* MessageStore
    const lease = Duration.max(Duration.fromInputUnsafe(options?.lease ?? "15 seconds"), Duration.seconds(1))
    yield* Relay.start({
      broker,
      store,
      settings: {
        lease,
        batchSize: Math.max(1, Math.floor(options?.batchSize ?? 500)),
        patience: Duration.fromInputUnsafe(options?.patience ?? "5 minutes"),
        keep: options?.keep === undefined ? undefined : Duration.fromInputUnsafe(options.keep)
      }
    })
  }))

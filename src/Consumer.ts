/**
 * Consumers: one line each, in one of three modes.
 *
 * | | loses | duplicates | order |
 * | --- | --- | --- | --- |
 * | `idempotent` | never, under the policies `save`, `retryLater` and `block` | possible after a crash or rebalance | by `ordering` |
 * | `exactlyOnce` | never, under the same policies | no effect twice within the inbox's retention | by `ordering` |
 * | `broadcast` | nothing published after start, while the process lives | possible on reconnect | by `ordering` |
 *
 * `exactlyOnce` means: the handler's writes commit in the same database
 * transaction that records the message as processed; a message that is
 * delivered again is recognised and skipped. Effects outside that database may
 * happen again.
 *
 * A consumer is an Effect: `yield*` it, and it consumes until interrupted.
 * Interrupting it stops gracefully: what runs is finished, committed, and the
 * group is left.
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Effectable from "effect/Effectable"
import * as Layer from "effect/Layer"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Semaphore from "effect/Semaphore"
import * as Batching from "./Batching.ts"
import type { Broker } from "./Broker.ts"
import { ConsumerGroup } from "./ConsumerGroup.ts"
import type * as Event from "./Event.ts"
import * as FailurePolicy from "./FailurePolicy.ts"
import type { ConsumerError, Definition, Mode } from "./internal/consumer/definition.ts"
import type { Ordering } from "./internal/consumer/order/lanes.ts"
import * as Settings from "./internal/consumer/settings.ts"
import * as Start from "./internal/consumer/start.ts"
import * as Supervise from "./internal/consumer/supervise.ts"
import type { Transaction } from "./internal/transaction.ts"
import type { MessageStore } from "./MessageStore.ts"
import type * as Topic from "./Topic.ts"

export {
  ConsumerError,
  ConsumerErrorReason,
  DuplicateHandler,
  InvalidName,
  InvalidOption,
  OtherDatabase
} from "./internal/consumer/definition.ts"
export { HandlerTimeout } from "./internal/consumer/failure/attempt.ts"
export { Undecodable } from "./internal/consumer/run/decode.ts"
export { commit, type Committable, stream, type StreamOptions } from "./internal/consumer/stream.ts"

const TypeId = "~effect-events/Consumer" as const

/**
 * A consumer: an Effect that consumes until interrupted, and a value that
 * `Consumer.layer` and `Consumer.all` combine with others of its group.
 *
 * @category models
 * @since 0.1.0
 */
export interface Consumer<out R> extends Effect.Effect<never, ConsumerError, R> {
  readonly [TypeId]: typeof TypeId
  readonly topic: string
  /** The handler's name: the topic's, unless one was given. */
  readonly name: string
}

/**
 * Any consumer.
 *
 * @category models
 * @since 0.1.0
 */
export type Any = Consumer<never> | Consumer<unknown>

/**
 * Options of a consumer whose handler fails with `E`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<in E> {
  /**
   * Name of the handler: it is part of the inbox's keys and of dead letters,
   * so keep it. Needed when one group has two handlers for one topic. Default:
   * the topic's name.
   */
  readonly name?: string | undefined
  /** What happens when the handler fails. Default: `FailurePolicy.save()`; broadcast: `FailurePolicy.discard()`. */
  readonly onFailure?: FailurePolicy.FailurePolicy<E> | undefined
  /**
   * Which events run one after another: those of one `"key"` (events without a
   * key run freely), all of one `"partition"`, or none (`"unordered"`).
   * Default: `"key"`.
   */
  readonly ordering?: Ordering | undefined
  /**
   * How many handlers run at once; or a `Semaphore`, to share the limit or to
   * resize it while running. Default: 16; batch forms: 3.
   */
  readonly concurrency?: number | Semaphore.Semaphore | undefined
}

/**
 * Options of a batch consumer.
 *
 * @category options
 * @since 0.1.0
 */
export interface BatchOptions<in E> extends Options<E> {
  /**
   * Limits of a batch. Default: 100 events, 1 MiB, and no waiting. `minSize` and
   * `maxWait` are for handlers of batches; group commit never waits.
   */
  readonly batch?: Batching.Options | undefined
}

/**
 * Options of an `exactlyOnce` consumer of single events.
 *
 * @category options
 * @since 0.1.0
 */
export interface ExactlyOnceOptions<in E> extends BatchOptions<E> {
  /**
   * `"group"`: while all slots are busy, events that piled up share a
   * transaction, as many as fit into about 50 ms, within the limits of
   * `batch`. When one fails, the transaction rolls back and the others run
   * again without it: a handler may run more often than its event is applied.
   * `"event"`: one transaction each, for handlers with effects outside of the
   * database, which would be repeated. Default: `"group"`.
   */
  readonly commit?: "group" | "event" | undefined
}

/**
 * Settings of consumers that start together.
 *
 * @category options
 * @since 0.1.0
 */
export type GroupOptions = Settings.Options

type Handle<S extends Schema.Constraint, E, R> = (event: Event.Event<S["Type"]>) => Effect.Effect<unknown, E, R>

type HandleBatch<S extends Schema.Constraint, E, R> = (
  events: Arr.NonEmptyReadonlyArray<Event.Event<S["Type"]>>
) => Effect.Effect<unknown, E, R>

/** A failure that names its culprits reaches the policy as the error within. */
type Judged<E> = E extends Batching.Failed<infer Inner> ? Inner : E

type Idempotent<S extends Schema.Constraint, R> = Consumer<
  Exclude<R, Scope.Scope> | S["DecodingServices"] | ConsumerGroup | Broker
>

type ExactlyOnce<S extends Schema.Constraint, R> = Consumer<
  Exclude<R, Scope.Scope | Transaction> | S["DecodingServices"] | ConsumerGroup | Broker | MessageStore
>

type Broadcast<S extends Schema.Constraint, R> = Consumer<Exclude<R, Scope.Scope> | S["DecodingServices"] | Broker>

class ConsumerImpl extends Effectable.Class<never, ConsumerError, Broker> implements Consumer<Broker> {
  readonly [TypeId] = TypeId
  readonly definition: Definition
  constructor(definition: Definition) {
    super()
    this.definition = definition
  }
  get topic() {
    return this.definition.topic.name
  }
  get name() {
    return this.definition.name
  }
  override asEffect() {
    return runAll([this.definition], undefined)
  }
}

const defaultConcurrency = 16
const defaultBatchConcurrency = 3

const define = <R>(
  mode: Mode,
  topic: unknown,
  handle: unknown,
  options: ExactlyOnceOptions<never> | undefined,
  batch: Batching.Limits | undefined
): Consumer<R> => {
  const named = options?.name !== undefined
  const definition: Definition = {
    mode,
    topic: topic as Topic.Any,
    name: options?.name ?? (topic as Topic.Any).name,
    named,
    policy: (options?.onFailure as FailurePolicy.FailurePolicy<unknown> | undefined) ??
      (mode === "broadcast" ? FailurePolicy.discard() : FailurePolicy.save()),
    ordering: options?.ordering ?? "key",
    concurrency: options?.concurrency ?? (batch === undefined ? defaultConcurrency : defaultBatchConcurrency),
    batch,
    group: mode === "exactlyOnce" && batch === undefined && options?.commit !== "event"
      ? Batching.limits(options?.batch)
      : undefined,
    handle: (batch === undefined
      ? (events: Parameters<Definition["handle"]>[0]) => (handle as (event: unknown) => unknown)(events[0])
      : handle) as Definition["handle"]
  }
  return new ConsumerImpl(definition) as unknown as Consumer<R>
}

/**
 * Consumes events whose handler may safely run again for the same event.
 *
 * **Details**
 *
 * At-least-once: an event is marked as done after its handler has succeeded,
 * or its failure policy is through. After a crash, or a rebalance that a
 * handler outlived, it runs again.
 *
 * Each attempt has its own `Scope`. With two arguments every option has a safe
 * default.
 *
 * **Example** (A notifier that never gives up)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, FailurePolicy, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 *
 * const Notify = Consumer.idempotent(Orders, (event) => Effect.log("placed", event.payload.orderId), {
 *   name: "notify",
 *   onFailure: FailurePolicy.block()
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const idempotent = <S extends Schema.Constraint, E, R>(
  topic: Topic.Topic<S>,
  handler: Handle<S, E, R>,
  options?: Options<E>
): Idempotent<S, R> => define("idempotent", topic, handler, options as Options<never>, undefined)

/**
 * `idempotent` for handlers of batches.
 *
 * **Details**
 *
 * While slots are free an event is handed over at once, alone; when all are
 * busy, what piled up goes together; `minSize` makes batches wait for more.
 * `Batching.Closed` tells the handler why its batch closed. Two batches that run
 * at the same time never share a key under key ordering.
 *
 * A handler may name the events at fault with `Batching.failed`. A batch that
 * fails otherwise is halved until the event at fault stands alone; the others
 * are applied. If both halves fail, the cause is common: they back off together,
 * and come back in parts of half the size. Only an event that has failed alone,
 * or was named, is given up on.
 *
 * @category constructors
 * @since 0.1.0
 */
export const idempotentBatch = <S extends Schema.Constraint, E, R>(
  topic: Topic.Topic<S>,
  handler: HandleBatch<S, E, R>,
  options?: BatchOptions<Judged<E>>
): Idempotent<S, R> => define("idempotent", topic, handler, options as Options<never>, Batching.limits(options?.batch))

/**
 * Consumes events with effects in the database, each applied once.
 *
 * **Details**
 *
 * The handler's statements, the events it publishes with `Outbox.publish`, and
 * the mark that its message is processed commit in one transaction. A message
 * that comes again (after a crash, a rebalance, or because it was published
 * twice with one id) is recognised and skipped, within the inbox's retention
 * of 7 days.
 *
 * Deadlocks and serialization failures run the transaction again and do not
 * count as attempts. While the database cannot be reached, events wait.
 *
 * While all slots are busy, events that piled up share a transaction (group
 * commit), which is several times faster than one each; see the option
 * `commit`.
 *
 * **Gotchas**
 *
 * The guarantee holds for statements of the client that the store was built
 * on. A consumer whose context has another `SqlClient` does not start
 * (`OtherDatabase`); one that a handler is given inside, by
 * `Effect.provide`, or a connection of its own, cannot be seen.
 *
 * Effects outside the database (mails, HTTP calls, in-memory state) are not
 * part of the transaction, and may happen again: after a crash, and under group
 * commit also when another event of the group fails; `commit: "event"` takes
 * the second reason away. Fibers that outlive the handler are outside of it.
 *
 * **Example** (An invoice per order)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { SqlClient } from "effect/sql"
 * import { Consumer, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 *
 * const IssueInvoice = Consumer.exactlyOnce(Orders, (event) =>
 *   Effect.gen(function*() {
 *     const sql = yield* SqlClient.SqlClient
 *     yield* sql`INSERT INTO invoices ${sql.insert({ order_id: event.payload.orderId })}`
 *   }), { name: "issue-invoice" })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const exactlyOnce = <S extends Schema.Constraint, E, R>(
  topic: Topic.Topic<S>,
  handler: Handle<S, E, R>,
  options?: ExactlyOnceOptions<E>
): ExactlyOnce<S, R> => define("exactlyOnce", topic, handler, options as Options<never>, undefined)

/**
 * `exactlyOnce` for handlers of batches: one transaction per batch, which is
 * by far the largest lever on throughput.
 *
 * **Details**
 *
 * The handler gets only events that were not applied before. Batches form as
 * for `idempotentBatch`. What such a handler publishes names its cause only if
 * it says `{ cause: event }`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const exactlyOnceBatch = <S extends Schema.Constraint, E, R>(
  topic: Topic.Topic<S>,
  handler: HandleBatch<S, E, R>,
  options?: BatchOptions<Judged<E>>
): ExactlyOnce<S, R> =>
  define("exactlyOnce", topic, handler, options as Options<never>, Batching.limits(options?.batch))

/**
 * Shows every event that is published after the start to every running
 * instance.
 *
 * **Details**
 *
 * Joins no group and leaves nothing behind on the broker. Positions are kept
 * in memory, so a reconnect resumes without a gap; a restart begins at the
 * end. What fails for good is discarded, with an Error log.
 *
 * @category constructors
 * @since 0.1.0
 */
export const broadcast = <S extends Schema.Constraint, E, R>(
  topic: Topic.Topic<S>,
  handler: Handle<S, E, R>,
  options?: Options<E>
): Broadcast<S, R> => define("broadcast", topic, handler, options as Options<never>, undefined)

/**
 * `broadcast` for handlers of batches.
 *
 * @category constructors
 * @since 0.1.0
 */
export const broadcastBatch = <S extends Schema.Constraint, E, R>(
  topic: Topic.Topic<S>,
  handler: HandleBatch<S, E, R>,
  options?: BatchOptions<Judged<E>>
): Broadcast<S, R> => define("broadcast", topic, handler, options as Options<never>, Batching.limits(options?.batch))

const runAll = (
  definitions: ReadonlyArray<Definition>,
  options: GroupOptions | undefined
): Effect.Effect<never, ConsumerError, Broker> =>
  Effect.scoped(
    Effect.withFiber((fiber) => {
      // Broadcast consumers run without a group.
      const group = Context.getOrUndefined(fiber.context, ConsumerGroup)?.name ?? ""
      return Effect.flatMap(Start.start(definitions, group, options), ({ failed }) => failed)
    })
  )

const definitionsOf = (consumers: ReadonlyArray<Any>): ReadonlyArray<Definition> =>
  consumers.map((consumer) => (consumer as unknown as ConsumerImpl).definition)

/**
 * Several consumers as one: the group is joined once, and two consumers of one
 * topic both see every event.
 *
 * **Details**
 *
 * Fails when one of them cannot go on; `Consumer.layer` starts again instead.
 *
 * @category combinators
 * @since 0.1.0
 */
export const all = <const C extends ReadonlyArray<Any>>(
  consumers: C,
  options?: GroupOptions
): Effect.Effect<never, ConsumerError, Effect.Services<C[number]>> =>
  runAll(definitionsOf(consumers), options) as Effect.Effect<never, ConsumerError, Effect.Services<C[number]>>

/**
 * Names the group in which consumers consume.
 *
 * **Example** (Running one consumer)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 * const Log = Consumer.idempotent(Orders, (event) => Effect.log(event.payload.orderId))
 *
 * const program = Log.pipe(Consumer.inGroup("audit"))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const inGroup =
  (name: string) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, Exclude<R, ConsumerGroup>> =>
    Effect.provideService(effect, ConsumerGroup, { name })

/**
 * Bounds how many handlers of all consumers run at once in this process.
 *
 * **Details**
 *
 * Provide one such Layer to all of them. A handler needs a permit of its own
 * limit, of its group's and of this one, in this order; idle ones hold none. So
 * that nobody starves, a worker gives its permits back after 64 events or 100 ms
 * of single events, or one batch. A `Semaphore` can be resized while running.
 *
 * Fails with `InvalidOption` if `concurrency` is no whole number above 0.
 *
 * **Example** (A hundred handlers at once)
 *
 * ```ts
 * import { Effect, Layer, Schema } from "effect"
 * import { Consumer, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 * const Bill = Consumer.idempotent(Orders, (event) => Effect.log("bill", event.payload.orderId))
 * const Ship = Consumer.idempotent(Orders, (event) => Effect.log("ship", event.payload.orderId))
 *
 * const Consumers = Layer.mergeAll(
 *   Consumer.layer("billing", [Bill], { concurrency: 60 }),
 *   Consumer.layer("shipping", [Ship])
 * ).pipe(Layer.provide(Consumer.layerProcessLimit(100)))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerProcessLimit = (concurrency: number | Semaphore.Semaphore): Layer.Layer<never, ConsumerError> =>
  Layer.effect(Settings.ProcessLimit, Settings.processLimit(concurrency))

/**
 * Runs consumers for as long as the Layer lives.
 *
 * **Details**
 *
 * Built once topics are validated and the group is joined (broadcast: start
 * positions known), also when no partition was assigned. What can be known at
 * start fails the build: an unreachable broker, a missing topic, two handlers
 * of one topic without names. Afterwards it never ends in silence: what cannot
 * go on starts again, after 1 s, doubling to 30 s, each time with an Error log,
 * and `Health` says so meanwhile, and until it has run for 5 s. That is so also
 * for what cannot work by itself, such as a login or a right that was taken
 * away: somebody gives it back, and the consumers go on.
 *
 * Closing the Layer stops gracefully.
 *
 * **Example** (Two consumers of one group)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 * const Bill = Consumer.idempotent(Orders, (event) => Effect.log("bill", event.payload.orderId), { name: "bill" })
 * const Ship = Consumer.idempotent(Orders, (event) => Effect.log("ship", event.payload.orderId), { name: "ship" })
 *
 * const Consumers = Consumer.layer("back-office", [Bill, Ship])
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <const C extends ReadonlyArray<Any>>(
  group: string,
  consumers: C,
  options?: GroupOptions
): Layer.Layer<never, ConsumerError, Exclude<Effect.Services<C[number]>, ConsumerGroup>> =>
  Layer.effectDiscard(
    Supervise.supervise(group, Start.start(definitionsOf(consumers), group, options))
  ) as Layer.Layer<never, ConsumerError, Exclude<Effect.Services<C[number]>, ConsumerGroup>>

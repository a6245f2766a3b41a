/**
 * Subscriptions that come and go while the program runs: each gives one caller,
 * for example a WebSocket connection, a `Stream` of what is published from now
 * on.
 *
 * All subscriptions of a topic share one reader per broker, so the ten
 * thousandth costs a look-up in a `Map` and a buffer. No group is joined and
 * nothing is left behind in Kafka. For a handler that runs as long as the
 * program there is `Consumer.broadcast`.
 *
 * What is promised, and when:
 *
 * - Once `subscribe` has returned, every event published later reaches the
 *   subscription, over reconnects and broker restarts and from partitions that
 *   are added, for as long as the process lives; unless its buffer overflows
 *   (`strategy`), the record does not decode, or the reader breaks down. An
 *   event published shortly before may be seen, too.
 * - Events of one key, and of one partition, arrive in order. An event may come
 *   twice after a reconnect.
 * - A slow subscription loses its own events and never holds up another.
 * - A record that does not decode is skipped: counted in `status`, and told of
 *   in a Warn line, at most once a minute.
 * - When the reader cannot go on, for example because the topic was deleted, it
 *   starts again after 1 s, doubling to 30 s, with an Error log and `Health`.
 *   It starts at the end: what was published meanwhile is missing from every
 *   subscription. Those with the strategy `"fail"` end with the reason, the
 *   others go on and count it in `restarts`.
 * - The reader starts with the first subscription and ends one minute after the
 *   last has left, or with the broker's Layer.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Broker } from "./Broker.ts"
import type * as Event from "./Event.ts"
import { BroadcastError, InvalidSubscription } from "./internal/broadcast/errors.ts"
import * as Hubs from "./internal/broadcast/hubs.ts"
import { makeBuffer, type Settings, Subscriber } from "./internal/broadcast/subscriber.ts"
import type * as Topic from "./Topic.ts"

export {
  BroadcastError,
  BroadcastErrorReason,
  InvalidSubscription,
  SubscriberTooSlow
} from "./internal/broadcast/errors.ts"

/**
 * What becomes of an event for which a subscription's buffer has no room.
 *
 * **Details**
 *
 * - `"sliding"`: the oldest waiting event is lost. For views that care about
 *   the newest state.
 * - `"dropping"`: the new event is lost.
 * - `"fail"`: the stream gives what is buffered and then fails with
 *   `SubscriberTooSlow`, so what came before is known to be complete. For those
 *   who load the present state and subscribe again.
 *
 * @category options
 * @since 0.1.0
 */
export type Strategy = "sliding" | "dropping" | "fail"

/**
 * Options of `subscribe`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<A, S extends Strategy = Strategy> {
  /** Only events with this key. Costs one look-up per event for all subscriptions together. Default: all events. */
  readonly key?: string | undefined
  /**
   * Only events for which this is true. Called for each event (of the key), in
   * the reader that all share: keep it cheap. If it throws, the stream of this
   * subscription dies with that. Default: none.
   */
  readonly filter?: ((event: Event.Event<A>) => boolean) | undefined
  /**
   * Events that may wait for this subscription, beside the chunk that its
   * stream has taken already. Hold a burst in it. Events are shared, so a
   * buffer costs a reference for each. Default: 1,024.
   */
  readonly buffer?: number | undefined
  /** What happens to events for which there is no room. Default: `"sliding"`. */
  readonly strategy?: S | undefined
}

/**
 * How a subscription is doing.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status {
  /** Events that wait in its buffer. */
  readonly waiting: number
  /** Events that were lost because the buffer was full. */
  readonly lost: number
  /** Records of its key that did not decode; also those that its `filter` might not have wanted. */
  readonly undecodable: number
  /** How often the reader broke down; each time, what was published until it ran again is missing. */
  readonly restarts: number
}

/**
 * A running subscription: a stream of events to be run once, and how it is
 * doing. It ends when the scope of `subscribe` closes.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subscription<out A, out E = never> extends Stream.Stream<Event.Event<A>, E> {
  readonly status: Effect.Effect<Status>
}

const defaultBuffer = 1_024

/**
 * Subscribes to what is published from now on, until the scope closes.
 *
 * **Details**
 *
 * Returns once the subscription is in force: see the top of this module for
 * what it promises. The stream fails only under the strategy `"fail"`.
 *
 * Fails with reason `BrokerError` when the topic cannot be read, and
 * `InvalidSubscription` when `buffer` is no positive whole number.
 *
 * **Example** (A server-sent stream for one customer)
 *
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Broadcast, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", {
 *   schema: Schema.Struct({ orderId: Schema.String, customer: Schema.String }),
 *   key: (order) => order.customer
 * })
 *
 * const linesFor = (customer: string) =>
 *   Stream.unwrap(Broadcast.subscribe(Orders, { key: customer })).pipe(
 *     Stream.map((event) => `data: ${JSON.stringify(event.payload)}\n\n`)
 *   )
 * ```
 *
 * **Example** (Complete or failed)
 *
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Broadcast, Topic } from "effect-events"
 *
 * const Prices = Topic.make("prices", { schema: Schema.Struct({ item: Schema.String, cents: Schema.Int }) })
 *
 * declare const loadAll: Effect.Effect<void>
 * declare const show: (item: string, cents: number) => Effect.Effect<void>
 *
 * const follow = Effect.scoped(Effect.gen(function*() {
 *   const prices = yield* Broadcast.subscribe(Prices, { strategy: "fail" })
 *   yield* loadAll
 *   yield* Stream.runForEach(prices, ({ payload }) => show(payload.item, payload.cents))
 * })).pipe(Effect.retry({ while: (error) => error.reason._tag === "SubscriberTooSlow" }))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const subscribe = Effect.fnUntraced(function*<
  S extends Schema.Constraint,
  const Chosen extends Strategy = "sliding"
>(
  topic: Topic.Topic<S>,
  options?: Options<S["Type"], Chosen>
): Effect.fn.Return<
  Subscription<S["Type"], "fail" extends Chosen ? BroadcastError : never>,
  BroadcastError,
  S["DecodingServices"] | Broker | Scope.Scope
> {
  const settings: Settings = {
    topic: topic.name,
    key: options?.key,
    filter: options?.filter,
    buffer: options?.buffer ?? defaultBuffer,
    strategy: options?.strategy ?? "sliding"
  }
  if (!Number.isSafeInteger(settings.buffer) || settings.buffer < 1) {
    const detail = `buffer is ${settings.buffer}; it has to be a whole number from 1 on`
    return yield* new BroadcastError({ reason: new InvalidSubscription({ topic: topic.name, detail }) })
  }
  const context = yield* Effect.context<never>()
  const hub = yield* Hubs.hub(yield* Broker, topic.name)
  const buffer = yield* makeBuffer(settings.buffer, settings.strategy)
  const subscriber = new Subscriber(settings, context, buffer)
  yield* Effect.mapError(
    hub.listen(topic as unknown as Topic.Any, subscriber),
    (reason) => new BroadcastError({ reason })
  )
  const status = Effect.sync((): Status => ({
    waiting: subscriber.waiting,
    lost: subscriber.lost,
    undecodable: subscriber.undecodable,
    restarts: subscriber.restarts
  }))
  return Object.assign(Stream.fromQueue(buffer), { status }) as unknown as Subscription<
    S["Type"],
    "fail" extends Chosen ? BroadcastError : never
  >
})

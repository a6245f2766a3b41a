/**
 * The open form of a consumer: events for a pipeline of the user's own, and
 * how they become done.
 *
 * By hand, each event comes with the right to say that it is done; the
 * watermark makes any order of that safe. By itself, a chunk is done when the
 * next one is asked for: whoever pulls has nothing of the last one left.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type * as Schema from "effect/Schema"
import * as Semaphore from "effect/Semaphore"
import * as Sink from "effect/Sink"
import * as Stream from "effect/Stream"
import type { Broker } from "../../Broker.ts"
import { ConsumerGroup } from "../../ConsumerGroup.ts"
import type * as Event from "../../Event.ts"
import * as FailurePolicy from "../../FailurePolicy.ts"
import type * as Topic from "../../Topic.ts"
import type { ConsumerError, Definition } from "./definition.ts"
import * as Start from "./start.ts"

/**
 * An event of an open stream. `Consumer.commit` takes it once it is done.
 *
 * @category models
 * @since 0.1.0
 */
export interface Committable<out A> {
  readonly event: Event.Event<A>
  /** Marks the event as done. Synchronous, and harmless when repeated. */
  readonly finish: () => void
}

/**
 * Options of an open stream.
 *
 * @category options
 * @since 0.1.0
 */
export interface StreamOptions<out Ack extends "manual" | "auto" = "manual" | "auto"> {
  /** The name that its dead letters carry. Default: the topic's name. */
  readonly name?: string | undefined
  /**
   * `"manual"`: the stream gives `Committable`s, and `Consumer.commit` takes
   * those that are done. `"auto"`: it gives events, and those of one pull are
   * done when the next pull comes. Default: `"manual"`.
   */
  readonly ack?: Ack | undefined
}

type Open<S extends Schema.Constraint, A> = Stream.Stream<
  A,
  ConsumerError,
  S["DecodingServices"] | ConsumerGroup | Broker
>

/**
 * The open form of a consumer: a stream of events, for those who compose a
 * pipeline of their own.
 *
 * **Details**
 *
 * At-least-once: what is not committed comes again after a restart or
 * rebalance. Events of one partition arrive in order; what happens to order
 * behind the stream is the pipeline's. A record that does not decode goes to
 * the dead-letter topic and not into the stream; while it cannot be written
 * there, nothing above it is committed to the broker.
 *
 * Pull-based: events come in chunks of up to 256, and what is not committed is
 * not prefetched beyond about 2,048 events per partition (and the chunk of the
 * broker that goes over it); so what a pipeline buffers is bounded, however
 * slow it is.
 *
 * When the stream ends, fails or is interrupted, what was committed by then is
 * committed to the broker and the group is left. Nothing else is waited for:
 * the pipeline is gone by then.
 *
 * **Gotchas**
 *
 * With `ack: "auto"` an event counts as done when the pull after its chunk
 * comes. That is after the work only if the work is done in step with the
 * pulls: `Stream.tap`, `Stream.mapEffect` and `Stream.runForEach` one at a
 * time. Behind an operator that pulls ahead (`buffer`, `mapEffect` with
 * `concurrency`, `groupedWithin`, `merge`, …) events are done before their
 * work is, and a crash loses what was in between. Use `"manual"` there, and
 * `Consumer.commit` at the end.
 *
 * Dead letters of a stream can be listed and dropped. A replay does not bring
 * one back into the stream: it waits for a handler of that name in the group.
 *
 * **Example** (Batches with concurrency, committed in any order)
 *
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Consumer, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 * declare const index: (orderIds: ReadonlyArray<string>) => Effect.Effect<void>
 *
 * const program = Consumer.stream(Orders).pipe(
 *   Stream.groupedWithin(100, "1 second"),
 *   Stream.mapEffect((batch) => Effect.as(index(batch.map(({ event }) => event.payload.orderId)), batch), {
 *     concurrency: 4,
 *     unordered: true
 *   }),
 *   Stream.flattenIterable,
 *   Stream.run(Consumer.commit),
 *   Consumer.inGroup("search")
 * )
 * ```
 *
 * **Example** (Plain events)
 *
 * ```ts
 * import { Effect, Schema, Stream } from "effect"
 * import { Consumer, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 *
 * const program = Consumer.stream(Orders, { ack: "auto" }).pipe(
 *   Stream.runForEach((event) => Effect.log(event.payload.orderId)),
 *   Consumer.inGroup("audit")
 * )
 * ```
 *
 * @category streams
 * @since 0.1.0
 */
export const stream: {
  <S extends Schema.Constraint>(
    topic: Topic.Topic<S>,
    options: StreamOptions<"auto"> & { readonly ack: "auto" }
  ): Open<S, Event.Event<S["Type"]>>
  <S extends Schema.Constraint>(
    topic: Topic.Topic<S>,
    options?: StreamOptions<"manual">
  ): Open<S, Committable<S["Type"]>>
} = (<S extends Schema.Constraint>(topic: Topic.Topic<S>, options?: StreamOptions) => {
  const committables: Open<S, Committable<S["Type"]>> = Stream.fromPull(Effect.gen(function*() {
    const group = yield* ConsumerGroup
    const { failed, take } = yield* Start.startStream(definitionOf(topic, options?.name), group.name)
    return Effect.raceFirst(take, failed)
  })).pipe(Stream.scoped)
  return options?.ack === "auto" ? byItself(committables) : committables
}) as never

/** Finishes a chunk when the next one is asked for. */
const byItself = <A, E, R>(
  committables: Stream.Stream<Committable<A>, E, R>
): Stream.Stream<Event.Event<A>, E, R> =>
  Stream.transformPull(committables, (pull) =>
    Effect.sync(() => {
      let given: ReadonlyArray<Committable<A>> = []
      return Effect.suspend(() => {
        for (const { finish } of given) finish()
        given = []
        return Effect.map(pull, (chunk) => {
          given = chunk
          return Arr.map(chunk, ({ event }) => event)
        })
      })
    }))

const definitionOf = (topic: unknown, name: string | undefined): Definition => ({
  mode: "idempotent",
  topic: topic as Topic.Any,
  name: name ?? (topic as Topic.Any).name,
  named: name !== undefined,
  policy: FailurePolicy.save(),
  ordering: "unordered",
  concurrency: Semaphore.makeUnsafe(1),
  batch: undefined,
  group: undefined,
  handle: () => Effect.void
})

/**
 * The sink of `Consumer.stream`: commits what flows into it. Out of order is
 * fine: the position moves only over events below which all are committed.
 *
 * @category streams
 * @since 0.1.0
 */
export const commit: Sink.Sink<void, Committable<unknown>> = Sink.forEachArray((committables) =>
  Effect.sync(() => {
    for (const committable of committables) committable.finish()
  })
)

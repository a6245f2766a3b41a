/**
 * How events gather into batches, adaptively: while slots are free an event
 * runs at once, alone; when all slots are busy, what piled up meanwhile goes
 * together, up to the limits. Who wants fuller batches sets `minSize`, and pays
 * for them with up to `maxWait` of latency.
 *
 * A batch handler can read why its batch closed (`Closed`), and can name the
 * events at fault when it fails (`failed`).
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type { Event } from "./Event.ts"
import * as Limit from "./internal/limit.ts"

/**
 * Limits of a batch.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Most events in one batch. Default: 100. */
  readonly maxSize?: number | undefined
  /** Most bytes of record values in one batch; a larger single event goes alone. Default: 1 MiB. */
  readonly maxBytes?: number | undefined
  /**
   * Events that a batch waits for, at most `maxWait` and not during a drain.
   * For handlers of batches only. Default: 1, so nothing waits.
   */
  readonly minSize?: number | undefined
  /** How long a batch waits for `minSize` events, from when its first one could run. Default: 50 ms. */
  readonly maxWait?: Duration.Input | undefined
}

/**
 * Limits of a batch with the defaults filled in.
 *
 * @category models
 * @since 0.1.0
 */
export interface Limits {
  readonly maxSize: number
  readonly maxBytes: number
  readonly minSize: number
  readonly maxWait: Duration.Input
}

/**
 * The defaults: 100 events, 1 MiB, no waiting; 50 ms if a `minSize` is set.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaults: Limits = { maxSize: 100, maxBytes: 1024 * 1024, minSize: 1, maxWait: "50 millis" }

/** @internal */
export const limits = (options: Options | undefined): Limits => ({
  maxSize: options?.maxSize ?? defaults.maxSize,
  maxBytes: options?.maxBytes ?? defaults.maxBytes,
  minSize: options?.minSize ?? defaults.minSize,
  maxWait: options?.maxWait ?? defaults.maxWait
})

/**
 * Why limits cannot be used, or `undefined`.
 *
 * @internal
 */
export const illegal = ({ maxBytes, maxSize, maxWait, minSize }: Limits): string | undefined =>
  !Limit.isCount(maxSize, 10_000)
    ? `batch.maxSize is ${maxSize}; use a whole number from 1 to 10,000`
    : !Limit.isCount(maxBytes, Infinity)
    ? `batch.maxBytes is ${maxBytes}; use a whole number of bytes`
    : !Limit.isCount(minSize, maxSize)
    ? `batch.minSize is ${minSize}; use a whole number from 1 to maxSize, which is ${maxSize}`
    : Limit.illegalDuration("batch.maxWait", maxWait, "positive")

/**
 * Why a batch has the size that it has:
 *
 * - `"slot"`: a slot was free and took what had piled up.
 * - `"size"`: it holds `maxSize` events.
 * - `"bytes"`: the next event would have taken it over `maxBytes`.
 * - `"timeout"`: `maxWait` was over before `minSize` events were there.
 * - `"drain"`: its partition, or the consumer, stops, and nothing is waited for.
 *
 * @category models
 * @since 0.1.0
 */
export type CloseReason = "slot" | "size" | "bytes" | "timeout" | "drain"

/**
 * Why the batch of the running handler closed; `undefined` outside of a batch
 * handler.
 *
 * **Details**
 *
 * A part of a batch that failed, which runs again by itself, has the reason of
 * the whole.
 *
 * **Example** (Counting full batches)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Batching, Consumer, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 *
 * const Index = Consumer.idempotentBatch(Orders, (events) =>
 *   Effect.gen(function*() {
 *     const closed = yield* Batching.Closed
 *     yield* Effect.log(`${events.length} orders, closed by ${closed}`)
 *   }), { batch: { minSize: 50, maxWait: "200 millis" } })
 * ```
 *
 * @category references
 * @since 0.1.0
 */
export const Closed = Context.Reference<CloseReason | undefined>("effect-events/Batching/Closed", {
  defaultValue: () => undefined
})

/**
 * The failure of a batch handler that knows which of its events are at fault.
 * Made by `Batching.failed`.
 *
 * @category models
 * @since 0.1.0
 */
export class Failed<out E> {
  readonly _tag = "Failed"
  readonly events: ReadonlyArray<Event<unknown>>
  readonly error: E
  constructor(events: ReadonlyArray<Event<unknown>>, error: E) {
    this.events = events
    this.error = error
  }
}

/**
 * What a batch handler fails with to name the events at fault.
 *
 * **Details**
 *
 * The failure policy judges each named event by `error`, as if it had failed
 * alone, and they go on alone.
 *
 * - `idempotentBatch`, `broadcastBatch`: the other events count as applied, so
 *   name every event that is not.
 * - `exactlyOnceBatch`: the transaction rolls back, and the other events run
 *   again without the named ones and without what follows of their keys. That
 *   is no attempt of theirs.
 *
 * If it names no event, or one that is not of the batch, it is a failure of the
 * batch as a whole, with `error`, and the engine looks for the culprits itself.
 *
 * **Example** (Orders that the index refuses)
 *
 * ```ts
 * import { Data, Effect, Schema } from "effect"
 * import { Batching, Consumer, Topic } from "effect-events"
 *
 * class Refused extends Data.TaggedError("Refused")<{ readonly count: number }> {}
 * declare const indexAll: (ids: ReadonlyArray<string>) => Effect.Effect<ReadonlySet<string>>
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 *
 * const Index = Consumer.idempotentBatch(Orders, (events) =>
 *   Effect.gen(function*() {
 *     const refused = yield* indexAll(events.map((event) => event.payload.orderId))
 *     const culprits = events.filter((event) => refused.has(event.payload.orderId))
 *     if (culprits.length > 0) {
 *       return yield* Effect.fail(Batching.failed(culprits, new Refused({ count: culprits.length })))
 *     }
 *   }))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const failed = <E>(events: ReadonlyArray<Event<unknown>>, error: E): Failed<E> => new Failed(events, error)

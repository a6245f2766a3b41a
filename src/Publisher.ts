/**
 * Publishes events at once, without a transaction.
 *
 * Guarantee: an event whose `publish` succeeded is in the log on all in-sync
 * replicas, in call order per key. An event whose `publish` failed is not,
 * except with reason `ResultUnknown`: then it may be. To publish together with
 * a database write use `Outbox.publish`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Schema from "effect/Schema"
import { Broker, type BrokerError } from "./Broker.ts"
import type { Position } from "./internal/publisher/lanes.ts"
import * as Shared from "./internal/publisher/shared.ts"
import * as Outgoing from "./internal/wire/outgoing.ts"
import type * as Topic from "./Topic.ts"

export {
  /**
   * Where a published event lies.
   *
   * @category models
   * @since 0.1.0
   */
  type Position
} from "./internal/publisher/lanes.ts"
export {
  InvalidPayload,
  InvalidTopic,
  PayloadTooLarge,
  PublishError,
  type PublishErrorReason,
  type PublishOptions,
  TransactionEnded
} from "./internal/wire/outgoing.ts"

/**
 * How long an event is tried, waiting included, before its `publish` fails
 * with reason `ResultUnknown` (it may have been sent, no answer came) or
 * `Unreachable` (it was not sent). Also while no broker is there: publishing
 * waits for one to come back. Default: 2 minutes.
 *
 * **Example** (A shorter patience)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Publisher } from "effect-events"
 *
 * const impatient = Effect.provideService(Publisher.DeliveryTimeout, "10 seconds")
 * ```
 *
 * @category references
 * @since 0.1.0
 */
export const DeliveryTimeout = Context.Reference<Duration.Input>("effect-events/Publisher/DeliveryTimeout", {
  defaultValue: () => Duration.minutes(2)
})

/**
 * How many bytes of events one broker's publishers hold in memory, waiting or
 * on their way: who wants to publish more waits for room, in the order of the
 * calls, and fails with reason `Unreachable` when there is none within
 * `DeliveryTimeout`. Counted are keys, values and headers. One call that is
 * larger than this goes when nothing else is there. Default: 32 MiB.
 *
 * **When to use**
 *
 * Lower it where memory is short. Raise it only if publishing must go on while
 * no broker answers: at 1 KB per event the default holds some 32,000 of them.
 *
 * **Example** (Less memory)
 *
 * ```ts
 * import { Effect } from "effect"
 * import { Publisher } from "effect-events"
 *
 * const small = Effect.provideService(Publisher.MaxBufferedBytes, 4 * 1024 * 1024)
 * ```
 *
 * @category references
 * @since 0.1.0
 */
export const MaxBufferedBytes = Context.Reference<number>("effect-events/Publisher/MaxBufferedBytes", {
  defaultValue: () => 32 * 1024 * 1024
})

/**
 * Publishes one event, and returns its partition and offset once all in-sync
 * replicas have it.
 *
 * **Details**
 *
 * Fails with `PublishError` if the payload does not encode or is too large:
 * nothing was sent then. Fails with `BrokerError` otherwise; its reason
 * `ResultUnknown` means that the event may be in the log nevertheless.
 *
 * Many fibers may publish at once: what gathers while a request is under way
 * leaves together. Events of one key keep the order of the calls.
 *
 * **Example** (Publishing an order)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Publisher, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", {
 *   schema: Schema.Struct({ orderId: Schema.String, customer: Schema.String }),
 *   key: (order) => order.customer
 * })
 *
 * const program = Effect.gen(function*() {
 *   const { offset, partition } = yield* Publisher.publish(Orders, { orderId: "o-1", customer: "ada" })
 *   yield* Effect.log("published", { offset, partition })
 * })
 * ```
 *
 * @category publishing
 * @since 0.1.0
 */
export const publish = <S extends Schema.Constraint>(
  topic: Topic.Topic<S>,
  payload: Topic.Input<S>,
  options?: Outgoing.PublishOptions
): Effect.Effect<Position, Outgoing.PublishError | BrokerError, Broker | S["EncodingServices"]> =>
  Effect.flatMap(Broker, (broker) =>
    Outgoing.prepare(topic, payload, broker.source, options).pipe(
      Effect.flatMap((message) => send(broker, [message])),
      Effect.flatMap(([outcome]) => outcome!)
    ))

/**
 * Publishes events of one topic, in order, and returns their positions.
 *
 * **Details**
 *
 * All are encoded before the first is sent, so a payload that does not encode
 * fails the call with nothing sent. It is not a transaction: when it fails
 * with `BrokerError`, some of the events may be in the log.
 *
 * @category publishing
 * @since 0.1.0
 */
export const publishAll = <S extends Schema.Constraint>(
  topic: Topic.Topic<S>,
  payloads: ReadonlyArray<Topic.Input<S>>,
  options?: Pick<Outgoing.PublishOptions, "headers" | "cause">
): Effect.Effect<Array<Position>, Outgoing.PublishError | BrokerError, Broker | S["EncodingServices"]> =>
  Effect.flatMap(Broker, (broker) =>
    Outgoing.prepareAll(topic, payloads, broker.source, options).pipe(
      Effect.flatMap((messages) => send(broker, messages)),
      Effect.flatMap(allOf)
    ))

const send = (broker: Broker["Service"], messages: ReadonlyArray<Outgoing.Outgoing>) =>
  Effect.withFiber((fiber) => {
    const timeout = Duration.fromInputUnsafe(fiber.getRef(DeliveryTimeout))
    const most = fiber.getRef(MaxBufferedBytes)
    return Effect.flatMapEager(Shared.lanes(broker), (lanes) => lanes.send(messages, timeout, most))
  })

const allOf = (outcomes: ReadonlyArray<Exit.Exit<Position, BrokerError>>): Exit.Exit<Array<Position>, BrokerError> => {
  const positions: Array<Position> = []
  for (const outcome of outcomes) {
    if (Exit.isFailure(outcome)) return Exit.failCause(outcome.cause)
    positions.push(outcome.value)
  }
  return Exit.succeed(positions)
}

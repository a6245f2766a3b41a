/**
 * Why a broadcast subscription could not begin, or ended.
 *
 * @internal
 */
import * as Schema from "effect/Schema"
import { BrokerError } from "../../Broker.ts"

/**
 * An option of a subscription that is out of its range.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidSubscription
  extends Schema.TaggedError<InvalidSubscription>("effect-events/Broadcast/InvalidSubscription")(
    "InvalidSubscription",
    { topic: Schema.String, detail: Schema.String }
  )
{
  override get message() {
    return `Subscription to "${this.topic}": ${this.detail}.`
  }
}

/**
 * A subscriber with the strategy `"fail"` whose buffer was full. Its stream
 * gives what was buffered, without a gap, and then fails with this; every later
 * event is missing, from the named one on.
 *
 * @category errors
 * @since 0.1.0
 */
export class SubscriberTooSlow
  extends Schema.TaggedError<SubscriberTooSlow>("effect-events/Broadcast/SubscriberTooSlow")(
    "SubscriberTooSlow",
    {
      topic: Schema.String,
      /** Size of the buffer that was full. */
      buffer: Schema.Number,
      /** Where the first missing event lies. Other partitions may miss theirs from about the same time on. */
      partition: Schema.Number,
      offset: Schema.BigInt
    }
  )
{
  override get message() {
    return `A subscriber of "${this.topic}" was too slow: ${this.buffer} events waited, and those from partition ` +
      `${this.partition} offset ${this.offset} on are missing. Load the present state and subscribe again, or pass ` +
      `a larger { buffer }.`
  }
}

/**
 * Why a subscription could not begin, or ended.
 *
 * @category errors
 * @since 0.1.0
 */
export type BroadcastErrorReason = BrokerError | InvalidSubscription | SubscriberTooSlow

/**
 * Schema of `BroadcastErrorReason`.
 *
 * @category errors
 * @since 0.1.0
 */
export const BroadcastErrorReason = Schema.Union([BrokerError, InvalidSubscription, SubscriberTooSlow])

/**
 * A subscription that could not begin, or that ended because events are
 * missing from it; `reason` says why.
 *
 * @category errors
 * @since 0.1.0
 */
export class BroadcastError extends Schema.TaggedError<BroadcastError>("effect-events/Broadcast/BroadcastError")(
  "BroadcastError",
  { reason: BroadcastErrorReason }
) {
  override readonly cause = this.reason
  override get message() {
    return this.reason.message
  }
}

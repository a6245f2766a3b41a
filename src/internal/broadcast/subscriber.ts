/**
 * One subscriber: its buffer, and what becomes of an event for which there is
 * no room. Every call is synchronous and returns at once, so no subscriber can
 * hold up another or the tail.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type { BrokerError } from "../../Broker.ts"
import type * as Event from "../../Event.ts"
import { BroadcastError, SubscriberTooSlow } from "./errors.ts"

export type Strategy = "sliding" | "dropping" | "fail"

export type Buffer = Queue.Queue<Event.Event<unknown>, BroadcastError | Cause.Done>

/** `Full`: it lost this one. `Ended`: it takes no more, and is to be forgotten. */
export type Taken = "Taken" | "Full" | "Ended"

export interface Settings {
  readonly topic: string
  readonly key: string | undefined
  readonly filter: ((event: Event.Event<unknown>) => boolean) | undefined
  readonly buffer: number
  readonly strategy: Strategy
}

export class Subscriber {
  lost = 0
  undecodable = 0
  restarts = 0
  /** Whether it has lost an event since its buffer was half empty the last time. */
  losing = false
  readonly settings: Settings
  /** What decoders of its schema may need. */
  readonly context: Context.Context<never>
  private readonly queue: Buffer
  constructor(settings: Settings, context: Context.Context<never>, queue: Buffer) {
    this.settings = settings
    this.context = context
    this.queue = queue
  }

  get waiting(): number {
    return Queue.sizeUnsafe(this.queue)
  }

  /** Buffers an event if it wants it. A filter that throws ends its own stream, with what it threw as the defect. */
  offer(event: Event.Event<unknown>): Taken {
    const { buffer, filter, strategy } = this.settings
    if (filter !== undefined) {
      try {
        if (!filter(event)) return "Taken"
      } catch (defect) {
        Queue.failCauseUnsafe(this.queue, Cause.die(defect))
        return "Ended"
      }
    }
    if (this.waiting < buffer) {
      Queue.offerUnsafe(this.queue, event)
      return "Taken"
    }
    this.lost++
    if (strategy === "fail") {
      const { offset, partition, topic } = event
      this.failWith(new SubscriberTooSlow({ topic, buffer, partition, offset }))
      return "Ended"
    }
    // A sliding queue lets go of its oldest, a dropping one refuses.
    Queue.offerUnsafe(this.queue, event)
    return "Full"
  }

  /** The tail broke: what is published until it runs again is missing. */
  tailFailed(error: BrokerError): Taken {
    this.restarts++
    if (this.settings.strategy !== "fail") return "Taken"
    this.failWith(error)
    return "Ended"
  }

  /** Ends the stream after what it has buffered. */
  end(): void {
    Queue.endUnsafe(this.queue)
  }

  private failWith(reason: BrokerError | SubscriberTooSlow): void {
    Queue.failCauseUnsafe(this.queue, Cause.fail(new BroadcastError({ reason })))
  }
}

/** The buffer of a subscriber. */
export const makeBuffer = (buffer: number, strategy: Strategy): Effect.Effect<Buffer> =>
  Queue.make({ capacity: buffer, strategy: strategy === "sliding" ? "sliding" : "dropping" })

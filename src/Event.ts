/**
 * A decoded message: what a handler receives.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import type { ConsumerRecord, Headers } from "./Broker.ts"
import * as Envelope from "./internal/wire/envelope.ts"

/**
 * An event with a payload of type `A`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Event<out A> {
  /** `ce_id`; for records without one, derived from topic, partition, offset and timestamp of the original. */
  readonly id: string
  /** UTF-8 text of the record's key; `null` without a key. */
  readonly key: string | null
  readonly payload: A
  /** `ce_type`; empty if the record names none. */
  readonly type: string
  /** `ce_source`; empty if the record names none. */
  readonly source: string
  /** `ce_time`; the broker's timestamp if the record names none, or one that is no time. */
  readonly time: DateTime.Utc
  /** All headers, as they came. `Event.header` reads one as text. */
  readonly headers: Headers
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  /** 1 for the first attempt of the handler in this process. */
  readonly attempt: number
}

// Most handlers read the payload and little else: the rest is decoded when it
// is asked for.
class EventImpl<A> implements Event<A> {
  readonly topic: string
  readonly partition: number
  readonly payload: A
  readonly attempt: number
  private readonly record: ConsumerRecord
  private envelope: Envelope.Envelope | undefined = undefined
  constructor(topic: string, partition: number, record: ConsumerRecord, payload: A, attempt: number) {
    this.topic = topic
    this.partition = partition
    this.record = record
    this.payload = payload
    this.attempt = attempt
  }
  private get attributes(): Envelope.Attributes {
    return this.envelope ??= Envelope.read(this.topic, this.partition, this.record)
  }
  get id() {
    return this.attributes.id
  }
  get key() {
    return this.record.key === null ? null : Envelope.asText(this.record.key)
  }
  get type() {
    return this.attributes.type
  }
  get source() {
    return this.attributes.source
  }
  get time() {
    const { time } = this.attributes
    const parsed = time === undefined ? Option.none() : DateTime.make(time)
    return Option.match(parsed, {
      onNone: () => DateTime.makeUnsafe(this.record.timestamp),
      onSome: DateTime.toUtc
    })
  }
  get headers() {
    return this.record.headers
  }
  get offset() {
    return this.record.offset
  }
}

/** @internal */
export const make = <A>(
  topic: string,
  partition: number,
  record: ConsumerRecord,
  payload: A,
  attempt: number
): Event<A> => new EventImpl(topic, partition, record, payload, attempt)

/**
 * Reads one header as text: the first value, if the name occurs several times.
 *
 * **Example** (Reading a header)
 *
 * ```ts
 * import { Event } from "effect-events"
 *
 * const tenantOf = (event: Event.Event<unknown>): string | undefined => Event.header(event, "tenant")
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const header = (event: Event<unknown>, name: string): string | undefined => Envelope.header(event.headers, name)

/**
 * The event that the running handler was called for; `undefined` outside of a
 * handler, and in batch handlers.
 *
 * **Details**
 *
 * Events published meanwhile name it as their cause (`ce_causationid`,
 * `ce_correlationid`, `traceparent`). A batch handler says `{ cause: event }`
 * itself.
 *
 * @category references
 * @since 0.1.0
 */
export const Current = Context.Reference<Event<unknown> | undefined>("effect-events/Event/Current", {
  defaultValue: () => undefined
})

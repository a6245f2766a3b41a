/**
 * From a payload to a message that can be sent: makes the instance, encodes
 * it, writes the envelope and checks the size, all at the publish call, so
 * that what cannot be sent fails there and never later.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import * as Tracer from "effect/Tracer"
import { randomUUID } from "node:crypto"
import * as Event from "../../Event.ts"
import type * as Topic from "../../Topic.ts"
import { illegalName } from "./deadLetter.ts"
import * as Envelope from "./envelope.ts"
import { uuidV7Of } from "./messageId.ts"
import * as TraceContext from "./traceContext.ts"

/**
 * The topic cannot be published to: its name is illegal.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidTopic extends Schema.TaggedError<InvalidTopic>("effect-events/Publisher/InvalidTopic")(
  "InvalidTopic",
  { topic: Schema.String, detail: Schema.String }
) {
  override get message() {
    return `"${this.topic}" cannot name a topic: ${this.detail}. Change the name in Topic.make.`
  }
}

/**
 * The payload does not fit the topic's schema, or its codec refused it.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidPayload extends Schema.TaggedError<InvalidPayload>("effect-events/Publisher/InvalidPayload")(
  "InvalidPayload",
  { topic: Schema.String, detail: Schema.String, cause: Schema.Defect() }
) {
  override get message() {
    return `The payload for "${this.topic}" does not encode: ${this.detail}`
  }
}

/**
 * The encoded event is larger than the topic's `maxBytes`.
 *
 * @category errors
 * @since 0.1.0
 */
export class PayloadTooLarge extends Schema.TaggedError<PayloadTooLarge>("effect-events/Publisher/PayloadTooLarge")(
  "PayloadTooLarge",
  { topic: Schema.String, bytes: Schema.Number, maxBytes: Schema.Number }
) {
  override get message() {
    return `An event for "${this.topic}" has ${this.bytes} bytes, ${this.maxBytes} are allowed. ` +
      `Publish a reference instead, or raise maxBytes in Topic.make and max.message.bytes on the broker.`
  }
}

/**
 * `Outbox.publish` was called after its transaction had ended, or within a
 * savepoint that the transaction does not know.
 *
 * @category errors
 * @since 0.1.0
 */
export class TransactionEnded extends Schema.TaggedError<TransactionEnded>("effect-events/Outbox/TransactionEnded")(
  "TransactionEnded",
  { topic: Schema.String, detail: Schema.String }
) {
  override get message() {
    return `An event for "${this.topic}" cannot join its transaction: ${this.detail}.`
  }
}

/**
 * Why an event was not taken.
 *
 * @category errors
 * @since 0.1.0
 */
export type PublishErrorReason = InvalidTopic | InvalidPayload | PayloadTooLarge | TransactionEnded

/**
 * Schema of `PublishErrorReason`.
 *
 * @category errors
 * @since 0.1.0
 */
export const PublishErrorReason = Schema.Union([InvalidTopic, InvalidPayload, PayloadTooLarge, TransactionEnded])

/**
 * An event that was not taken: nothing of it was sent or stored. `reason` says
 * why.
 *
 * @category errors
 * @since 0.1.0
 */
export class PublishError extends Schema.TaggedError<PublishError>("effect-events/Publisher/PublishError")(
  "PublishError",
  { reason: PublishErrorReason }
) {
  override readonly cause = this.reason
  override get message() {
    return this.reason.message
  }
}

/** A message on its way: everything but its partition. */
export interface Outgoing {
  readonly id: string
  readonly topic: string
  readonly key: string | null
  readonly headers: { readonly [name: string]: string }
  readonly value: Uint8Array | null
  readonly bytes: number
  /** Whether its transaction waits for others that publish the same key. */
  readonly serialize?: boolean | undefined
  /** When it enters the outbox, if not with its transaction. */
  readonly dueMillis?: number | undefined
}

/**
 * Options of one publish call.
 *
 * @category options
 * @since 0.1.0
 */
export interface PublishOptions {
  /** The message's id. Default: a new UUIDv7. Consumers recognise a repeat by id and source. */
  readonly id?: string | undefined
  /** The record's key. Default: the topic's `key` of the payload. */
  readonly key?: string | null | undefined
  /**
   * Further headers. Names that start with `ce_` or `dl_`, and `content-type`,
   * are the library's own and left out.
   */
  readonly headers?: { readonly [name: string]: string } | undefined
  /** The event that caused this one. Default: the event that the running handler was called for. */
  readonly cause?: Event.Event<unknown> | undefined
}

type Encode = (input: unknown) => Effect.Effect<Uint8Array | null, PublishError, unknown>

interface Encoder {
  readonly make: (input: unknown) => Effect.Effect<unknown, PublishError>
  readonly encode: Encode
}

const encoders = new WeakMap<Topic.Any, Encoder>()

// A class instance is taken as it is; whatever else is given goes through the
// schema's constructor, which validates it and makes the instance.
const encoderOf = (topic: Topic.Any): Encoder => {
  const known = encoders.get(topic)
  if (known !== undefined) return known
  const invalid = (cause: unknown) =>
    new PublishError({
      reason: new InvalidPayload({
        topic: topic.name,
        detail: cause instanceof Error ? cause.message : String(cause),
        cause
      })
    })
  const unfit = (issue: SchemaIssue.Issue) => invalid(new Schema.SchemaError(issue))
  const schema = topic.schema
  const construct = SchemaParser.makeEffect(schema)
  const isInstance: (input: unknown) => boolean = typeof schema === "function"
    ? (input) => input instanceof (schema as unknown as new() => object)
    : () => false
  const encodeData = SchemaParser.encodeUnknownEffect(Schema.toCodecJson(schema))
  const encoder: Encoder = {
    make: (input) => isInstance(input) ? Effect.succeed(input) : Effect.mapErrorEager(construct(input as never), unfit),
    encode: (payload) =>
      Effect.flatMapEager(Effect.mapErrorEager(encodeData(payload), unfit), (data) => {
        if (data === null) return Effect.succeed(null)
        try {
          return Effect.succeed(topic.codec.encode(data))
        } catch (cause) {
          return Effect.fail(invalid(cause))
        }
      })
  }
  encoders.set(topic, encoder)
  return encoder
}

const reserved = (name: string): boolean =>
  name.startsWith("ce_") || name.startsWith("dl_") || name.toLowerCase() === Envelope.contentType

/** What the calling fiber adds to a message: the time, the cause and the trace. */
interface Surroundings {
  readonly millis: number
  readonly time: string
  readonly cause: Event.Event<unknown> | undefined
  readonly traceparent: string | undefined
}

const surroundings: Effect.Effect<Surroundings> = Effect.withFiber((fiber) => {
  const cause = fiber.getRef(Event.Current)
  const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)
  const millis = fiber.getRef(Clock.Clock).currentTimeMillisUnsafe()
  return Effect.succeed({
    millis,
    time: DateTime.formatIso(DateTime.makeUnsafe(millis)),
    cause,
    traceparent: span === undefined ? undefined : TraceContext.format(span)
  })
})

const headersOf = (
  topic: Topic.Any,
  key: string | null,
  id: string,
  source: string | undefined,
  options: PublishOptions | undefined,
  around: Surroundings
): { [name: string]: string } => {
  const headers = Envelope.write({
    id,
    type: topic.type,
    source,
    time: around.time,
    key,
    contentType: topic.codec.contentType,
    dataSchema: topic.dataSchema
  })
  const cause = options?.cause ?? around.cause
  if (cause !== undefined) {
    headers[Envelope.causationId] = cause.id
    headers[Envelope.correlationId] = Event.header(cause, Envelope.correlationId) ?? cause.id
  }
  const trace = around.traceparent ??
    (cause === undefined ? undefined : Event.header(cause, Envelope.traceparent))
  if (trace !== undefined) headers[Envelope.traceparent] = trace
  if (options?.headers !== undefined) {
    for (const [name, value] of Object.entries(options.headers)) {
      if (!reserved(name)) headers[name] = value
    }
  }
  return headers
}

const utf8Length = (text: string): number => Buffer.byteLength(text, "utf8")

const sizeOf = (key: string | null, value: Uint8Array | null, headers: { readonly [name: string]: string }): number => {
  let bytes = (key === null ? 0 : utf8Length(key)) + (value === null ? 0 : value.length)
  for (const name in headers) bytes += utf8Length(name) + utf8Length(headers[name]!)
  return bytes
}

/**
 * Prepares one event. `source` may be left open: the relay fills it in, since
 * a transaction knows no broker.
 */
export const prepare = <S extends Schema.Constraint>(
  topic: Topic.Topic<S>,
  input: Topic.Input<S>,
  source: string | undefined,
  options?: PublishOptions
): Effect.Effect<Outgoing, PublishError, S["EncodingServices"]> =>
  Effect.flatMap(surroundings, (around) => prepareWith(topic, input, source, options, around))

/** Prepares many events of one topic, in order; the first that does not encode fails them all. */
export const prepareAll = <S extends Schema.Constraint>(
  topic: Topic.Topic<S>,
  inputs: ReadonlyArray<Topic.Input<S>>,
  source: string | undefined,
  options?: Pick<PublishOptions, "headers" | "cause">
): Effect.Effect<Array<Outgoing>, PublishError, S["EncodingServices"]> =>
  Effect.flatMap(
    surroundings,
    (around) => Effect.forEach(inputs, (input) => prepareWith(topic, input, source, options, around))
  )

const prepareWith = <S extends Schema.Constraint>(
  topic: Topic.Topic<S>,
  input: Topic.Input<S>,
  source: string | undefined,
  options: PublishOptions | undefined,
  around: Surroundings
): Effect.Effect<Outgoing, PublishError, S["EncodingServices"]> => {
  const illegal = illegalName(topic.name)
  if (illegal !== undefined) {
    return Effect.fail(new PublishError({ reason: new InvalidTopic({ topic: topic.name, detail: illegal }) }))
  }
  const encoder = encoderOf(topic)
  return Effect.flatMapEager(encoder.make(input), (payload) =>
    Effect.flatMapEager(encoder.encode(payload), (value) => {
      const key = options?.key === undefined ? topic.key(payload) : options.key
      const id = options?.id ?? uuidV7Of(around.millis, randomUUID())
      const headers = headersOf(topic, key, id, source, options, around)
      const bytes = sizeOf(key, value, headers)
      return bytes > topic.maxBytes
        ? Effect.fail(
          new PublishError({ reason: new PayloadTooLarge({ topic: topic.name, bytes, maxBytes: topic.maxBytes }) })
        )
        : Effect.succeed({ id, topic: topic.name, key, headers, value, bytes })
    }))
}

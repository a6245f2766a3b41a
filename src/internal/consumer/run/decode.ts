/**
 * From a record to an event: envelope, bytes, schema. A record that does not
 * decode is a failure of that record, never of the stream.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import type { ConsumerRecord } from "../../../Broker.ts"
import * as Event from "../../../Event.ts"
import type * as Topic from "../../../Topic.ts"
import * as Envelope from "../../wire/envelope.ts"

/**
 * The record is not what its topic's schema describes. Found as the reason of
 * a dead letter; no retry is made.
 *
 * @category errors
 * @since 0.1.0
 */
export class Undecodable extends Schema.TaggedError<Undecodable>("effect-events/Consumer/Undecodable")("Undecodable", {
  detail: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `The record does not decode: ${this.detail}`
  }
}

export interface Decode {
  (partition: number, record: ConsumerRecord, attempt: number): Effect.Effect<Event.Event<unknown>, Undecodable>
  /** The event of a first attempt, if it decodes without running an effect, as by most schemas; costs less. */
  readonly atOnce: (partition: number, record: ConsumerRecord) => Event.Event<unknown> | undefined
}

const undecodable = (cause: unknown) =>
  new Undecodable({ detail: cause instanceof Error ? cause.message : String(cause), cause })

/** The decoder of a topic. A tombstone is offered to the schema as `null`. */
export const make = (topic: Topic.Any): Decode => {
  const decodeData = SchemaParser.decodeUnknownEffect(Schema.toCodecJson(topic.schema)) as (
    data: unknown
  ) => Effect.Effect<unknown, SchemaIssue.Issue>
  const codec = topic.codec
  const dataOf = (record: ConsumerRecord): unknown => {
    const event = Envelope.structured(record)
    if (event?.data._tag === "Json") return event.data.json
    const bytes = event === undefined ? record.value : event.data.bytes
    return bytes === null ? null : codec.decode(bytes)
  }
  const decode = (partition: number, record: ConsumerRecord, attempt: number) => {
    let data: unknown
    try {
      data = dataOf(record)
    } catch (cause) {
      return Effect.fail(undecodable(cause))
    }
    return Effect.mapBothEager(decodeData(data), {
      onFailure: (issue) => undecodable(new Schema.SchemaError(issue)),
      onSuccess: (payload) => Event.make(topic.name, partition, record, payload, attempt)
    })
  }
  const atOnce: Decode["atOnce"] = (partition, record) => {
    try {
      const payload = decodeData(dataOf(record))
      return Exit.isExit(payload) && Exit.isSuccess(payload)
        ? Event.make(topic.name, partition, record, payload.value, 1)
        : undefined
    } catch {
      return undefined
    }
  }
  return Object.assign(decode, { atOnce })
}

/** Whether a decoding is through already: most schemas decode without running an effect. */
export const isDone = (
  event: Effect.Effect<Event.Event<unknown>, Undecodable>
): event is Exit.Exit<Event.Event<unknown>, Undecodable> => Exit.isExit(event)

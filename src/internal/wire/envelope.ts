/**
 * CloudEvents 1.0 on Kafka: what an event looks like in headers and bytes.
 *
 * Writes binary mode. Reads liberally: binary mode, structured mode
 * (`application/cloudevents+json`), and records without any CloudEvents
 * attribute, whose id is derived from where they lie. Pure.
 *
 * Headers are looked up by name and never all decoded: header parsing is the
 * largest single cost of a record.
 *
 * @internal
 */
import type { ConsumerRecord, Headers, HeaderValue } from "../../Broker.ts"
import { derivedId } from "./messageId.ts"

/** The attributes that every event carries. */
export interface Attributes {
  readonly id: string
  readonly type: string
  readonly source: string
  /** RFC 3339, or `undefined`: then the broker's timestamp holds. */
  readonly time: string | undefined
}

/** What a record says about itself, before its payload is decoded. */
export interface Envelope extends Attributes {
  /** The payload's bytes; in structured mode the event's `data`, already parsed. */
  readonly data: { readonly _tag: "Bytes"; readonly bytes: Uint8Array | null } | {
    readonly _tag: "Json"
    readonly json: unknown
  }
}

export const contentType = "content-type"
export const source = "ce_source"
export const correlationId = "ce_correlationid"
export const causationId = "ce_causationid"
export const traceparent = "traceparent"

/** Where a dead letter came from; its id derives from there when it has none of its own. */
export const original = {
  topic: "dl_original_topic",
  partition: "dl_original_partition",
  offset: "dl_original_offset",
  timestamp: "dl_original_timestamp"
} as const

const utf8 = new TextDecoder()

/** Bytes as UTF-8 text. A `Buffer` decodes short texts several times faster than a `TextDecoder`. */
export const asText = (value: HeaderValue): string =>
  typeof value === "string" ? value : Buffer.isBuffer(value) ? value.toString() : utf8.decode(value)

const maxKey = 100

/** A key for logs: it is the user's data, and may be long. */
export const shortKey = (text: string): string => text.length <= maxKey ? text : `${text.slice(0, maxKey)}…`

/** The first value of a header as text. */
export const header = (headers: Headers, name: string): string | undefined => {
  const value = headers[name]
  if (value === undefined) return undefined
  if (typeof value === "string" || value instanceof Uint8Array) return asText(value)
  return value.length === 0 ? undefined : asText(value[0]!)
}

export const write = (options: {
  readonly id: string
  readonly type: string
  /** `undefined` leaves it to the relay. */
  readonly source: string | undefined
  readonly time: string
  readonly key: string | null
  readonly contentType: string
  readonly dataSchema: string | undefined
}): { [name: string]: string } => {
  const headers: { [name: string]: string } = {
    ce_specversion: "1.0",
    ce_id: options.id,
    ce_type: options.type,
    ce_time: options.time,
    [contentType]: options.contentType
  }
  if (options.source !== undefined) headers[source] = options.source
  if (options.key !== null) headers.ce_subject = options.key
  if (options.dataSchema !== undefined) headers.ce_dataschema = options.dataSchema
  return headers
}

/** Binary mode: each attribute is read when it is asked for. */
class Binary implements Envelope {
  private readonly topic: string
  private readonly partition: number
  private readonly record: ConsumerRecord
  constructor(topic: string, partition: number, record: ConsumerRecord) {
    this.topic = topic
    this.partition = partition
    this.record = record
  }
  get id() {
    return header(this.record.headers, "ce_id") ?? originalId(this.topic, this.partition, this.record)
  }
  get type() {
    return header(this.record.headers, "ce_type") ?? ""
  }
  get source() {
    return header(this.record.headers, source) ?? ""
  }
  get time() {
    return header(this.record.headers, "ce_time")
  }
  get data() {
    return { _tag: "Bytes", bytes: this.record.value } as const
  }
}

export const read = (topic: string, partition: number, record: ConsumerRecord): Envelope =>
  structured(record) ?? new Binary(topic, partition, record)

/**
 * The event of a record in structured mode, where all of it lies in the value;
 * `undefined` for any other record. Costs one look-up for a binary event.
 */
export const structured = (record: ConsumerRecord): Envelope | undefined =>
  record.headers.ce_id === undefined && isStructured(record.headers) ? readStructured(record.value) : undefined

/** The id of a record that names none: derived from the place where it, or the record that it is a copy of, lay first. */
const originalId = (topic: string, partition: number, record: ConsumerRecord): string => {
  const { headers } = record
  const from = header(headers, original.topic)
  // Anybody may write these headers, so they are taken as the text that they are.
  return from === undefined
    ? derivedId(topic, partition, record.offset, record.timestamp)
    : derivedId(
      from,
      header(headers, original.partition) ?? "",
      header(headers, original.offset) ?? "",
      header(headers, original.timestamp) ?? ""
    )
}

const isStructured = (headers: Headers): boolean =>
  header(headers, contentType)?.toLowerCase().startsWith("application/cloudevents+json") ?? false

const readStructured = (value: Uint8Array | null): Envelope | undefined => {
  const event = value === null ? undefined : parseObject(value)
  if (event === undefined || typeof event.id !== "string") return undefined
  return {
    id: event.id,
    type: typeof event.type === "string" ? event.type : "",
    source: typeof event.source === "string" ? event.source : "",
    time: typeof event.time === "string" ? event.time : undefined,
    data: typeof event.data_base64 === "string"
      ? { _tag: "Bytes", bytes: Buffer.from(event.data_base64, "base64") }
      : { _tag: "Json", json: event.data ?? null }
  }
}

const parseObject = (value: Uint8Array): { readonly [name: string]: unknown } | undefined => {
  try {
    const parsed: unknown = JSON.parse(asText(value))
    return typeof parsed === "object" && parsed !== null && !Array.isArray(parsed)
      ? parsed as { readonly [name: string]: unknown }
      : undefined
  } catch {
    return undefined
  }
}

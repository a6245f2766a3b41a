/**
 * What a dead letter looks like on the wire: the record as it came, in the
 * topic `<topic>.<group>.dead-letter`, with headers that say whose it is and
 * why. Beside the letters lie markers, which say what became of one. Pure.
 *
 * All records of one letter lie in one partition, so their order is the log's:
 * the last one says how it stands.
 *
 * @internal
 */
import { createHash } from "node:crypto"
import type { ConsumerRecord, Headers, ProducerRecord } from "../../Broker.ts"
import { header, original, read } from "./envelope.ts"
import { asUuid, messageKey } from "./messageId.ts"

/** Kafka's limits on topic names. */
const maxTopicLength = 249
const legal = /^[a-zA-Z0-9._-]+$/

const suffix = "dead-letter"

export const topicName = (topic: string, group: string): string => `${topic}.${group}.${suffix}`

/** Why a topic name cannot be one, or `undefined`. */
export const illegalName = (name: string): string | undefined =>
  name.length === 0
    ? "it is empty"
    : name === "." || name === ".."
    ? `"${name}" is reserved`
    : !legal.test(name)
    ? "only letters, digits, '.', '_' and '-' are allowed"
    : name.length > maxTopicLength
    ? `it has ${name.length} characters, ${maxTopicLength} are allowed`
    : undefined

/** Headers of letters and markers, beside those of `original`. */
export const names = {
  /** The same for every record of one letter. */
  id: "dl_id",
  handler: "dl_handler",
  group: "dl_group",
  errorTag: "dl_error_tag",
  errorMessage: "dl_error_message",
  attempts: "dl_attempts",
  firstFailure: "dl_first_failure",
  lastFailure: "dl_last_failure",
  /** How often the letter came back and failed again. */
  round: "dl_round",
  /** How many of these rounds somebody asked for. */
  replays: "dl_replays",
  /** When it comes back by itself, in milliseconds since the epoch. */
  due: "dl_due",
  /** What became of the letter; a letter has none. */
  marker: "dl_marker"
} as const

const prefix = "dl_"

/** What a record of a dead-letter topic is: a letter, or what became of one. */
export type Kind = "letter" | "replay" | "drop" | "done"

/** What a letter or a marker says about itself, read from its headers only. */
export interface Head {
  readonly kind: Kind
  readonly id: string
  readonly group: string
  readonly handler: string
  readonly round: number
  readonly replays: number
  /** When the letter comes back by itself, in milliseconds; `undefined`: it does not. */
  readonly due: number | undefined
}

/** The message of the failure that a letter was written for. */
export const reasonOf = ({ headers }: ConsumerRecord): string | null => header(headers, names.errorMessage) ?? null

/** The id of the letter that a handler leaves of a message: a second one of the same message has the same. */
export const letterId = (group: string, handler: string, messageId: string, source: string): string =>
  asUuid(
    createHash("sha256").update(group).update("\u0000").update(handler).update("\u0000")
      .update(messageKey({ id: messageId, source })).digest("hex").slice(0, 32)
  )

export interface Grave {
  readonly topic: string
  readonly partition: number
  readonly group: string
  readonly handler: string
  readonly errorTag: string
  readonly errorMessage: string
  /** In this round. */
  readonly attempts: number
  /** RFC 3339 */
  readonly firstFailure: string
  readonly lastFailure: string
  readonly due: number | undefined
  /** The letter that has failed again; `undefined` for the first of its message. */
  readonly before: Returned | undefined
}

const maxMessageBytes = 4_096
const maxTagLength = 256

/** The first bytes of a text, without half a character at the end. */
const cut = (text: string): string => {
  if (text.length * 3 <= maxMessageBytes) return text
  const bytes = Buffer.from(text)
  if (bytes.length <= maxMessageBytes) return text
  let end = maxMessageBytes
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--
  return bytes.toString("utf8", 0, end)
}

/** The letter of a record. A letter that failed again keeps its id, its first failure and its first place. */
export const write = (record: ConsumerRecord, grave: Grave): ProducerRecord => {
  const { before } = grave
  const first = (name: string, value: string): string => header(record.headers, name) ?? value
  const headers: { [name: string]: Headers[string] } = {
    ...record.headers,
    [names.marker]: undefined,
    [names.id]: before === undefined ? idOf(record, grave) : before.head.id,
    [names.handler]: grave.handler,
    [names.group]: grave.group,
    [names.errorTag]: grave.errorTag.slice(0, maxTagLength),
    [names.errorMessage]: cut(grave.errorMessage),
    [names.attempts]: String((before?.attempts ?? 0) + grave.attempts),
    [names.firstFailure]: before?.firstFailure ?? first(names.firstFailure, grave.firstFailure),
    [names.lastFailure]: grave.lastFailure,
    [names.round]: String(before === undefined ? 0 : before.head.round + 1),
    [names.replays]: String(before?.head.replays ?? 0),
    [names.due]: grave.due === undefined ? undefined : String(grave.due),
    [original.topic]: first(original.topic, grave.topic),
    [original.partition]: first(original.partition, String(grave.partition)),
    [original.offset]: first(original.offset, String(record.offset)),
    [original.timestamp]: first(original.timestamp, String(record.timestamp))
  }
  return { key: record.key, value: record.value, headers: defined(headers) }
}

const idOf = (record: ConsumerRecord, { group, handler, partition, topic }: Grave): string => {
  const { id, source } = read(topic, partition, record)
  return letterId(group, handler, id, source)
}

const defined = (headers: Headers): Headers =>
  Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== undefined))

const kinds: { readonly [marker: string]: Kind } = { replay: "replay", drop: "drop", done: "done" }

const whole = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined

/** What a record of a dead-letter topic is; `undefined` for one that is neither letter nor marker. */
export const head = (topic: string, partition: number, record: ConsumerRecord): Head | undefined => {
  const { headers } = record
  const handler = header(headers, names.handler)
  const group = header(headers, names.group)
  if (handler === undefined || group === undefined) return undefined
  const marker = header(headers, names.marker)
  const kind = marker === undefined ? "letter" : kinds[marker]
  if (kind === undefined) return undefined
  let id = header(headers, names.id)
  if (id === undefined) {
    const { id: messageId, source } = read(topic, partition, record)
    id = letterId(group, handler, messageId, source)
  }
  return {
    kind,
    id,
    group,
    handler,
    round: whole(header(headers, names.round)) ?? 0,
    replays: whole(header(headers, names.replays)) ?? 0,
    due: whole(header(headers, names.due))
  }
}

/** A letter as it was before it became one: what its handler sees when it comes back. */
export interface Returned {
  readonly head: Head
  /** The record of the dead-letter topic. */
  readonly raw: ConsumerRecord
  /** Where it lay first. */
  readonly topic: string | undefined
  readonly partition: number
  /** With the offset, the time and the headers that it had first. */
  readonly record: ConsumerRecord
  /** In all rounds before. */
  readonly attempts: number
  readonly firstFailure: string | undefined
}

/** Restores a letter. What its headers leave open is taken from the place of the letter itself. */
export const restore = (head: Head, partition: number, raw: ConsumerRecord): Returned => {
  const text = (name: string) => header(raw.headers, name)
  const offset = text(original.offset)
  const headers: { [name: string]: Headers[string] } = {}
  for (const [name, value] of Object.entries(raw.headers)) if (!name.startsWith(prefix)) headers[name] = value
  return {
    head,
    raw,
    topic: text(original.topic),
    partition: whole(text(original.partition)) ?? partition,
    record: {
      key: raw.key,
      value: raw.value,
      headers,
      offset: offset !== undefined && /^\d{1,19}$/.test(offset) ? BigInt(offset) : raw.offset,
      timestamp: whole(text(original.timestamp)) ?? raw.timestamp
    },
    attempts: whole(text(names.attempts)) ?? 0,
    firstFailure: text(names.firstFailure)
  }
}

/** Says that a letter was applied, or that nobody wants it. */
export const marker = (kind: "drop" | "done", { group, handler, id, round }: Head, key: Uint8Array | null) => ({
  key,
  value: null,
  headers: {
    [names.marker]: kind,
    [names.id]: id,
    [names.handler]: handler,
    [names.group]: group,
    [names.round]: String(round)
  }
} satisfies ProducerRecord)

/** Asks for a letter to be applied once more: a copy of it, which its handler takes. */
export const replay = (record: ConsumerRecord, { id, replays }: Head): ProducerRecord => ({
  key: record.key,
  value: record.value,
  headers: defined({
    ...record.headers,
    [names.marker]: "replay",
    [names.id]: id,
    [names.replays]: String(replays + 1),
    [names.due]: undefined
  })
})

/** The same letter again, to be filed behind others. */
export const copy = ({ headers, key, value }: ConsumerRecord): ProducerRecord => ({ key, value, headers })

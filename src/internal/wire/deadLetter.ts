/**
 * What a dead letter looks like on the wire: the record as it came, in the
 * topic `<topic>.<group>.dead-letter`, with headers that say whose it is and
 * why. Pure.
 *
 * @internal
 */
import type { ConsumerRecord, Headers, ProducerRecord } from "../../Broker.ts"
import { header, original } from "./envelope.ts"

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

export interface Grave {
  readonly topic: string
  readonly partition: number
  readonly group: string
  readonly handler: string
  readonly errorTag: string
  readonly errorMessage: string
  readonly attempts: number
  /** RFC 3339 */
  readonly firstFailure: string
  readonly lastFailure: string
}

const maxMessageLength = 1_024

export const write = (record: ConsumerRecord, grave: Grave): ProducerRecord => {
  const first = (name: string, value: string): string => header(record.headers, name) ?? value
  const headers: Headers = {
    ...record.headers,
    dl_handler: grave.handler,
    dl_group: grave.group,
    dl_error_tag: grave.errorTag,
    dl_error_message: grave.errorMessage.slice(0, maxMessageLength),
    dl_attempts: String(grave.attempts),
    dl_first_failure: first("dl_first_failure", grave.firstFailure),
    dl_last_failure: grave.lastFailure,
    [original.topic]: first(original.topic, grave.topic),
    [original.partition]: first(original.partition, String(grave.partition)),
    [original.offset]: first(original.offset, String(record.offset)),
    [original.timestamp]: first(original.timestamp, String(record.timestamp))
  }
  return { key: record.key, value: record.value, headers }
}

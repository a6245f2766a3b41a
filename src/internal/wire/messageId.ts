/**
 * The identity of a message, as the inbox keeps it: 16 bytes, written as a
 * UUID. Pure.
 *
 * An id that is a UUIDv7 is its own key, so keys are time-ordered and pruned
 * cheaply. Any other id is hashed together with its source, since ids of two
 * producers may be equal; the time is left out, so that a caller's id that is
 * published again is still recognised.
 *
 * @internal
 */
import { createHash } from "node:crypto"

const uuidV7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

/**
 * The UUIDv7 of a time, in milliseconds since the epoch, with the random bits
 * of a UUID of version 4. Node.js keeps random bytes for many of those; drawing
 * some for each id was a seventh of what publishing costs (`npm run bench --
 * publish-batch`).
 */
export const uuidV7Of = (millis: number, random: string): string => {
  const time = millis.toString(16).padStart(12, "0")
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(15)}`
}

/** 32 hexadecimal digits, written as a UUID. */
export const asUuid = (hex: string): string =>
  `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`

export const messageKey = (message: { readonly id: string; readonly source: string }): string => {
  const id = message.id
  const lower = id.length === 36 ? id.toLowerCase() : id
  return uuidV7.test(lower)
    ? lower
    : asUuid(createHash("sha256").update(message.source).update("\u0000").update(id).digest("hex").slice(0, 32))
}

/**
 * The id of a record that carries none. The broker's timestamp belongs to it,
 * since offsets start again when a topic is deleted and created anew.
 */
export const derivedId = (
  topic: string,
  partition: number | string,
  offset: bigint | string,
  timestamp: number | string
): string => `${topic}/${partition}/${offset}/${timestamp}`

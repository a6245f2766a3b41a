/**
 * How a topic's encoded payload becomes bytes.
 *
 * A schema turns a payload into plain data; a codec turns plain data into
 * bytes and names their media type. `Codec.json` is the default of every
 * topic.
 *
 * @since 0.1.0
 */

/**
 * Plain data to bytes and back. Both functions may throw; the thrown value
 * becomes the reason of a typed error (publishing) or of a dead letter
 * (consuming).
 *
 * **When to use**
 *
 * Implement it for a format other than JSON, and pass it to `Topic.make`.
 *
 * **Example** (A codec of one's own)
 *
 * ```ts
 * import type { Codec } from "effect-events"
 *
 * const text: Codec.Codec = {
 *   contentType: "text/plain; charset=utf-8",
 *   encode: (data) => new TextEncoder().encode(String(data)),
 *   decode: (bytes) => new TextDecoder().decode(bytes)
 * }
 * ```
 *
 * @category models
 * @since 0.1.0
 */
export interface Codec {
  /** Media type for the `content-type` header, lower case. */
  readonly contentType: string
  readonly encode: (data: unknown) => Uint8Array
  readonly decode: (bytes: Uint8Array) => unknown
}

const strict = new TextDecoder("utf-8", { fatal: true })
const replacement = "\ufffd"

// A `Buffer` decodes short texts several times faster than a `TextDecoder`,
// but puts U+FFFD where bytes are no UTF-8: only then they are looked at again.
const textOf = (bytes: Uint8Array): string => {
  const text = Buffer.isBuffer(bytes) ? bytes.toString() : strict.decode(bytes)
  return text.includes(replacement) ? strict.decode(bytes) : text
}

/**
 * JSON in UTF-8. Bytes that are not valid UTF-8 are refused, not replaced.
 *
 * @category codecs
 * @since 0.1.0
 */
export const json: Codec = {
  contentType: "application/json",
  encode: (data) => Buffer.from(JSON.stringify(data), "utf8"),
  decode: (bytes) => JSON.parse(textOf(bytes))
}

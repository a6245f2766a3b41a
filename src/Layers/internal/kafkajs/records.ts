/**
 * Owns the form that KafkaJS wants records in on their way out. Pure.
 *
 * Invariant: bytes are never copied, and headers pass through as they are.
 */
import type * as Broker from "../../../Broker.ts"
import type { WireHeaders, WireMessage } from "./internals.ts"

const toBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const textOrBuffer = (value: Broker.HeaderValue): Buffer | string => typeof value === "string" ? value : toBuffer(value)

// KafkaJS throws a TypeError for a header without a value, so those are left out.
const headersToWire = (headers: Broker.Headers): WireHeaders => {
  const wire: WireHeaders = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined) continue
    wire[name] = typeof value === "string" || value instanceof Uint8Array
      ? textOrBuffer(value)
      : value.map(textOrBuffer)
  }
  return wire
}

/** A record on its way out. */
export const toWire = (record: Broker.ProducerRecord): WireMessage => ({
  key: record.key === null ? null : textOrBuffer(record.key),
  value: record.value === null ? null : toBuffer(record.value),
  headers: headersToWire(record.headers)
})

/** Roughly the bytes that a record takes. */
export const sizeOf = (record: Broker.ProducerRecord): number => {
  let bytes = (record.key?.length ?? 0) + (record.value?.byteLength ?? 0) + 10
  for (const [name, value] of Object.entries(record.headers)) {
    if (value === undefined) continue
    const values = typeof value === "string" || value instanceof Uint8Array ? [value] : value
    for (const one of values) bytes += name.length + one.length + 2
  }
  return bytes
}

/**
 * Owns Kafka's compact types, as requests and answers of its later versions
 * have them: lengths are variable and one more than they are, and whatever has
 * fields ends in tagged ones. Pure.
 */
import type { Reader } from "./reader.ts"

/** A structure without tagged fields. */
export const noTags = Buffer.from([0])

const varint = (value: number): ReadonlyArray<number> =>
  value < 0x80 ? [value] : [value & 0x7f | 0x80, ...varint(value >>> 7)]

export const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

/** A length. */
const length = (value: number): Buffer => Buffer.from(varint(value + 1))

export const string = (value: string): Buffer => {
  const bytes = Buffer.from(value)
  return Buffer.concat([length(bytes.length), bytes])
}

export const array = <A>(values: ReadonlyArray<A>, one: (value: A) => ReadonlyArray<Uint8Array>): Buffer =>
  Buffer.concat([length(values.length), ...values.flatMap(one)])

export const readString = (reader: Reader): string => reader.slice(Math.max(0, reader.varint() - 1)).toString()

export const readNullableString = (reader: Reader): string | null => {
  const size = reader.varint()
  return size === 0 ? null : reader.slice(size - 1).toString()
}

export const readArray = <A>(reader: Reader, read: () => A): Array<A> => {
  const values: Array<A> = []
  for (let left = reader.varint() - 1; left > 0; left--) values.push(read())
  return values
}

/** Whatever has fields ends in tagged ones, which newer brokers may add. */
export const skipTags = (reader: Reader): void => {
  for (let left = reader.varint(); left > 0; left--) {
    reader.varint()
    reader.skip(reader.varint())
  }
}

/**
 * Owns the way to a broker for requests in versions that KafkaJS does not
 * speak, and the types of the protocol's later versions.
 *
 * Invariant: a request is sent only to a broker that says that it speaks it.
 *
 * The insight: KafkaJS's own requests all look up their form with
 * `lookupRequest` and send what they get. With another form there, ours take
 * the same way, with its timeouts, and close what is broken.
 */
import type { Node, OwnRequest } from "./internals.ts"
import { Reader } from "./reader.ts"

/** A request in one version, and how its answer is read. */
export interface Form<A> {
  readonly apiName: string
  readonly apiKey: number
  readonly apiVersion: number
  readonly body: ReadonlyArray<Uint8Array>
  readonly read: (reader: Reader) => A
}

/** Whether a broker speaks a request in this version. */
export const isSpoken = ({ versions }: Node, { apiKey, apiVersion }: Omit<Form<unknown>, "body" | "read">): boolean => {
  const offered = versions?.[apiKey]
  return offered !== undefined && offered.minVersion <= apiVersion && apiVersion <= offered.maxVersion
}

type Parse<A> = OwnRequest<A>["response"]["parse"]

const inKafkaJsForm = <A>({ apiKey, apiName, apiVersion, body, read }: Form<A>, parse: Parse<A>): OwnRequest<A> => {
  // The tagged fields of the request's header, of which KafkaJS knows nothing, come last there.
  const bytes = Buffer.concat([noTags, ...body])
  const decode = (payload: Buffer) => {
    const reader = new Reader(payload)
    skipTags(reader)
    return read(reader)
  }
  return {
    request: { apiKey, apiVersion, apiName, encode: () => Promise.resolve({ buf: bytes, buffer: bytes }) },
    response: { decode: (payload) => Promise.resolve(payload).then(decode), parse }
  }
}

const speaker = <A>(node: Node, form: (theirs: () => OwnRequest<A>) => OwnRequest<A>): Node => {
  const lookupRequest = (...definition: ReadonlyArray<unknown>) => (...request: ReadonlyArray<unknown>) =>
    form(() => node.lookupRequest(...definition)(...request) as OwnRequest<A>)
  return Object.assign(Object.create(node) as Node, { lookupRequest })
}

/** Sends a request, and gives the answer as it is read. */
export const ask = <A>(node: Node, form: Form<A>): Promise<A> =>
  speaker(node, () => inKafkaJsForm(form, (answer) => Promise.resolve(answer))).metadata() as unknown as Promise<A>

/** Sends a request in place of the one that `send` sends; KafkaJS says which of its errors the answer is. */
export const askInPlace = <A>(node: Node, form: Form<A>, send: (node: Node) => Promise<A>): Promise<A> =>
  send(speaker<A>(node, (theirs) => inKafkaJsForm(form, theirs().response.parse)))

/** A structure without tagged fields. */
export const noTags = Buffer.from([0])

const varint = (value: number): ReadonlyArray<number> =>
  value < 0x80 ? [value] : [value & 0x7f | 0x80, ...varint(value >>> 7)]

export const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

/** Compact types: lengths are one more than they are. */
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

/**
 * Owns the way to a broker for requests in versions that KafkaJS does not
 * speak, or with bodies that we write ourselves.
 *
 * Invariant: a request is sent only to a broker that says that it speaks it.
 *
 * The insight: KafkaJS's own requests all look up their form with
 * `lookupRequest` and send what they get. With another form there, ours take
 * the same way, with its timeouts, and close what is broken.
 */
import * as Compact from "../kafka/compact.ts"
import { Reader } from "../kafka/reader.ts"
import type { Node, OwnRequest } from "./internals.ts"

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
  const bytes = Buffer.concat([Compact.noTags, ...body])
  const decode = (payload: Buffer) => {
    const reader = new Reader(payload)
    Compact.skipTags(reader)
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

/** Sends what `send` sends, in its version and with its answer, but with this body. */
export const sendBody = <A>(node: Node, body: Buffer, send: (node: Node) => Promise<A>): Promise<A> =>
  send(speaker<A>(node, (theirs) => {
    const { request, response } = theirs()
    return { request: { ...request, encode: () => Promise.resolve({ buf: body, buffer: body }) }, response }
  }))

/** Sends a request in place of the one that `send` sends; KafkaJS says which of its errors the answer is. */
export const askInPlace = <A>(node: Node, form: Form<A>, send: (node: Node) => Promise<A>): Promise<A> =>
  send(speaker<A>(node, (theirs) => inKafkaJsForm(form, theirs().response.parse)))

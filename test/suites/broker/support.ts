/** Topics, records and sending for the broker suite. */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type {
  BrokerError,
  BrokerErrorReason,
  ConsumerRecord,
  Headers,
  HeaderValue,
  ProducerRecord
} from "../../../src/Broker.ts"
import { Broker } from "../../../src/Broker.ts"
import { freshName } from "../features.ts"

const encoder = new TextEncoder()

export const bytes = (text: string): Uint8Array => encoder.encode(text)

/** Numbers from 0, as an array. */
export const upTo = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index)

/** Bound of one send. */
export const sendTimeout = Duration.seconds(30)

/** Creates a topic that no other run uses. */
export const freshTopic = Effect.fnUntraced(function*(
  partitions = 1,
  config?: { readonly [name: string]: string }
) {
  const name = yield* freshName("suite")
  const broker = yield* Broker
  yield* broker.ensureTopics([{ name, create: { partitions, ...(config === undefined ? {} : { config }) } }])
  return name
})

export const freshGroup = freshName("suite-group")

export const record = (value: string | Uint8Array | null, key: string | null = null, headers: Headers = {}) => ({
  key,
  value: typeof value === "string" ? bytes(value) : value,
  headers
})

/** Sends records to one partition with a producer of its own; returns the first offset. */
export const sendRecords = Effect.fnUntraced(function*(
  topic: string,
  partition: number,
  records: readonly [ProducerRecord, ...Array<ProducerRecord>]
) {
  const broker = yield* Broker
  const producer = yield* broker.producer
  return yield* producer.send({ topic, partition, records, timeout: sendTimeout })
}, Effect.scoped)

/** Sends texts to one partition, in order; returns the first offset. */
export const send = (topic: string, partition: number, texts: ReadonlyArray<string>) =>
  sendRecords(topic, partition, nonEmpty(texts.map((text) => record(text))))

export const nonEmpty = <A>(items: ReadonlyArray<A>): readonly [A, ...Array<A>] => {
  const [head, ...rest] = items
  if (head === undefined) {
    throw new Error("needs at least one item")
  }
  return [head, ...rest]
}

/** Sends `${prefix}-${partition}-${index}` to each partition; returns all of them. */
export const sendToEach = Effect.fnUntraced(function*(topic: string, partitions: number, each: number, prefix = "v") {
  const texts = upTo(partitions).map((partition) => upTo(each).map((index) => `${prefix}-${partition}-${index}`))
  yield* Effect.forEach(texts, (own, partition) => send(topic, partition, own), { concurrency: 4, discard: true })
  return texts.flat()
})

/** Fails the case unless an effect fails with a `BrokerError`, and returns its reason. */
export const reasonOf = <A, R>(effect: Effect.Effect<A, BrokerError, R>): Effect.Effect<BrokerErrorReason, never, R> =>
  Effect.flatMap(Effect.result(effect), (result) =>
    result._tag === "Failure"
      ? Effect.succeed(result.failure.reason)
      : Effect.die(new Error(`expected a BrokerError, but it succeeded with ${String(result.success)}`)))

/**
 * Lets the broker do something else from end to end: another group joins and
 * reads. Before asserting that something has *not* happened, it gives a Layer
 * that does it wrongly the time to do so.
 */
export const meanwhile = Effect.gen(function*() {
  const broker = yield* Broker
  const topic = yield* freshTopic()
  const read = yield* Deferred.make<void>()
  yield* broker.subscribe({
    group: yield* freshGroup,
    topics: [topic],
    onSignal: (signal) => signal._tag === "Records" ? Deferred.succeed(read, undefined) : Effect.void
  })
  yield* send(topic, 0, ["meanwhile"])
  yield* Deferred.await(read)
}).pipe(Effect.scoped)

/** Header values as arrays of byte arrays, so that text and bytes compare. */
export const headerBytes = (
  record: ConsumerRecord | ProducerRecord
): { [name: string]: ReadonlyArray<ReadonlyArray<number>> } => {
  const out: { [name: string]: ReadonlyArray<ReadonlyArray<number>> } = {}
  for (const [name, value] of Object.entries(record.headers)) {
    if (value !== undefined) {
      const values: ReadonlyArray<HeaderValue> = isSingle(value) ? [value] : value
      out[name] = values.map((one) => Array.from(typeof one === "string" ? bytes(one) : one))
    }
  }
  return out
}

const isSingle = (value: HeaderValue | ReadonlyArray<HeaderValue>): value is HeaderValue =>
  typeof value === "string" || value instanceof Uint8Array

/** Sorted, for comparing as multisets. */
export const sorted = (texts: ReadonlyArray<string | null>): ReadonlyArray<string> => texts.map(String).sort()

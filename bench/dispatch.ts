/**
 * `dispatch` and `dispatch-decoded`: what the engine itself costs. Records come
 * from memory, without a client or a broker; the twin is the least that runs a
 * handler with 16 slots in Effect: workers on a queue, without order, offsets,
 * retries, time limits or commits.
 */
import { Deferred, Effect, Layer, Queue, Schema, SchemaParser } from "effect"
import { type Broker, type Codec, Consumer, type ConsumerGroup, Topic } from "effect-events"
import * as FedBroker from "../test/support/fedBroker.ts"
import { type Benchmark, measure, quiet, type Round, sized } from "./harness.ts"
import { Order, orderOf, sumOf } from "./orders.ts"

type Record = Broker.ConsumerRecord

const events = sized(300_000, 60_000)
const chunk = 500
const partitions = 3
const slots = 16

const settings = {
  events,
  partitions,
  chunk,
  twin: `${slots} fibers on Queue.takeBetween(queue, 1, 64), Effect.exit around the handler`
}

const orders = (): Array<Array<Record>> =>
  recordsOf((i) => {
    const order = orderOf(i)
    return [order.customer, Buffer.from(JSON.stringify(order))]
  })

/** With its decode: JSON and the schema of a flat class, on both sides. */
export const dispatch: Benchmark = {
  name: "dispatch Memory",
  aim: 0.77,
  short: 3,
  settings: { ...settings, ours: "idempotent, defaults, schema decode", decode: "JSON.parse and Schema.Class" },
  open: () => {
    const records = orders()
    const topic = Topic.make("orders", { schema: Order })
    const decode = SchemaParser.decodeUnknownEffect(Schema.toCodecJson(Order))
    return Promise.resolve({
      ours: () =>
        ours(records, (add) => Consumer.idempotent(topic, (event) => Effect.sync(() => add(event.payload.total)))),
      twin: () => twin(records, (record) => decode(JSON.parse(record.value!.toString())), (order) => order.total),
      close: () => Promise.resolve()
    })
  }
}

// A payload that comes decoded: the number itself.
const ready = (numbers: ReadonlyMap<Uint8Array, number>): Codec.Codec => ({
  contentType: "application/octet-stream",
  encode: () => new Uint8Array(),
  decode: (bytes) => numbers.get(bytes)
})

/** Without the decode. */
export const dispatchDecoded: Benchmark = {
  name: "dispatch-decoded Memory",
  short: 3,
  settings: { ...settings, ours: "idempotent, defaults", decode: "none" },
  open: () => {
    const values = Array.from({ length: 100 }, (_, i) => Buffer.from([i]))
    const records = recordsOf((i) => [orderOf(i).customer, values[i % 100]!])
    const codec = ready(new Map(values.map((value, i) => [value, i])))
    const topic = Topic.make("orders", { schema: Schema.Number, codec })
    return Promise.resolve({
      ours: () => ours(records, (add) => Consumer.idempotent(topic, (event) => Effect.sync(() => add(event.payload)))),
      twin: () => twin(records, (record) => Effect.succeed(codec.decode(record.value!) as number), (total) => total),
      close: () => Promise.resolve()
    })
  }
}

const recordsOf = (make: (i: number) => readonly [key: string, value: Buffer]): Array<Array<Record>> => {
  const all = Array.from({ length: partitions }, (): Array<Record> => [])
  for (let i = 0; i < events; i++) {
    const [key, value] = make(i)
    const records = all[i % partitions]!
    records.push({
      key: Buffer.from(key),
      value,
      headers: { ce_id: Buffer.from(`id-${i}`), ce_type: Buffer.from("Order") },
      offset: BigInt(records.length),
      timestamp: 0
    })
  }
  return all
}

const check = (sum: number): void => {
  if (sum !== sumOf(events)) throw new Error(`The sum is ${sum} and should be ${sumOf(events)}`)
}

type Add = (total: number) => void

/** Adds up; `done` when all events have been added. */
const adder = (started: () => void, done: () => void) => {
  let count = 0
  let sum = 0
  const add: Add = (total) => {
    if (count === 0) started()
    sum += total
    if (++count === events) {
      check(sum)
      done()
    }
  }
  return add
}

const ours = (
  records: ReadonlyArray<ReadonlyArray<Record>>,
  consumer: (add: Add) => Consumer.Consumer<Broker.Broker | ConsumerGroup.ConsumerGroup>
): Promise<Round> =>
  measure(events, (started) => {
    const done = Deferred.makeUnsafe<void>()
    const broker = FedBroker.layer({
      partitions,
      next: (partition, from) => records[partition]!.slice(from, from + chunk)
    })
    const add = adder(started, () => Deferred.doneUnsafe(done, Effect.void))
    return Effect.andThen(Layer.build(Consumer.layer("bench", [consumer(add)])), Deferred.await(done)).pipe(
      Effect.scoped,
      Effect.provide(broker),
      quiet,
      Effect.runPromise
    )
  })

const twin = <A>(
  records: ReadonlyArray<ReadonlyArray<Record>>,
  decode: (record: Record) => Effect.Effect<A, unknown>,
  totalOf: (payload: A) => number
): Promise<Round> =>
  measure(events, (started) =>
    Effect.gen(function*() {
      const queue = yield* Queue.bounded<Record>(partitions * 1_024)
      const done = Deferred.makeUnsafe<void>()
      const add = adder(started, () => Deferred.doneUnsafe(done, Effect.void))
      const handle = (payload: A) => Effect.sync(() => add(totalOf(payload)))
      const worker = Effect.gen(function*() {
        for (;;) {
          const batch = yield* Queue.takeBetween(queue, 1, 64)
          for (const record of batch) yield* Effect.exit(handle(yield* decode(record)))
        }
      })
      for (let i = 0; i < slots; i++) yield* Effect.forkScoped(worker)
      for (let from = 0; from < records[0]!.length; from += chunk) {
        for (const partition of records) yield* Queue.offerAll(queue, partition.slice(from, from + chunk))
      }
      yield* Deferred.await(done)
    }).pipe(Effect.scoped, quiet, Effect.runPromise))

/**
 * Events from elsewhere. Kafka's own console producer writes to a topic, with
 * and without CloudEvents headers, in structured mode, and what is no JSON at
 * all; a consumer of this library takes what it can, and the rest goes to the
 * dead-letter topic, which is read back. It needs a Kafka, Java 17, and Maven
 * the first time:
 *
 *     npm run services -- up kafka
 *     KAFKA_BROKERS=127.0.0.1:9092 node --conditions=effect-events-source examples/interop/main.ts
 *
 * Exit code 0 means that each record met its expected fate.
 */
import { NodeServices } from "@effect/platform-node"
import { Config, Effect, Layer, Option, Queue, Stream } from "effect"
import { Consumer, type Event } from "effect-events"
import * as KafkaJs from "effect-events/Layers/KafkaJs"
import { randomBytes } from "node:crypto"
import { logging } from "../orders/logging.ts"
import { runMain } from "../support/runMain.ts"
import { produce } from "./consoleProducer.ts"
import { type Foreign, valuesOnly, withHeadersAndKeys } from "./foreign.ts"
import { DeadLetters, group, type OrderPlaced, Orders } from "./orders.ts"
import { type Fate, report } from "./report.ts"

/** A topic of its own per run. */
const topicPrefix = `interop_${randomBytes(4).toString("hex")}.`

const brokers = Config.String("KAFKA_BROKERS").pipe(Config.withDefault("localhost:9092"))

const Kafka = Layer.unwrap(Effect.map(
  brokers,
  (brokers) => KafkaJs.layer({ brokers: brokers.split(","), topicPrefix, sessionTimeout: "6 seconds" })
))

const all: ReadonlyArray<Foreign> = [...withHeadersAndKeys, ...valuesOnly]
const toBeHandled = all.filter(({ fate }) => fate._tag === "Handled").length

const writeForeignRecords = Effect.gen(function*() {
  const to = { brokers: yield* brokers, topic: topicPrefix + Orders.name }
  const lines = (records: ReadonlyArray<Foreign>) => records.map(({ line }) => line)
  yield* produce({
    ...to,
    properties: ["parse.headers=true", "parse.key=true"],
    lines: lines(withHeadersAndKeys)
  })
  yield* produce({ ...to, properties: [], lines: lines(valuesOnly) })
})

/** The first dead letter: the record as it came, with headers that say why it is here. */
const readDeadLetter = Consumer.stream(DeadLetters).pipe(
  Stream.take(1),
  Stream.tap(({ finish }) => Effect.sync(finish)),
  Stream.runHead,
  Effect.map(Option.map(({ event }) => event)),
  Consumer.inGroup("undertaker")
)

const program = Effect.scoped(Effect.gen(function*() {
  const handled = yield* Queue.unbounded<Event.Event<OrderPlaced>>()
  const Take = Consumer.idempotent(Orders, (event) => Queue.offer(handled, event))
  // Built once the topics exist and the group is joined.
  yield* Layer.build(Consumer.layer(group, [Take]))
  yield* writeForeignRecords
  const events = yield* Queue.takeN(handled, toBeHandled)
  const deadLetter = yield* readDeadLetter
  const fates = new Map<string, Fate>()
  for (const event of events) fates.set(event.payload.orderId, { _tag: "Handled", event })
  if (Option.isSome(deadLetter)) fates.set(deadLetter.value.payload, { _tag: "DeadLetter", event: deadLetter.value })
  return (yield* report(all, fates)) ? 0 : 1
})).pipe(Effect.timeout("90 seconds"))

runMain(Effect.provide(program, Layer.mergeAll(Kafka, NodeServices.layer).pipe(Layer.provideMerge(logging))))

/**
 * `node --expose-gc backlogProgram.ts GROUP TOPIC COUNT`: reads so many events
 * that lie in a topic of the Kafka at `KAFKA_BROKERS`, with a slow handler, and
 * prints what it held meanwhile, as JSON. A process of its own, so that nothing
 * else grows or shrinks beside it.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schema from "effect/Schema"
import * as Consumer from "../../src/Consumer.ts"
import * as Topic from "../../src/Topic.ts"
import { KafkaLayer } from "./kafkaClient.ts"

const [group = "", topic = "", count = "0"] = process.argv.slice(2)
const brokers = (process.env.KAFKA_BROKERS ?? "").split(",")
const events = Number(count)
const Notes = Topic.make(topic, { schema: Schema.Struct({ n: Schema.Number, note: Schema.String }) })

/** Bytes on the heap and in buffers, after a collection. */
const held = (): number => {
  // Buffers that the first one found are freed by the second.
  globalThis.gc!()
  globalThis.gc!()
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

const before = held()
const samples: Array<number> = []
const done = Deferred.makeUnsafe<void>()
let handled = 0

const consumer = Consumer.idempotent(Notes, () =>
  Effect.map(Effect.sleep("5 millis"), () => {
    if (++handled % (events / 20) === 0) samples.push(held() - before)
    if (handled === events) Deferred.doneUnsafe(done, Effect.void)
  }))

await Effect.andThen(Layer.build(Consumer.layer(group, [consumer])), Deferred.await(done)).pipe(
  Effect.scoped,
  Effect.provide(KafkaLayer.layer({ brokers })),
  Effect.provideService(References.MinimumLogLevel, "Warn"),
  Effect.andThen(Effect.sync(() => console.log(JSON.stringify(samples)))),
  Effect.runPromise
)

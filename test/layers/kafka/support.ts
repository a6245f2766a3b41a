/** Topics, records and the log as it is, for the tests of the Kafka Layers. */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as net from "node:net"
import * as Broker from "../../../src/Broker.ts"
import { bytes, nonEmpty, upTo } from "../../suites/broker/support.ts"
import { freshName } from "../../suites/features.ts"
import { KafkaLayer, type Options } from "../../support/kafkaClient.ts"

export { bytes, freshName, nonEmpty, upTo }

/** A broker of its own, closed with the scope. Timeouts are short, so that accidents end soon. */
export const connect = (options: Options) =>
  Effect.map(
    Layer.build(KafkaLayer.layer({
      heartbeatInterval: "500 millis",
      sessionTimeout: "6 seconds",
      requestTimeout: "3 seconds",
      metadataMaxAge: "1 second",
      ...options
    })),
    Context.get(Broker.Broker)
  )

/** An address that takes connections and says nothing, as a frozen broker does. */
export const silentAddress = Effect.map(
  Effect.acquireRelease(
    Effect.callback<net.Server>((resume) => {
      const server = net.createServer(() => {}).listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  ),
  (server) => `127.0.0.1:${(server.address() as net.AddressInfo).port}`
)

type Service = Broker.Broker["Service"]

/** Creates a topic that no other run uses. */
export const newTopic = Effect.fnUntraced(function*(broker: Service, partitions: number) {
  const name = yield* freshName("kafka")
  yield* broker.ensureTopics([{ name, create: { partitions } }])
  return name
})

export const one = (text: string): Broker.ProducerRecord => ({ key: null, value: bytes(text), headers: {} })

/** Sends one text. */
export const sendText = (
  producer: Broker.Producer,
  topic: string,
  partition: number,
  text: string,
  timeout: Duration.Duration = Duration.seconds(60)
) => producer.send({ topic, partition, records: [one(text)], timeout })

const text = new TextDecoder()

/**
 * What lies in a topic, by partition and in order, read by a group of its own
 * until `marker` has been found in every partition.
 */
export const readLog = Effect.fnUntraced(function*(broker: Service, topic: string, partitions: number) {
  const marker = yield* freshName("end")
  const producer = yield* broker.producer
  yield* Effect.forEach(upTo(partitions), (partition) => sendText(producer, topic, partition, marker))
  const log = upTo(partitions).map((): Array<string> => [])
  const open = new Set(upTo(partitions))
  const done = yield* Deferred.make<void>()
  yield* broker.subscribe({
    group: yield* freshName("log"),
    topics: [topic],
    onSignal: (signal) =>
      Effect.suspend(() => {
        if (signal._tag !== "Records") return Effect.void
        const { partition } = signal.assignment
        for (const record of signal.records) {
          const value = record.value === null ? "" : text.decode(record.value)
          if (value === marker) open.delete(partition)
          else log[partition]!.push(value)
        }
        return open.size === 0 ? Deferred.succeed(done, undefined) : Effect.void
      })
  })
  yield* Deferred.await(done)
  return log
}, Effect.scoped)

/** What was acknowledged but is not in the log, and what is there more than once. */
export const compare = (acknowledged: ReadonlyArray<string>, log: ReadonlyArray<ReadonlyArray<string>>) => {
  const counts = new Map<string, number>()
  for (const value of log.flat()) counts.set(value, (counts.get(value) ?? 0) + 1)
  return {
    lost: acknowledged.filter((value) => !counts.has(value)),
    doubled: [...counts].filter(([, count]) => count > 1).map(([value]) => value)
  }
}

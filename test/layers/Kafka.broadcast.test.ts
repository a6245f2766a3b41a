/** Broadcast subscriptions on a real Kafka: the suite, no group, and a broker that is killed. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Broadcast from "../../src/Broadcast.ts"
import { Broker } from "../../src/Broker.ts"
import { broadcastSuite } from "../suites/broadcast/index.ts"
import { inAnotherProcess, logged, numbersOf } from "../suites/broadcast/support.ts"
import { removedAtEnd } from "../suites/consumer/kafka.ts"
import { freshTopic, items, publishAll, silent, upTo } from "../suites/consumer/support.ts"
import { clientName, KafkaLayer } from "../support/kafkaClient.ts"
import { kafkaBrokers, requireOrSkip } from "../support/services.ts"
import { kill, ownKafka, start } from "./kafka/cluster.ts"
import { outside } from "./kafka/outside.ts"
import { connect } from "./kafka/support.ts"

const brokers = kafkaBrokers ?? []
const topicPrefix = `t-${crypto.randomUUID()}.`
const kafka = outside(brokers)

const services = Layer.provideMerge(
  KafkaLayer.layer({ brokers, topicPrefix, source: "/suite", requestTimeout: "3 seconds", metadataMaxAge: "1 second" }),
  Layer.effectDiscard(removedAtEnd(topicPrefix))
)

describe.skipIf(requireOrSkip("kafka"))("with a real Kafka", () => {
  broadcastSuite(clientName, services, {
    clock: "live",
    events: 1_000,
    addPartitions: (topic, count) => kafka.addPartitions(`${topicPrefix}${topic}`, count),
    deleteTopic: (topic) => kafka.deleteTopic(`${topicPrefix}${topic}`)
  })

  const texts = (from: number) => upTo(20).map((n) => from + n)

  it.live(
    "on a broker of its own: nothing is lost when it is killed and when it is silent, and it has no group at any time",
    () =>
      Effect.gen(function*() {
        const cluster = yield* ownKafka({})
        const { groups } = outside(cluster.brokers)
        // Who publishes meanwhile waits for as long as a busy machine needs to start a broker.
        const settings = { metadataMaxAge: "500 millis", connectTimeout: "80 seconds" } as const
        const broker = yield* connect({ brokers: cluster.brokers, ...settings })
        yield* Effect.gen(function*() {
          const topic = yield* freshTopic(2)
          assert.deepStrictEqual(yield* groups, [])
          const options = { strategy: "fail", buffer: 1_000 } as const
          const logs = [
            yield* logged(yield* Broadcast.subscribe(topic, options)),
            yield* logged(yield* inAnotherProcess(Broadcast.subscribe(topic, options)))
          ]
          const seen = (last: number) =>
            Effect.forEach(
              logs,
              (log) => log.until(`all up to ${last}`, (all) => new Set(numbersOf(all)).size === last)
            )
          yield* publishAll(topic, items(20, 4))
          yield* seen(20)
          const [node] = cluster.nodes
          yield* kill(node!)
          const during = yield* Effect.forkChild(publishAll(topic, items(20, 4, 20)))
          yield* start(node!)
          yield* Fiber.join(during)
          yield* seen(40)
          // The silence is the point: the metadata grows old several times in it.
          yield* Effect.sleep("3 seconds")
          yield* publishAll(topic, items(20, 4, 40))
          yield* seen(60)
          for (const log of logs) {
            for (const key of upTo(4).map((n) => `key-${n}`)) {
              const own = numbersOf(log.all.filter((event) => event.key === key))
              assert.deepStrictEqual(
                own,
                [...texts(0), ...texts(20), ...texts(40)].filter((n) => `key-${n % 4}` === key)
              )
            }
          }
          assert.deepStrictEqual(yield* groups, [])
        }).pipe(Effect.scoped, Effect.provideContext(Context.make(Broker, broker)))
        assert.deepStrictEqual(yield* groups, [])
      }).pipe(Effect.provide(silent)),
    360_000
  )
})

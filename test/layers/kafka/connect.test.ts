/** The first connect: who answers, who lets us in, and how soon we know. */
import { assert, describe, it, layer } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { createHook } from "node:async_hooks"
import * as net from "node:net"
import { saslUser } from "../../../scripts/services/kafka/properties.ts"
import { Broker } from "../../../src/Broker.ts"
import { KafkaLayer, type Options } from "../../support/kafkaClient.ts"
import { kafkaBrokers, requireOrSkip } from "../../support/services.ts"
import { ownKafka } from "./cluster.ts"
import { connect, newTopic, readLog, sendText, silentAddress } from "./support.ts"

/** How a Layer fails to be built, and how long that took. */
const failure = (options: Options) =>
  Effect.timed(Effect.flip(Effect.scoped(Layer.build(KafkaLayer.layer(options))))).pipe(
    Effect.map(([duration, error]) => ({ duration: Duration.toMillis(duration), reason: error.reason, error }))
  )

/** An address where nobody listens. */
const deadAddress = Effect.callback<string>((resume) => {
  const server = net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address() as net.AddressInfo
    server.close(() => resume(Effect.succeed(`127.0.0.1:${port}`)))
  })
})

describe("an address without a broker", () => {
  it.live("fails the Layer within the bound, and says where and what was tried", () =>
    Effect.gen(function*() {
      const address = yield* deadAddress
      const { duration, error, reason } = yield* failure({ brokers: [address], connectTimeout: "1 second" })
      assert.strictEqual(reason._tag, "Unreachable")
      assert.isBelow(duration, 5_000)
      assert.include(error.message, address)
      assert.match(error.message, /\d+ attempts in 1000 ms/)
      assert.match(error.message, /ECONNREFUSED/)
    }))

  it.live("that takes connections and says nothing fails within the bound, too", () =>
    Effect.gen(function*() {
      const { duration, reason } = yield* failure({ brokers: [yield* silentAddress], connectTimeout: "1 second" })
      assert.strictEqual(reason._tag, "Unreachable")
      assert.isBelow(duration, 5_000)
    }))
})

describe.skipIf(requireOrSkip("kafka"))("with a real Kafka", () => {
  const brokers = kafkaBrokers ?? []

  it.live("one dead address among several does not matter", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers: [yield* deadAddress, ...brokers] })
      const topic = yield* newTopic(broker, 1)
      assert.strictEqual(yield* sendText(yield* broker.producer, topic, 0, "x"), 0n)
    }))

  it.live(
    "nor does one that takes connections and says nothing, as a frozen broker does",
    () =>
      Effect.gen(function*() {
        const broker = yield* connect({ brokers: [yield* silentAddress, ...brokers], connectTimeout: "8 seconds" })
        const topic = yield* newTopic(broker, 1)
        assert.strictEqual(yield* sendText(yield* broker.producer, topic, 0, "x"), 0n)
        assert.deepStrictEqual(yield* readLog(broker, topic, 1), [["x"]])
      }),
    180_000
  )

  it.live("options come from the environment", () =>
    Effect.gen(function*() {
      const env = { KAFKA_BROKERS: brokers.join(","), KAFKA_CLIENT_ID: "billing", KAFKA_TOPIC_PREFIX: "test." }
      const provider = ConfigProvider.layer(ConfigProvider.fromEnv({ env }))
      const broker = Context.get(yield* Layer.build(Layer.provide(KafkaLayer.layerConfig(), provider)), Broker)
      assert.strictEqual(broker.source, "billing")
      assert.strictEqual(broker.address, brokers.join(","))
      const topic = yield* newTopic(broker, 1)
      const plain = yield* connect({ brokers })
      yield* plain.ensureTopics([{ name: `test.${topic}`, create: undefined }])
    }))

  it.live("a password never appears in what the service shows", () =>
    Effect.gen(function*() {
      const sasl = { mechanism: "plain", username: "u", password: Redacted.make("top-secret") } as const
      const { error } = yield* failure({ brokers, sasl, connectTimeout: "2 seconds" })
      assert.strictEqual(error.reason._tag, "AuthenticationFailed")
      assert.notInclude(JSON.stringify(error) + error.message + error.stack, "top-secret")
    }))

  it.live("an idle connection arms no timers with a negative delay", () =>
    Effect.gen(function*() {
      const broker = yield* connect({ brokers })
      const topic = yield* newTopic(broker, 1)
      const producer = yield* broker.producer
      yield* sendText(producer, topic, 0, "x")
      let timers = 0
      const hook = createHook({ init: (_, type) => type === "Timeout" && timers++ })
      yield* Effect.acquireRelease(Effect.sync(() => hook.enable()), () => Effect.sync(() => hook.disable()))
      yield* Effect.sleep("500 millis")
      // KafkaJS as it is arms one each millisecond on every connection.
      assert.isBelow(timers, 50)
    }))
})

class Secured extends Context.Service<Secured, { readonly address: string }>()("test/Secured") {
  static readonly layer = Layer.effect(
    Secured,
    Effect.map(ownKafka({ sasl: true }), (cluster) => ({ address: cluster.saslBrokers[0]! }))
  )
}

describe.skipIf(requireOrSkip("kafka"))("with a Kafka that wants a login", () => {
  layer(Secured.layer, { excludeTestServices: true, timeout: 180_000 })((it) => {
    const sasl = (password: string) =>
      ({ mechanism: "plain", username: saslUser.username, password: Redacted.make(password) }) as const

    it.effect("the right password opens", () =>
      Effect.gen(function*() {
        const { address } = yield* Secured
        const broker = yield* connect({ brokers: [address], sasl: sasl(saslUser.password) })
        const topic = yield* newTopic(broker, 1)
        assert.strictEqual(yield* sendText(yield* broker.producer, topic, 0, "x"), 0n)
      }))

    it.effect("a wrong password fails at once with AuthenticationFailed", () =>
      Effect.gen(function*() {
        const { address } = yield* Secured
        const { duration, reason } = yield* failure({ brokers: [address], sasl: sasl("wrong") })
        assert.strictEqual(reason._tag, "AuthenticationFailed")
        assert.isBelow(duration, 5_000)
      }))

    it.effect("no login at all fails with AuthenticationFailed that says what is missing", () =>
      Effect.gen(function*() {
        const { address } = yield* Secured
        const { duration, error, reason } = yield* failure({ brokers: [address] })
        assert.strictEqual(reason._tag, "AuthenticationFailed")
        assert.include(error.message, "`sasl` is not set")
        assert.isBelow(duration, 8_000)
      }))
  })
})

/** TLS, with a login on top of it, as managed Kafka wants it. */
import { assert, describe, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type { KafkaCluster } from "../../../scripts/services/kafka/cluster.ts"
import { saslUser } from "../../../scripts/services/kafka/properties.ts"
import { KafkaLayer, type Options } from "../../support/kafkaClient.ts"
import { requireOrSkip } from "../../support/services.ts"
import { ownKafka } from "./cluster.ts"
import { connect, newTopic, readLog, sendText } from "./support.ts"

class Secured extends Context.Service<Secured, KafkaCluster>()("test/Secured") {
  static readonly layer = Layer.effect(Secured, ownKafka({ tls: true }))
}

const sasl = {
  mechanism: "plain",
  username: saslUser.username,
  password: Redacted.make<string>(saslUser.password)
} as const

/** How a Layer fails to be built, and how long that took. */
const failure = (options: Options) =>
  Effect.timed(Effect.flip(Effect.scoped(Layer.build(KafkaLayer.layer(options))))).pipe(
    Effect.map(([duration, error]) => ({ millis: Duration.toMillis(duration), reason: error.reason._tag, error }))
  )

describe.skipIf(requireOrSkip("kafka"))("with a Kafka that speaks TLS", () => {
  layer(Secured.layer, { excludeTestServices: true, timeout: 180_000 })((it) => {
    it.effect("whose authority is known, events are sent and read", () =>
      Effect.gen(function*() {
        const { ca, tlsBrokers } = yield* Secured
        const broker = yield* connect({ brokers: tlsBrokers, ssl: { ca }, sasl })
        const topic = yield* newTopic(broker, 2)
        const producer = yield* broker.producer
        for (const partition of [0, 1]) yield* sendText(producer, topic, partition, `to ${partition}`)
        assert.deepStrictEqual(yield* readLog(broker, topic, 2), [["to 0"], ["to 1"]])
      }))

    it.effect("a wrong password fails at once with AuthenticationFailed", () =>
      Effect.gen(function*() {
        const { ca, tlsBrokers } = yield* Secured
        const wrong = { ...sasl, password: Redacted.make("wrong") }
        const { millis, reason } = yield* failure({ brokers: tlsBrokers, ssl: { ca }, sasl: wrong })
        assert.strictEqual(reason, "AuthenticationFailed")
        assert.isBelow(millis, 5_000)
      }))

    it.effect("an authority that nobody trusts fails at once with CertificateRejected, and says what to give", () =>
      Effect.gen(function*() {
        const { tlsBrokers } = yield* Secured
        const { error, millis, reason } = yield* failure({ brokers: tlsBrokers, ssl: true, sasl })
        assert.strictEqual(reason, "CertificateRejected")
        assert.include(error.message, "self-signed certificate")
        assert.include(error.message, "ssl: { ca }")
        assert.isBelow(millis, 5_000)
      }))

    it.effect("one address among several that speaks no TLS does not matter", () =>
      Effect.gen(function*() {
        const { brokers, ca, tlsBrokers } = yield* Secured
        const broker = yield* connect({ brokers: [...brokers, ...tlsBrokers], ssl: { ca }, sasl })
        const topic = yield* newTopic(broker, 1)
        assert.strictEqual(yield* sendText(yield* broker.producer, topic, 0, "x"), 0n)
      }))

    for (const login of [{}, { sasl }]) {
      it.effect(`no \`ssl\`, ${"sasl" in login ? "but" : "and no"} \`sasl\`: the error says that \`ssl\` is not set`, () =>
        Effect.gen(function*() {
          const { tlsBrokers } = yield* Secured
          const { error } = yield* failure({ brokers: tlsBrokers, connectTimeout: "2 seconds", ...login })
          assert.include(error.message, "`ssl` is not set")
        }))
    }

    it.effect("its other listener, which speaks no TLS, makes an error that says that `ssl` is set", () =>
      Effect.gen(function*() {
        const { brokers } = yield* Secured
        const { error, reason } = yield* failure({ brokers, ssl: true, connectTimeout: "2 seconds" })
        assert.strictEqual(reason, "Unreachable")
        assert.include(error.message, "`ssl` is set")
      }))
  })
})

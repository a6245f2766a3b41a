/**
 * What goes wrong outside: servers that are away, logins that are refused,
 * tables and topics that are missing. A program is told so within a bounded
 * time, in a sentence with the name in question; an outage later on it survives.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { startKafka } from "../../scripts/services/kafka/cluster.ts"
import { freePort } from "../../scripts/services/ports.ts"
import { Unavailable } from "../../scripts/services/unavailable.ts"
import * as Consumer from "../../src/Consumer.ts"
import * as KafkaJs from "../../src/Layers/KafkaJs.ts"
import * as Memory from "../../src/Layers/Memory.ts"
import * as SqlStore from "../../src/Layers/SqlStore.ts"
import * as Outbox from "../../src/Outbox.ts"
import * as Publisher from "../../src/Publisher.ts"
import { freshSchema } from "../layers/sql/databases.ts"
import {
  ascending,
  blocking,
  type Call,
  callOf,
  Item,
  itemTopic,
  makeLog,
  member,
  numbers,
  silent,
  upTo
} from "../suites/consumer/support.ts"
import { freshName } from "../suites/features.ts"
import { kafkaBrokers, postgresUrl, requireOrSkip } from "../support/services.ts"

/** The error of an effect that has to fail with one, within a bound. */
const failure = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>, withinMillis: number) {
  const began = yield* Clock.currentTimeMillis
  const error = yield* Effect.flip(effect)
  assert.isBelow((yield* Clock.currentTimeMillis) - began, withinMillis)
  return error
})

const build = <A, E, R>(layer: Layer.Layer<A, E, R>) => Effect.scoped(Layer.build(Layer.fresh(layer)))

const unusedPort = Effect.promise(freePort)

describe("a broker", () => {
  it.live("that cannot be reached fails the Layer in time, with its address", () =>
    Effect.gen(function*() {
      const address = `127.0.0.1:${yield* unusedPort}`
      const error = yield* failure(build(KafkaJs.layer({ brokers: [address], connectTimeout: "1 second" })), 5_000)
      assert.strictEqual(error.reason._tag, "Unreachable")
      assert.include(error.message, address)
    }))

  it.live("whose name does not resolve fails the Layer in time, with the name", () =>
    Effect.gen(function*() {
      const address = "no-such-host.invalid:9092"
      const error = yield* failure(build(KafkaJs.layer({ brokers: [address], connectTimeout: "1 second" })), 10_000)
      assert.strictEqual(error.reason._tag, "Unreachable")
      assert.include(error.message, address)
    }))
})

describe.skipIf(requireOrSkip("postgres"))("a database", () => {
  const on = (url: string, options: SqlStore.Options = { migrate: false }) =>
    SqlStore.layerWith(options).pipe(
      Layer.provide(PgClient.layer({ url: Redacted.make(url), connectTimeout: "2 seconds", maxConnections: 1 }))
    )

  /** A case's error as what the store says, or as what the client itself says while it connects. */
  const sentences = (error: { readonly message: string; readonly cause?: unknown }): string =>
    error.cause instanceof Error ? `${error.message} ${sentences(error.cause)}` : error.message

  it.live("that cannot be reached fails the Layer in time, with its address", () =>
    Effect.gen(function*() {
      const port = yield* unusedPort
      const error = yield* failure(build(on(`postgres://postgres@127.0.0.1:${port}/test`)), 10_000)
      assert.include(["MessageStoreError", "SqlError"], error._tag)
      if (error._tag === "MessageStoreError") assert.strictEqual(error.reason._tag, "StoreUnreachable")
      assert.include(sentences(error), String(port))
    }))

  it.live("that does not exist is an error that names it", () =>
    Effect.gen(function*() {
      const url = new URL(postgresUrl!)
      url.pathname = "/no_such_database"
      const error = yield* failure(build(on(url.href)), 10_000)
      assert.include(sentences(error), "no_such_database")
    }))

  it.live("that refuses the login is an error that names the user, and never the password", () =>
    Effect.gen(function*() {
      const url = new URL(postgresUrl!)
      url.username = "no_such_user"
      url.password = "a-secret"
      const error = yield* failure(build(on(url.href)), 10_000)
      if (error._tag === "MessageStoreError") assert.strictEqual(error.reason._tag, "StoreDenied")
      assert.include(sentences(error), "no_such_user")
      assert.notInclude(sentences(error), "a-secret")
    }))

  it.live("without the tables is an error that names them and says what to do", () =>
    Effect.gen(function*() {
      const schema = yield* freshSchema
      const error = yield* failure(build(on(postgresUrl!, { schema, migrate: false })), 10_000)
      assert.strictEqual(error._tag === "MessageStoreError" ? error.reason._tag : error._tag, "TablesMissing")
      assert.include(error.message, "effect_events_outbox")
      assert.include(error.message, "migrat")
    }))
})

describe.skipIf(requireOrSkip("kafka"))("a topic that nobody created", () => {
  const broker = KafkaJs.layer({ brokers: kafkaBrokers ?? [] })

  it.live("fails the consumer's Layer in time, with its name and what to do", () =>
    Effect.gen(function*() {
      const topic = { ...itemTopic(yield* freshName("missing"), 1), create: undefined }
      const consume = Consumer.idempotent(topic, () => Effect.void)
      const error = yield* failure(build(Consumer.layer("group", [consume])), 10_000)
      assert.strictEqual(
        error.reason._tag === "BrokerError" ? error.reason.reason._tag : error.reason._tag,
        "UnknownTopic"
      )
      assert.include(error.message, topic.name)
      assert.include(error.message, "create")
    }).pipe(Effect.provide(Layer.merge(broker, silent))))

  it.live("fails a publish call in time, with its name", () =>
    Effect.gen(function*() {
      const topic = { ...itemTopic(yield* freshName("missing"), 1), create: undefined }
      const error = yield* failure(Publisher.publish(topic, { key: "k", n: 1 }), 15_000)
      assert.strictEqual(error._tag === "BrokerError" ? error.reason._tag : error._tag, "UnknownTopic")
      assert.include(error.message, topic.name)
    }).pipe(Effect.provide(Layer.merge(broker, silent))))
})

/** A Kafka of the case's own; `undefined` where this machine has none. */
const ownKafka = (options: { readonly sasl?: boolean } = {}) =>
  Effect.acquireRelease(
    Effect.promise(() =>
      startKafka(options).catch((error: unknown) => {
        if (error instanceof Unavailable && process.env.CI !== "true") return undefined
        throw error
      })
    ),
    (kafka) => Effect.promise(async () => kafka?.stop()) // house-rule-allow: the scripts speak Promise
  )

describe("a Kafka of one's own", () => {
  it.live(
    "that wants a login: a wrong password and a missing one fail the Layer in time, without showing it",
    (context) =>
      Effect.gen(function*() {
        const kafka = yield* ownKafka({ sasl: true })
        if (kafka === undefined) return context.skip("Kafka cannot be started here")
        const brokers = kafka.saslBrokers
        const sasl = { mechanism: "plain", username: "alice", password: Redacted.make("not-her-secret") } as const
        for (const options of [{ brokers, sasl }, { brokers }]) {
          const error = yield* failure(build(KafkaJs.layer({ ...options, connectTimeout: "10 seconds" })), 15_000)
          assert.strictEqual(error.reason._tag, "AuthenticationFailed")
          assert.include(error.message, brokers[0]!)
          assert.notInclude(error.message, "not-her-secret")
        }
      }).pipe(Effect.provide(silent)),
    180_000
  )

  it.live(
    "that is killed and started again while events flow: nothing is lost, no program is restarted",
    (context) =>
      Effect.gen(function*() {
        const kafka = yield* ownKafka()
        if (kafka === undefined) return context.skip("Kafka cannot be started here")
        const [node] = kafka.nodes
        const layer = Layer.merge(
          KafkaJs.layer({
            brokers: kafka.brokers,
            sessionTimeout: "6 seconds",
            heartbeatInterval: "1 second",
            requestTimeout: "3 seconds"
          }),
          Memory.layerStore
        )
        yield* Effect.gen(function*() {
          const direct = itemTopic("direct", 3)
          const outbox = itemTopic("outbox", 3)
          const log = makeLog<Call>()
          const consume = (topic: typeof direct) =>
            Consumer.idempotent(topic, (event) => log.add(callOf(event)), { onFailure: blocking })
          yield* member("group", [consume(direct), consume(outbox)])
          yield* Effect.asVoid(Layer.build(Outbox.layerRelay()))
          const count = 300
          const publish = (n: number) => {
            const item = new Item({ key: `key-${n % 10}`, n })
            return Effect.andThen(
              Outbox.publish(outbox, item).pipe(Outbox.transaction),
              Publisher.publish(direct, item)
            )
          }
          yield* Effect.forEach(upTo(100), publish, { discard: true })
          const publishing = yield* Effect.forkChild(
            Effect.forEach(upTo(200), (n) => publish(100 + n), { discard: true })
          )
          yield* log.until("some of what follows", (calls) => calls.length >= 220)
          yield* Effect.promise(() => node!.kill())
          // While the broker is away transactions go on.
          yield* Outbox.publish(outbox, new Item({ key: "meanwhile", n: count })).pipe(Outbox.transaction)
          yield* Effect.promise(() => node!.start())
          yield* Fiber.join(publishing)
          const complete = (topic: string, upTo: number) => (calls: ReadonlyArray<Call>) =>
            new Set(numbers(calls.filter((call) => call.topic === topic))).size >= upTo
          yield* log.until("every event that was published", complete("direct", count))
          yield* log.until("every event of the outbox", complete("outbox", count + 1))
          for (const [topic, numbersOf] of [["direct", upTo(count)], ["outbox", upTo(count + 1)]] as const) {
            const seen = numbers(log.all.filter((call) => call.topic === topic))
            assert.deepStrictEqual(ascending([...new Set(seen)]), numbersOf)
            // What was handled or sent, but not committed or deleted, when the broker died comes again, once.
            assert.isAtMost(seen.length, 2 * numbersOf.length)
            for (const key of upTo(10)) {
              const first = [...new Set(seen.filter((n) => n < count && n % 10 === key))]
              assert.deepStrictEqual(first, ascending(first))
            }
          }
        }).pipe(Effect.provide(Layer.provideMerge(layer, silent)))
      }),
    180_000
  )
})

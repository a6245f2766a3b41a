/** Rights on a Kafka that gives none by itself: what is missing is named at the start, and nothing is written to find out. */
import { assert, describe, layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { AclOperationTypes, AclPermissionTypes, AclResourceTypes, Kafka, logLevel, ResourcePatternTypes } from "kafkajs"
import type { KafkaCluster } from "../../../scripts/services/kafka/cluster.ts"
import { saslUser } from "../../../scripts/services/kafka/properties.ts"
import { Broker } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import * as Health from "../../../src/Health.ts"
import * as Publisher from "../../../src/Publisher.ts"
import * as Topic from "../../../src/Topic.ts"
import { reasonOf, send } from "../../suites/broker/support.ts"
import { silent } from "../../suites/consumer/support.ts"
import { freshName, within } from "../../suites/features.ts"
import { KafkaLayer } from "../../support/kafkaClient.ts"
import { requireOrSkip } from "../../support/services.ts"
import { ownKafka } from "./cluster.ts"

class Own extends Context.Service<Own, KafkaCluster>()("effect-events/test/Own") {}

const own = Layer.effect(Own, ownKafka({ sasl: true, acls: true }))

/** The Layer as the user who has no rights but those granted. */
const asAlice = Layer.unwrap(Own.use(({ saslBrokers }) =>
  Effect.succeed(
    KafkaLayer.layer({
      brokers: saslBrokers,
      sasl: { mechanism: "plain", username: saslUser.username, password: Redacted.make(saslUser.password) }
    })
  )
))

/** The Layer as the user who may do everything. */
const asAdmin = Layer.unwrap(Own.use(({ brokers }) => Effect.succeed(KafkaLayer.layer({ brokers }))))

const grant = (
  kind: "topic" | "group",
  name: string,
  ...operations: ReadonlyArray<keyof typeof AclOperationTypes>
) =>
  Own.use(({ brokers }) =>
    Effect.promise(async () => {
      const admin = new Kafka({ brokers, logLevel: logLevel.NOTHING }).admin()
      await admin.connect()
      await admin.createAcls({
        acl: operations.map((operation) => ({
          resourceType: kind === "topic" ? AclResourceTypes.TOPIC : AclResourceTypes.GROUP,
          resourceName: name,
          resourcePatternType: ResourcePatternTypes.LITERAL,
          principal: `User:${saslUser.username}`,
          host: "*",
          operation: AclOperationTypes[operation],
          permissionType: AclPermissionTypes.ALLOW
        }))
      })
      await admin.disconnect()
    })
  )

/** Takes back what was granted on a topic. */
const withdraw = (name: string, operation: keyof typeof AclOperationTypes) =>
  Own.use(({ brokers }) =>
    Effect.promise(async () => {
      const admin = new Kafka({ brokers, logLevel: logLevel.NOTHING }).admin()
      await admin.connect()
      await admin.deleteAcls({
        filters: [{
          resourceType: AclResourceTypes.TOPIC,
          resourceName: name,
          resourcePatternType: ResourcePatternTypes.LITERAL,
          operation: AclOperationTypes[operation],
          permissionType: AclPermissionTypes.ALLOW
        }]
      })
      await admin.disconnect()
    })
  )

const newTopic = Effect.gen(function*() {
  const name = yield* freshName("rights")
  yield* Effect.provide(Broker.use((broker) => broker.ensureTopics([{ name, create: { partitions: 2 } }])), asAdmin)
  return name
})

/** Waits until the health of a group satisfies a test. */
const untilHealth = (group: string, test: (part: Health.Part) => boolean) =>
  within(
    Effect.flatMap(
      Health.check,
      (parts) => Effect.fromNullishOr(parts.find((part) => part.name === group && test(part)))
    ).pipe(
      Effect.retry({ schedule: Schedule.spaced("50 millis") })
    ),
    180_000,
    () => "for the group's health"
  )

/** Rights reach the brokers a moment after they are granted. */
const untilAllowed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  within(Effect.eventually(effect), 20_000, () => "for a right to arrive")

describe.skipIf(requireOrSkip("kafka"))("with a Kafka that asks for rights", () => {
  layer(Layer.provideMerge(asAlice, Layer.merge(own, silent)), { excludeTestServices: true, timeout: 360_000 })(
    (it) => {
      it.effect(
        "whoever may not write to a topic is told so, and the topic stays as it is",
        () =>
          Effect.gen(function*() {
            const topic = yield* newTopic
            const broker = yield* Broker
            yield* grant("topic", topic, "DESCRIBE", "READ")
            const { partitions } = yield* untilAllowed(broker.describe(topic))
            assert.strictEqual(partitions, 2)
            const reason = yield* reasonOf(broker.mayWrite(topic))
            assert.deepStrictEqual(
              reason._tag === "NotAllowed" ? [reason.right, reason.topic] : reason,
              ["Write", topic]
            )
            assert.include(reason.message, `--operation Write --topic ${topic}`)
            yield* grant("topic", topic, "WRITE")
            yield* untilAllowed(broker.mayWrite(topic))
            assert.strictEqual(
              (yield* Stream.runCollect(broker.read(topic))).flatMap(({ records }) => records).length,
              0
            )
            assert.strictEqual(yield* send(topic, 1, ["first"]), 0n)
          }),
        180_000
      )

      it.effect(
        "settings that may not be seen are left out, and a topic that may not be seen is named",
        () =>
          Effect.gen(function*() {
            const topic = yield* newTopic
            const broker = yield* Broker
            const reason = yield* reasonOf(broker.describe(topic))
            assert.deepStrictEqual(
              reason._tag === "NotAllowed" ? [reason.right, reason.topic] : reason,
              ["Describe", topic]
            )
            yield* grant("topic", topic, "DESCRIBE")
            assert.deepStrictEqual((yield* untilAllowed(broker.describe(topic))).config, {})
            yield* grant("topic", topic, "DESCRIBE_CONFIGS")
            yield* untilAllowed(Effect.filterOrFail(
              broker.describe(topic),
              ({ config }) => config["cleanup.policy"] === "delete",
              () => "not yet"
            ))
          }),
        180_000
      )

      it.effect(
        "a consumer that may not write its dead letters fails at the start with the right to grant",
        () =>
          Effect.gen(function*() {
            const name = yield* newTopic
            const group = yield* freshName("group")
            const letters = `${name}.${group}.dead-letter`
            yield* Effect.provide(
              Broker.use((broker) => broker.ensureTopics([{ name: letters, create: { partitions: 2 } }])),
              asAdmin
            )
            yield* grant("topic", name, "DESCRIBE", "READ")
            yield* grant("group", group, "DESCRIBE", "READ")
            yield* grant("topic", letters, "DESCRIBE", "READ")
            const broker = yield* Broker
            yield* untilAllowed(Effect.andThen(broker.describe(name), broker.describe(letters)))
            const topic = Topic.make(name, { schema: Schema.Struct({ n: Schema.Number }) })
            const consumer = Consumer.idempotent(topic, () => Effect.void)
            const error = yield* Effect.flip(Consumer.inGroup(group)(consumer))
            assert.include(error.message, `the right Write on topic "${letters}"`)
            const reason = error.reason._tag === "BrokerError" ? error.reason.reason : undefined
            assert.strictEqual(reason?._tag, "NotAllowed")
            // Who leaves no letters needs no right.
            const blocking = Consumer.idempotent(topic, () => Effect.void, { onFailure: FailurePolicy.block() })
            yield* Effect.scoped(
              Effect.andThen(Layer.build(Consumer.layer(group, [blocking])), Effect.void)
            )
          }),
        180_000
      )

      it.effect(
        "a consumer whose right to read is taken away says so, and goes on by itself when it has it again",
        () =>
          Effect.gen(function*() {
            const name = yield* newTopic
            const group = yield* freshName("group")
            yield* grant("topic", name, "DESCRIBE", "READ", "WRITE")
            yield* grant("group", group, "DESCRIBE", "READ")
            yield* untilAllowed(Effect.andThen((yield* Broker).mayWrite(name), (yield* Broker).describe(name)))
            const topic = Topic.make(name, { schema: Schema.Struct({ n: Schema.Number }) })
            const seen = yield* Queue.unbounded<number>()
            const consumer = Consumer.idempotent(topic, ({ payload }) => Queue.offer(seen, payload.n), {
              onFailure: FailurePolicy.block()
            })
            yield* Layer.build(Consumer.layer(group, [consumer]))
            yield* Publisher.publish(topic, { n: 1 })
            assert.strictEqual(yield* Queue.take(seen), 1)

            yield* withdraw(name, "READ")
            const part = yield* untilHealth(group, ({ state }) => state === "Failing")
            assert.include(part.state === "Failing" ? part.reason : "", "refused")
            yield* Publisher.publish(topic, { n: 2 })
            yield* grant("topic", name, "READ")
            // The first comes again if its position was not committed yet.
            const next = Effect.repeat(Queue.take(seen), { while: (n) => n === 1 })
            assert.strictEqual(yield* within(next, 60_000, () => "to read again"), 2)
            yield* untilHealth(group, ({ state }) => state === "Running")
          }).pipe(Effect.scoped),
        360_000
      )
    }
  )
})

/** A topic prefix of one's own on the Kafka of the tests, and nothing left behind. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type Admin, Kafka, logLevel } from "kafkajs"
import * as KafkaJs from "../../../src/Layers/KafkaJs.ts"
import { kafkaBrokers } from "../../support/services.ts"
import { run } from "./support.ts"

const withAdmin = <A>(use: (admin: Admin) => Promise<A>): Effect.Effect<A> =>
  Effect.acquireUseRelease(
    Effect.promise(() => {
      const admin = new Kafka({ brokers: kafkaBrokers!, logLevel: logLevel.NOTHING }).admin()
      return admin.connect().then(() => admin)
    }),
    (admin) => Effect.promise(() => use(admin)),
    (admin) => Effect.promise(() => admin.disconnect())
  )

/** Topics under the prefix, and groups of this run that nobody is in any more. */
const remove = (prefix: string) => (admin: Admin) =>
  admin.listTopics()
    .then((names) => names.filter((name) => name.startsWith(prefix)))
    .then((topics) => topics.length === 0 ? undefined : admin.deleteTopics({ topics }))
    .then(() => admin.listGroups())
    .then(({ groups }) => groups.map(({ groupId }) => groupId).filter((id) => id.includes(run)))
    .then((groups) => groups.length === 0 ? [] : admin.deleteGroups(groups))

/** A prefix for the names of topics; the topics are deleted with the scope. */
export const freshPrefix: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => `t-${crypto.randomUUID()}.`),
  (prefix) => Effect.ignoreCause(withAdmin(remove(prefix)))
)

/** The Layer under a prefix of its own, with a session as short as the broker allows. */
export const freshKafka = Layer.unwrap(
  Effect.map(freshPrefix, (topicPrefix) =>
    KafkaJs.layer({
      brokers: kafkaBrokers!,
      source: "/suite",
      topicPrefix,
      sessionTimeout: "6 seconds",
      heartbeatInterval: "1 second"
    }))
)

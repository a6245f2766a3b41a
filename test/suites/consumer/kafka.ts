/** A topic prefix of one's own on the Kafka of the tests, and nothing left behind. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { type Admin, Kafka, logLevel } from "kafkajs"
import type { TopicPartition } from "../../../src/Broker.ts"
import { outside } from "../../layers/kafka/outside.ts"
import { KafkaLayer } from "../../support/kafkaClient.ts"
import { kafkaBrokers } from "../../support/services.ts"
import { Outside } from "./outside.ts"
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

/** Deletes the topics under a prefix with the scope. */
export const removedAtEnd = (prefix: string): Effect.Effect<void, never, Scope.Scope> =>
  Effect.addFinalizer(() => Effect.ignoreCause(withAdmin(remove(prefix))))

/** A prefix for the names of topics; the topics are deleted with the scope. */
export const freshPrefix: Effect.Effect<string, never, Scope.Scope> = Effect.suspend(() => {
  const prefix = `t-${crypto.randomUUID()}.`
  return Effect.as(removedAtEnd(prefix), prefix)
})

/** Kafka seen from outside, where topics have their prefix. */
const outsideOf = (prefix: string) => {
  const kafka = outside(kafkaBrokers!)
  const physical = ({ partition, topic }: TopicPartition): TopicPartition => ({ partition, topic: prefix + topic })
  return Outside.of({
    // The controller has deleted it; the broker says so a moment later, unless somebody has created it again by then.
    deleteTopic: (topic) =>
      Effect.andThen(
        kafka.deleteTopic(prefix + topic),
        Effect.asVoid(Effect.repeat(kafka.exists(prefix + topic), { until: (exists) => !exists, times: 20 }))
      ),
    addPartitions: (topic, count) => kafka.addPartitions(prefix + topic, count),
    skipOffsets: (at) => kafka.skipOffsets(physical(at)),
    expire: (group) => Effect.asVoid(kafka.expire(group)),
    committed: (group, { partition, topic }) =>
      Effect.map(kafka.committed(group, prefix + topic), (offsets) => {
        const offset = offsets.get(partition)
        return offset === undefined || offset < 0n ? undefined : offset
      }),
    end: (at) => kafka.end(physical(at))
  })
}

/** The session of the Layer's members, in milliseconds: as short as the broker allows. */
export const sessionMillis = 6_000

/** The Layer under a prefix of its own, with a session as short as the broker allows. */
export const freshKafka = Layer.unwrap(
  Effect.map(freshPrefix, (topicPrefix) =>
    Layer.merge(
      KafkaLayer.layer({
        brokers: kafkaBrokers!,
        source: "/suite",
        topicPrefix,
        sessionTimeout: sessionMillis,
        heartbeatInterval: "1 second"
      }),
      Layer.sync(Outside, () => outsideOf(topicPrefix))
    ))
)

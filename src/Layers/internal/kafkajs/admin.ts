/**
 * Owns the existence of topics: looking, creating, waiting until the brokers
 * know what was created.
 *
 * Invariant: a topic that exists is left as it is.
 *
 * The insight: KafkaJS's admin reads the metadata of every topic of the
 * cluster first, and fails if any of them is in error. The request itself is
 * enough: every broker of a KRaft cluster passes it on to the controller.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Broker from "../../../Broker.ts"
import type { Cluster } from "./cluster.ts"
import { brokerError, type KafkaJsFailure, notAllowed, toBrokerError, unknownTopic } from "./errors.ts"
import type { CreateTopicsRequest } from "./internals.ts"
import { retryFor } from "./retry.ts"
import { physical, type Settings } from "./settings.ts"

const defaults = { "message.timestamp.type": "LogAppendTime" }

const creation = (name: string, create: Broker.TopicCreation): CreateTopicsRequest["topics"][number] => ({
  topic: name,
  numPartitions: create.partitions ?? -1,
  replicationFactor: create.replicationFactor ?? -1,
  configEntries: Object.entries({ ...defaults, ...create.config }).map(([name, value]) => ({ name, value }))
})

/** Whether a (physical) topic exists now. */
export const exists = (cluster: Cluster, clock: Clock.Clock, topic: string): Effect.Effect<boolean, KafkaJsFailure> =>
  Effect.suspend(() => cluster.describe(topic, clock.currentTimeMillisUnsafe())).pipe(
    Effect.map((description) => description.partitions.length > 0),
    Effect.catchIf(unknownTopic, () => Effect.succeed(false))
  )

/** Checks and creates topics; see `Broker.ensureTopics`. */
export const ensureTopics = (settings: Settings, cluster: Cluster): Broker.Broker["Service"]["ensureTopics"] => {
  const create = Effect.fnUntraced(function*(name: string, options: Broker.TopicCreation) {
    const request = { timeout: settings.requestTimeout, topics: [creation(name, options)] }
    const node = yield* cluster.anyNode
    yield* cluster.request(node, (node) => node.createTopics(request)).pipe(
      Effect.catchIf(
        (failure) => failure.type === "NOT_CONTROLLER",
        () => Effect.flatMap(cluster.controller, (node) => cluster.request(node, (node) => node.createTopics(request)))
      ),
      // Somebody else was faster, or an attempt whose answer was lost.
      Effect.catchIf((failure) => failure.type === "TOPIC_ALREADY_EXISTS", () => Effect.void)
    )
  })

  const ensure = Effect.fnUntraced(function*(requirement: Broker.TopicRequirement, clock: Clock.Clock) {
    const name = physical(settings, requirement.name)
    const patient = retryFor(clock, settings)
    if (yield* patient(exists(cluster, clock, name))) return
    if (requirement.create === undefined) {
      return yield* brokerError(new Broker.UnknownTopic({ topic: requirement.name }))
    }
    yield* patient(create(name, requirement.create)).pipe(
      Effect.catchIf(
        notAllowed,
        ({ error }) =>
          Effect.fail(brokerError(new Broker.NotAllowed({ right: "Create", topic: requirement.name, cause: error })))
      )
    )
    const deadline = clock.currentTimeMillisUnsafe() + settings.requestTimeout
    while (!(yield* patient(exists(cluster, clock, name)))) {
      if (clock.currentTimeMillisUnsafe() > deadline) {
        return yield* brokerError(new Broker.UnknownTopic({ topic: requirement.name }))
      }
      yield* Effect.sleep(50)
    }
  })

  return Effect.fnUntraced(function*(topics) {
    const clock = yield* Clock.Clock
    yield* Effect.forEach(
      topics,
      (requirement) =>
        Effect.catchTag(ensure(requirement, clock), "KafkaJsFailure", (failure) =>
          Effect.fail(toBrokerError(failure, {
            operation: `create topic "${requirement.name}"`,
            address: settings.address,
            tried: "creating topics",
            topic: requirement.name
          }))),
      { discard: true }
    )
  })
}

/**
 * Owns the existence of topics: looking, creating, waiting until the brokers
 * know what was created.
 *
 * Invariant: a topic that exists is left as it is.
 *
 * The insight: clients' admins read the metadata of every topic of the cluster
 * first, and fail if any of them is in error. The request itself is enough:
 * every broker of a KRaft cluster passes it on to the controller.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Broker from "../../../Broker.ts"
import type { Cluster } from "./cluster.ts"
import { brokerError, type KafkaFailure, notAllowed, toBrokerError, unknownTopic } from "./failure.ts"
import { retryFor } from "./retry.ts"
import { physical, type Settings } from "./settings.ts"

const defaults = { "message.timestamp.type": "LogAppendTime" }

/** Whether a (physical) topic exists now. */
export const exists = (cluster: Cluster, clock: Clock.Clock, topic: string): Effect.Effect<boolean, KafkaFailure> =>
  Effect.suspend(() => cluster.describe(topic, clock.currentTimeMillisUnsafe())).pipe(
    Effect.map((description) => description.partitions.length > 0),
    Effect.catchIf(unknownTopic, () => Effect.succeed(false))
  )

/** Checks and creates topics; see `Broker.ensureTopics`. */
export const ensureTopics = (settings: Settings, cluster: Cluster): Broker.Broker["Service"]["ensureTopics"] => {
  const create = Effect.fnUntraced(function*(name: string, options: Broker.TopicCreation) {
    const creation = { ...options, config: { ...defaults, ...options.config } }
    const node = yield* cluster.anyNode
    yield* node.createTopic(name, creation).pipe(
      Effect.catchIf(
        (failure) => failure.type === "NOT_CONTROLLER",
        () => Effect.flatMap(cluster.controller, (node) => node.createTopic(name, creation))
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
        Effect.catchTag(ensure(requirement, clock), "KafkaFailure", (failure) =>
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

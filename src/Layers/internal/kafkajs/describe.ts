/**
 * Owns looking at topics: their extent, their settings, and whether the
 * program may write to them.
 *
 * Invariant: nothing here changes a topic.
 *
 * The insight: brokers check the right to write before they look whether the
 * partition exists. So a Produce request for a partition that no topic has is
 * answered `TOPIC_AUTHORIZATION_FAILED` without the right, and
 * `UNKNOWN_TOPIC_OR_PARTITION` with it.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Broker from "../../../Broker.ts"
import type { Cluster } from "./cluster.ts"
import { KafkaJsFailure, notAllowed, toBrokerError, unknownTopic } from "./errors.ts"
import { retryFor } from "./retry.ts"
import { physical, type Settings } from "./settings.ts"

const settingsShown = [
  "cleanup.policy",
  "max.message.bytes",
  "message.timestamp.type",
  "min.insync.replicas",
  "retention.ms"
]

/** No topic has a partition of this number. */
const nowhere = 2 ** 31 - 1

const empty = new KafkaJsFailure({
  error: Object.assign(new Error("The topic has no partitions"), { type: "UNKNOWN_TOPIC_OR_PARTITION" })
})

/** Describes a topic; see `Broker.describe`. */
export const describe = (settings: Settings, cluster: Cluster): Broker.Broker["Service"]["describe"] => {
  const configOf = Effect.fnUntraced(function*(name: string) {
    const node = yield* cluster.anyNode
    const answer = yield* cluster.request(
      node,
      (node) => node.describeConfigs({ resources: [{ type: 2, name, configNames: settingsShown }] })
    )
    const config: { [name: string]: string } = {}
    for (const { configName, configValue } of answer.resources[0]?.configEntries ?? []) {
      if (configValue !== null) config[configName] = configValue
    }
    return config
  })

  return Effect.fnUntraced(function*(topic) {
    const clock = yield* Clock.Clock
    const name = physical(settings, topic)
    const patient = retryFor(clock, settings)
    return yield* Effect.gen(function*() {
      const { partitions } = yield* patient(
        Effect.suspend(() => cluster.describe(name, clock.currentTimeMillisUnsafe()))
      )
      if (partitions.length === 0) return yield* empty
      const config = yield* patient(configOf(name)).pipe(
        Effect.catchIf(notAllowed, () => Effect.succeed<{ [name: string]: string }>({}))
      )
      return {
        partitions: partitions.length,
        replicationFactor: Math.max(1, ...partitions.map(({ replicas }) => replicas.length)),
        config
      }
    }).pipe(
      Effect.mapError((failure) =>
        toBrokerError(failure, { operation: "describe a topic", address: settings.address, tried: "metadata", topic })
      )
    )
  })
}

/** Checks the right to write; see `Broker.mayWrite`. */
export const mayWrite = (settings: Settings, cluster: Cluster): Broker.Broker["Service"]["mayWrite"] => {
  const ask = Effect.fnUntraced(function*(topic: string) {
    const node = yield* cluster.anyNode
    const partition = { partition: nowhere, firstSequence: -1, messages: [{ key: null, value: null, headers: {} }] }
    yield* cluster.request(
      node,
      (node) =>
        node.produce({
          acks: -1,
          timeout: settings.requestTimeout,
          producerId: "-1",
          producerEpoch: -1,
          topicData: [{ topic, partitions: [partition] }]
        })
    )
  })

  return Effect.fnUntraced(function*(topic) {
    const clock = yield* Clock.Clock
    yield* Effect.suspend(() => ask(physical(settings, topic))).pipe(
      Effect.catchIf(unknownTopic, () => Effect.void),
      retryFor(clock, settings),
      Effect.mapError((failure) =>
        toBrokerError(failure, {
          operation: "check the right to write",
          address: settings.address,
          tried: "an empty request",
          topic,
          right: "Write"
        })
      )
    )
  })
}

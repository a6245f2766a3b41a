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
import { notAllowed, protocolFailure, toBrokerError, unknownTopic } from "./failure.ts"
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

const empty = protocolFailure("UNKNOWN_TOPIC_OR_PARTITION", "The topic has no partitions", false)

/** Describes a topic; see `Broker.describe`. */
export const describe = (settings: Settings, cluster: Cluster): Broker.Broker["Service"]["describe"] => {
  const configOf = (name: string) => Effect.flatMap(cluster.anyNode, (node) => node.configOf(name, settingsShown))

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
        Effect.catchIf(notAllowed, () => Effect.succeed<{ readonly [name: string]: string }>({}))
      )
      return {
        partitions: partitions.length,
        replicationFactor: Math.max(1, ...partitions.map(({ replicas }) => replicas)),
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
    yield* node.produce({
      topic,
      partition: nowhere,
      identity: { producerId: -1n, producerEpoch: -1 },
      sequence: -1,
      records: [{ key: null, value: null, headers: {} }],
      timeout: settings.requestTimeout
    })
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

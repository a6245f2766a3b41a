/** Kafka clusters of a test's own, for accidents that the shared one must not have. */
import * as Effect from "effect/Effect"
import { type KafkaOptions, startKafka } from "../../../scripts/services/kafka/cluster.ts"
import type { KafkaNode } from "../../../scripts/services/kafka/node.ts"

/** Starts a cluster, stopped with the scope. */
export const ownKafka = (options: KafkaOptions) =>
  Effect.acquireRelease(
    Effect.promise(() => startKafka(options)),
    (cluster) => Effect.promise(() => cluster.stop())
  )

export const kill = (node: KafkaNode) => Effect.promise(() => node.kill())
export const start = (node: KafkaNode) => Effect.promise(() => node.start())

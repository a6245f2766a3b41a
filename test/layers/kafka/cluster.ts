/** Kafka clusters of a test's own, for accidents that the shared one must not have. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { type KafkaCluster, type KafkaOptions, startKafka } from "../../../scripts/services/kafka/cluster.ts"
import type { KafkaNode } from "../../../scripts/services/kafka/node.ts"

/** What the nodes said last: it goes with the cluster, and a failure may be theirs. */
const lastWords = ({ dataDir, nodes }: KafkaCluster) =>
  Effect.forEach(nodes, ({ id }) =>
    Effect.map(
      Effect.promise(() => readFile(join(dataDir, `node-${id}`, "kafka.log"), "utf8").catch(String)),
      (log) => process.stderr.write(`Kafka node ${id}:\n${log.split("\n").slice(-25).join("\n")}\n`)
    ), { discard: true })

/** Starts a cluster, stopped with the scope; when that fails, the nodes' last words are shown. */
export const ownKafka = (options: KafkaOptions) =>
  Effect.acquireRelease(
    Effect.promise(() => startKafka(options)),
    (cluster, exit) =>
      Effect.andThen(
        Exit.isFailure(exit) ? lastWords(cluster) : Effect.void,
        Effect.promise(() => cluster.stop())
      )
  )

export const kill = (node: KafkaNode) => Effect.promise(() => node.kill())
export const start = (node: KafkaNode) => Effect.promise(() => node.start())

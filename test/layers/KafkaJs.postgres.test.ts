/** Consumers and outbox on Kafka and Postgres. */
import { describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KafkaJs from "../../src/Layers/KafkaJs.ts"
import * as SqlStore from "../../src/Layers/SqlStore.ts"
import { consumerSuite } from "../suites/consumer/index.ts"
import { sqlLedger } from "../suites/consumer/sqlLedger.ts"
import type { FrontFeatures } from "../suites/consumer/support.ts"
import { outboxSuite } from "../suites/outbox/index.ts"
import { kafkaBrokers, requireOrSkip } from "../support/services.ts"
import { freshSchema, postgres } from "./sql/databases.ts"

const store = Layer.unwrap(
  Effect.map(freshSchema, (schema) =>
    sqlLedger.pipe(
      Layer.provideMerge(SqlStore.layerWith({ schema })),
      Layer.provide(postgres({ startupParameters: { search_path: schema } }))
    ))
)

const broker = Layer.unwrap(Effect.sync(() =>
  KafkaJs.layer({
    brokers: kafkaBrokers!,
    source: "/suite",
    topicPrefix: `t-${crypto.randomUUID()}.`,
    sessionTimeout: "6 seconds",
    heartbeatInterval: "1 second"
  })
))

const features: FrontFeatures = {
  clock: "live",
  events: 1_000,
  members: 10,
  concurrentTransactions: true,
  concurrent: true
}

describe.skipIf(requireOrSkip("kafka", "postgres"))("KafkaJs and Postgres", () => {
  consumerSuite("KafkaJs and Postgres", Layer.merge(broker, store), features)
  outboxSuite("KafkaJs and Postgres", Layer.merge(broker, store), features)
})

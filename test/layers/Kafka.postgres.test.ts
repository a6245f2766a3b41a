/** Consumers and outbox on Kafka and Postgres. */
import { describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlStore from "../../src/Layers/SqlStore.ts"
import { consumerSuite } from "../suites/consumer/index.ts"
import { freshKafka, sessionMillis } from "../suites/consumer/kafka.ts"
import { sqlLedger } from "../suites/consumer/sqlLedger.ts"
import type { FrontFeatures } from "../suites/consumer/support.ts"
import { outboxSuite } from "../suites/outbox/index.ts"
import { isPlatformatic } from "../support/kafkaClient.ts"
import { requireOrSkip } from "../support/services.ts"
import { freshSchema, postgres } from "./sql/databases.ts"

const store = Layer.unwrap(
  Effect.map(freshSchema, (schema) =>
    sqlLedger.pipe(
      Layer.provideMerge(SqlStore.layerWith({ schema })),
      Layer.provide(postgres({ startupParameters: { search_path: schema } }))
    ))
)

const features: FrontFeatures = {
  clock: "live",
  events: 1_000,
  members: 10,
  concurrentTransactions: true,
  concurrent: true,
  sessionMillis,
  topicsApart: isPlatformatic
}

describe.skipIf(requireOrSkip("kafka", "postgres"))("Kafka and Postgres", () => {
  consumerSuite("Kafka and Postgres", Layer.merge(freshKafka, store), features)
  outboxSuite("Kafka and Postgres", Layer.merge(freshKafka, store), features)
})

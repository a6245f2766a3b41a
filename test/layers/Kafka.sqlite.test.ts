/** What touches the store, on Kafka and SQLite: consumers that write, and the outbox. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlStore from "../../src/Layers/SqlStore.ts"
import { transactionalConsumerSuite } from "../suites/consumer/index.ts"
import { freshKafka, sessionMillis } from "../suites/consumer/kafka.ts"
import { sqlLedger } from "../suites/consumer/sqlLedger.ts"
import type { FrontFeatures } from "../suites/consumer/support.ts"
import { outboxSuite } from "../suites/outbox/index.ts"
import { requireOrSkip } from "../support/services.ts"
import { freshFile } from "./sql/databases.ts"

const store = Layer.unwrap(
  Effect.map(freshFile, (filename) =>
    sqlLedger.pipe(
      Layer.provideMerge(SqlStore.layer),
      Layer.provide(SqliteClient.layer({ filename }))
    ))
)

const features: FrontFeatures = {
  clock: "live",
  events: 1_000,
  members: 10,
  concurrentTransactions: false,
  sessionMillis
}

describe.skipIf(requireOrSkip("kafka"))("Kafka and SQLite", () => {
  transactionalConsumerSuite("Kafka and SQLite", Layer.merge(freshKafka, store), features)
  outboxSuite("Kafka and SQLite", Layer.merge(freshKafka, store), features)
})

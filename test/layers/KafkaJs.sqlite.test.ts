/** What touches the store, on Kafka and SQLite: consumers that write, and the outbox. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as KafkaJs from "../../src/Layers/KafkaJs.ts"
import * as SqlStore from "../../src/Layers/SqlStore.ts"
import { transactionalConsumerSuite } from "../suites/consumer/index.ts"
import { sqlLedger } from "../suites/consumer/sqlLedger.ts"
import type { FrontFeatures } from "../suites/consumer/support.ts"
import { outboxSuite } from "../suites/outbox/index.ts"
import { kafkaBrokers, requireOrSkip } from "../support/services.ts"
import { freshFile } from "./sql/databases.ts"

const store = Layer.unwrap(
  Effect.map(freshFile, (filename) =>
    sqlLedger.pipe(
      Layer.provideMerge(SqlStore.layer),
      Layer.provide(SqliteClient.layer({ filename }))
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

const features: FrontFeatures = { clock: "live", events: 1_000, members: 10, concurrentTransactions: false }

describe.skipIf(requireOrSkip("kafka"))("KafkaJs and SQLite", () => {
  transactionalConsumerSuite("KafkaJs and SQLite", Layer.merge(broker, store), features)
  outboxSuite("KafkaJs and SQLite", Layer.merge(broker, store), features)
})

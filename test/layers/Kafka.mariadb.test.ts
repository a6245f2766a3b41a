/** What touches the store, on Kafka and MariaDB: consumers that write, and the outbox. */
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
import { mariadb } from "./sql/databases.ts"

const store = Layer.unwrap(
  Effect.map(mariadb.freshDatabase, (database) =>
    sqlLedger.pipe(
      Layer.provideMerge(SqlStore.layer),
      Layer.provide(mariadb.client(database))
    ))
)

const features: FrontFeatures = {
  clock: "live",
  events: 1_000,
  members: 10,
  concurrentTransactions: true,
  concurrent: true,
  sessionMillis
}

describe.skipIf(requireOrSkip("kafka", "mariadb"))("Kafka and MariaDB", () => {
  transactionalConsumerSuite("Kafka and MariaDB", Layer.merge(freshKafka, store), features)
  outboxSuite("Kafka and MariaDB", Layer.merge(freshKafka, store), features)
})

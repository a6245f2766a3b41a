/** A client that hangs is given up, and what was under way over it is asked again over the next one. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type { Settings } from "../../../src/Layers/internal/kafka/settings.ts"
import * as Cluster from "../../../src/Layers/internal/kafkajs/cluster.ts"
import { kafkaBrokers, requireOrSkip } from "../../support/services.ts"
import { silentAddress } from "../kafka/support.ts"

const settings = (brokers: ReadonlyArray<string>): Settings => ({
  brokers,
  address: brokers.join(","),
  clientId: "links",
  ssl: false,
  sasl: undefined,
  topicPrefix: "",
  groupPrefix: "",
  connectTimeout: 5_000,
  requestTimeout: 3_000,
  metadataMaxAge: 1_000,
  sessionTimeout: 6_000,
  rebalanceTimeout: 60_000,
  heartbeatInterval: 500,
  drain: 36_000,
  maxBytesPerPartition: 262_144,
  maxBytes: 10_485_760,
  maxWait: 100
})

const hang = (cluster: Cluster.Cluster) => cluster.call(() => new Promise<never>(() => {}), 50)

describe.skipIf(requireOrSkip("kafka"))("a client that was given up", () => {
  it.live("fails what still uses it in a way that is tried again, and another takes its place", () =>
    Effect.gen(function*() {
      const cluster = yield* Cluster.make(settings(kafkaBrokers!))
      const before = yield* cluster.anyNode
      const hung = yield* Effect.flip(hang(cluster))
      const late = yield* Effect.flip(before.initProducerId)
      assert.deepStrictEqual([hung.transient, late.transient], [true, true], late.detail)
      const after = yield* cluster.anyNode
      yield* after.initProducerId
    }).pipe(Effect.scoped))

  it.live("fails what is just connecting over it in a way that is tried again, too", () =>
    Effect.gen(function*() {
      // With TLS a connection to it stays half made.
      const cluster = yield* Cluster.make({ ...settings([yield* silentAddress]), ssl: true })
      const connecting = yield* Effect.forkChild(Effect.flip(cluster.anyNode))
      yield* Effect.sleep("200 millis")
      yield* Effect.flip(hang(cluster))
      const failure = yield* Fiber.join(connecting)
      assert.isTrue(failure.transient, failure.detail)
    }).pipe(Effect.scoped))

  it.live("is one whose only broker takes connections and says nothing, as a frozen one does", () =>
    Effect.gen(function*() {
      const brokers = [yield* silentAddress, ...kafkaBrokers!]
      const cluster = yield* Cluster.make({ ...settings(brokers), requestTimeout: 500 })
      yield* Effect.flip(cluster.anyNode)
      yield* Effect.retry(cluster.anyNode, { times: 2 })
    }).pipe(Effect.scoped))
})

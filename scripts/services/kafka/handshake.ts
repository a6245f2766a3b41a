import * as Effect from "effect/Effect"
import { Kafka, logLevel } from "kafkajs"
import { setTimeout as sleep } from "node:timers/promises"
import { fixTimers } from "../../../src/Layers/internal/kafkajs/connection.ts"

// As in the Layer: without it KafkaJS floods Node with timers in the past, and Node warns.
Effect.runSync(fixTimers)

export interface Expectation {
  /** This node must be among the live ones. */
  readonly nodeId?: number | undefined
}

/** KafkaJS may never come back from a broker that is just starting, whatever its own limits say. */
const patienceMs = 15_000

/** Says whether a live broker answers at one of `brokers`. */
export const answers = (brokers: ReadonlyArray<string>, expected: Expectation = {}): Promise<boolean> => {
  const patience = new AbortController()
  const tooLong = sleep(patienceMs, false, { signal: patience.signal }).catch(() => false)
  return Promise.race([ask(brokers, expected), tooLong]).finally(() => patience.abort())
}

const ask = async (brokers: ReadonlyArray<string>, expected: Expectation): Promise<boolean> => {
  const admin = new Kafka({
    brokers: [...brokers],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 3_000,
    requestTimeout: 5_000,
    retry: { retries: 0 }
  }).admin()
  try {
    await admin.connect()
    const cluster = await admin.describeCluster()
    return cluster.brokers.some(({ nodeId }) => nodeId === (expected.nodeId ?? nodeId))
  } catch {
    return false
  } finally {
    await admin.disconnect().catch(() => {})
  }
}

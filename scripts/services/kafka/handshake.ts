import * as Effect from "effect/Effect"
import { Kafka, logLevel } from "kafkajs"
import { fixTimers } from "../../../src/Layers/internal/kafkajs/connection.ts"

// As in the Layer: without it KafkaJS floods Node with timers in the past, and Node warns.
Effect.runSync(fixTimers)

export interface Expectation {
  /** This node must be among the live ones. */
  readonly nodeId?: number | undefined
}

/** Says whether a live broker answers at one of `brokers`. */
export const answers = async (brokers: ReadonlyArray<string>, expected: Expectation = {}): Promise<boolean> => {
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

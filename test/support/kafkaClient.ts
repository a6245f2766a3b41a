/**
 * The Kafka Layer under test. What concerns Kafka runs over both clients: the
 * project `platformatic` of `vitest.config.ts` runs it again with
 * `KAFKA_CLIENT=platformatic`, also in child processes.
 */
import * as KafkaJs from "../../src/Layers/KafkaJs.ts"
import * as Platformatic from "../../src/Layers/Platformatic.ts"

export type { Options } from "../../src/Layers/KafkaJs.ts"

export const isPlatformatic = process.env.KAFKA_CLIENT === "platformatic"

export const clientName = isPlatformatic ? "Platformatic" : "KafkaJs"

export const KafkaLayer = isPlatformatic ? Platformatic : KafkaJs

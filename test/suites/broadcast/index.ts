/**
 * The conformance suite of `Broadcast`, on a Layer of a broker.
 *
 * ```ts
 * broadcastSuite("KafkaJs", layer, { clock: "live", events: 1_000, addPartitions, deleteTopic })
 * ```
 *
 * Names of topics are random, so that it may run on a broker that others use.
 */
import { describe, layer } from "@effect/vitest"
import type * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Broker } from "../../../src/Broker.ts"
import { silent } from "../consumer/support.ts"
import { caseTimeout, type Control } from "../features.ts"
import { accidents } from "./accidents.ts"
import { buffers } from "./buffers.ts"
import { subscriptions } from "./subscriptions.ts"

/** How the cases make use of a Layer. */
export interface BroadcastFeatures<R = never> {
  readonly clock: "live"
  /** How many events the large cases send. */
  readonly events: number
  readonly deleteTopic: Control<(topic: string) => Effect.Effect<void, unknown, R>>
  /** Raises the number of a topic's partitions to `count`. */
  readonly addPartitions: Control<(topic: string, count: number) => Effect.Effect<void, unknown, R>>
  readonly timeout?: number
}

export const broadcastSuite = <E, R = never>(
  name: string,
  services: Layer.Layer<Broker | R, E>,
  features: BroadcastFeatures<R>
): void =>
  layer(Layer.provideMerge(services, silent), {
    excludeTestServices: true,
    timeout: caseTimeout(features)
  })(`Broadcast subscriptions on ${name}`, (it) => {
    describe("who sees what", () => subscriptions(it, features))
    describe("buffers", () => buffers(it, features))
    describe("accidents", () => accidents(it, features))
  })

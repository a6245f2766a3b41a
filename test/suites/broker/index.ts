/**
 * The conformance suite of the `Broker` contract.
 *
 * A new Layer passes it by one call, in `test/layers/<Layer>.test.ts`:
 *
 * ```ts
 * brokerSuite("KafkaJs", KafkaJs.layer({ brokers }), {
 *   clock: "live",
 *   deleteTopic: (topic) => …,
 *   skipOffsets: skipped("needs a transactional producer")
 *   …
 * })
 * ```
 */
import { describe, layer } from "@effect/vitest"
import type * as Layer from "effect/Layer"
import type { Broker } from "../../../src/Broker.ts"
import { caseTimeout } from "../features.ts"
import type { BrokerFeatures } from "../features.ts"
import { commits } from "./commits.ts"
import { flow } from "./flow.ts"
import { groups } from "./groups.ts"
import { look } from "./look.ts"
import { produce } from "./produce.ts"
import { rebalance } from "./rebalance.ts"
import { tail } from "./tail.ts"
import { topics } from "./topics.ts"

export const brokerSuite = <R, E>(
  name: string,
  brokerLayer: Layer.Layer<Broker | R, E>,
  features: BrokerFeatures<R>
): void =>
  layer(brokerLayer, {
    excludeTestServices: features.clock === "live",
    timeout: caseTimeout(features)
  })(`${name} as a Broker`, (it) => {
    describe("producing", () => produce(it, features))
    describe("topics", () => topics(it, features))
    describe("looking", () => look(it, features))
    describe("groups", () => groups(it, features))
    describe("rebalance", () => rebalance(it, features))
    describe("commits", () => commits(it, features))
    describe("flow control", () => flow(it, features))
    describe("tail", () => tail(it, features))
  })

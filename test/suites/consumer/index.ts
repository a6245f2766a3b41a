/**
 * The conformance suite of `Consumer` and `Publisher`, on a Layer of broker,
 * store and ledger.
 *
 * ```ts
 * consumerSuite("KafkaJs and Postgres", layer, {
 *   clock: "live",
 *   events: 1_000,
 *   members: 10,
 *   concurrentTransactions: true
 * })
 * ```
 *
 * Names of topics, groups and pages are random, so that it may run on a broker
 * and a database that others use. Nobody else may relay from its outbox.
 */
import { describe, layer } from "@effect/vitest"
import * as Layer from "effect/Layer"
import { caseTimeout } from "../features.ts"
import { batches } from "./batches.ts"
import { broadcast } from "./broadcast.ts"
import { delivery } from "./delivery.ts"
import { exactlyOnce } from "./exactlyOnce.ts"
import { failures } from "./failures.ts"
import { ordering } from "./ordering.ts"
import { progress } from "./progress.ts"
import { propagation } from "./propagation.ts"
import { shutdown } from "./shutdown.ts"
import { type FrontFeatures, type Services, silent } from "./support.ts"
import { wire } from "./wire.ts"

export const consumerSuite = <E>(
  name: string,
  services: Layer.Layer<Services, E>,
  features: FrontFeatures
): void =>
  layer(Layer.provideMerge(services, silent), { excludeTestServices: true, timeout: caseTimeout(features) })(
    `Consumers on ${name}`,
    (it) => {
      describe("delivery", () => delivery(it, features))
      describe("order", () => ordering(it, features))
      describe("progress", () => progress(it, features))
      describe("on the wire", () => wire(it, features))
      describe("failures", () => failures(it, features))
      describe("shutdown", () => shutdown(it, features))
      describe("batches", () => batches(it, features))
      describe("exactly once", () => exactlyOnce(it, features))
      describe("broadcast", () => broadcast(it, features))
      describe("cause and trace", () => propagation(it, features))
    }
  )

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
import { caseTimeout, type It } from "../features.ts"
import { batches } from "./batches.ts"
import { broadcast } from "./broadcast.ts"
import { delivery } from "./delivery.ts"
import { exactlyOnce } from "./exactlyOnce.ts"
import { failures } from "./failures.ts"
import { groupCommit } from "./groupCommit.ts"
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
  layer(Layer.provideMerge(services, silent), {
    excludeTestServices: true,
    timeout: caseTimeout(features)
  })(`Consumers on ${name}`, (it) => {
    const concurrent = { concurrent: features.concurrent ?? false }
    describe("delivery", concurrent, () => delivery(it, features))
    describe("order", concurrent, () => ordering(it, features))
    describe("progress", concurrent, () => progress(it, features))
    describe("on the wire", concurrent, () => wire(it, features))
    describe("failures", concurrent, () => failures(it, features))
    describe("broadcast", concurrent, () => broadcast(it, features))
    withStore(it, features)
  })

/**
 * The part of the suite that touches the store, for another store on a broker
 * that passes the whole suite elsewhere.
 */
export const transactionalConsumerSuite = <E>(
  name: string,
  services: Layer.Layer<Services, E>,
  features: FrontFeatures
): void =>
  layer(Layer.provideMerge(services, silent), {
    excludeTestServices: true,
    timeout: caseTimeout(features)
  })(`Transactional consumers on ${name}`, (it) => withStore(it, features))

const withStore = (it: It<Services>, features: FrontFeatures): void => {
  describe("shutdown", () => shutdown(it, features))
  describe("batches", () => batches(it, features))
  describe("exactly once", () => exactlyOnce(it, features))
  describe("group commit", () => groupCommit(it, features))
  describe("cause and trace", () => propagation(it, features))
}

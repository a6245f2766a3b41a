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
import { backPressure } from "./backPressure.ts"
import { badInput } from "./badInput.ts"
import { batches } from "./batches.ts"
import { broadcast } from "./broadcast.ts"
import { deadLetters } from "./deadLetters.ts"
import { delivery } from "./delivery.ts"
import { exactlyOnce } from "./exactlyOnce.ts"
import { failures } from "./failures.ts"
import { groupCommit } from "./groupCommit.ts"
import { keyOrder, keyOrderOnce } from "./keyOrder.ts"
import { membership } from "./membership.ts"
import { ordering } from "./ordering.ts"
import { positions } from "./positions.ts"
import { progress } from "./progress.ts"
import { propagation } from "./propagation.ts"
import { shutdown } from "./shutdown.ts"
import { status } from "./status.ts"
import { stops, stopsOnce } from "./stops.ts"
import { type FrontFeatures, type Services, silent } from "./support.ts"
import { topicChanges, topicIdentity } from "./topicChanges.ts"
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
    describe("order per key", concurrent, () => keyOrder(it, features))
    describe("stops", concurrent, () => stops(it, features))
    describe("membership", concurrent, () => membership(it, features))
    describe("progress", concurrent, () => progress(it, features))
    describe("positions", concurrent, () => positions(it, features))
    describe("topics that change", concurrent, () => topicChanges(it, features))
    describe("on the wire", concurrent, () => wire(it, features))
    describe("status", concurrent, () => status(it, features))
    describe("failures", concurrent, () => failures(it, features))
    describe("bad input", concurrent, () => badInput(it, features))
    if (features.flood !== undefined) describe("back-pressure", () => backPressure(it, features))
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
  const concurrent = { concurrent: features.concurrent ?? false }
  describe("order per key, exactly once", concurrent, () => keyOrderOnce(it, features))
  describe("stops, exactly once", concurrent, () => stopsOnce(it, features))
  describe("shutdown", () => shutdown(it, features))
  describe("batches", () => batches(it, features))
  describe("exactly once", () => exactlyOnce(it, features))
  describe("topics created again", () => topicIdentity(it, features))
  describe("group commit", () => groupCommit(it, features))
  describe("dead letters", { concurrent: features.concurrent ?? false }, () => deadLetters(it, features))
  describe("cause and trace", () => propagation(it, features))
}

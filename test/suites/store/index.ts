/**
 * The conformance suite of the `MessageStore` contract.
 *
 * A new Layer passes it by one call, in `test/layers/<Layer>.test.ts`, with a
 * store that nobody else uses:
 *
 * ```ts
 * storeSuite("SqlStore on Postgres", SqlStore.layer.pipe(Layer.provideMerge(pg)), {
 *   clock: "live",
 *   concurrentTransactions: true,
 *   wakeups: "shared",
 *   business: { write: …, read: … }
 * })
 * ```
 */
import { describe, layer } from "@effect/vitest"
import type * as Layer from "effect/Layer"
import type { MessageStore } from "../../../src/MessageStore.ts"
import { caseTimeout } from "../features.ts"
import type { StoreFeatures } from "../features.ts"
import { inbox } from "./inbox.ts"
import { leases } from "./leases.ts"
import { outbox } from "./outbox.ts"
import { parked } from "./parked.ts"
import { scheduled } from "./scheduled.ts"
import { sent } from "./sent.ts"
import { transactions } from "./transactions.ts"

export const storeSuite = <R, E>(
  name: string,
  storeLayer: Layer.Layer<MessageStore | R, E>,
  features: StoreFeatures<R>
): void =>
  layer(storeLayer, {
    excludeTestServices: features.clock === "live",
    timeout: caseTimeout(features)
  })(`${name} as a MessageStore`, (it) => {
    describe("transactions", () => transactions(it, features))
    describe("outbox rows", () => outbox(it, features))
    describe("parked rows", () => parked(it, features))
    describe("scheduled rows", () => scheduled(it, features))
    describe("sent rows", () => sent(it, features))
    describe("leases", () => leases(it, features))
    describe("inbox", () => inbox(it, features))
  })

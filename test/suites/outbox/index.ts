/**
 * The conformance suite of `Outbox`, on a Layer of broker, store and ledger.
 * Nobody else may relay from its outbox meanwhile.
 */
import { describe, layer } from "@effect/vitest"
import * as Layer from "effect/Layer"
import { type FrontFeatures, type Services, silent } from "../consumer/support.ts"
import { caseTimeout } from "../features.ts"
import { parking } from "./parking.ts"
import { relaying } from "./relay.ts"
import { scheduling } from "./scheduling.ts"
import { sent } from "./sent.ts"
import { transactions } from "./transactions.ts"

export const outboxSuite = <E>(name: string, services: Layer.Layer<Services, E>, features: FrontFeatures): void =>
  layer(Layer.provideMerge(services, silent), { excludeTestServices: true, timeout: caseTimeout(features) })(
    `Outbox on ${name}`,
    (it) => {
      describe("transactions", () => transactions(it, features))
      describe("relay", () => relaying(it, features))
      describe("parking", () => parking(it, features))
      describe("scheduling", () => scheduling(it, features))
      describe("what was sent", () => sent(it, features))
    }
  )

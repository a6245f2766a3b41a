/** Consumers and outbox on the in-memory Layer. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Memory from "../../src/Layers/Memory.ts"
import { consumerSuite } from "../suites/consumer/index.ts"
import { memoryOutside } from "../suites/consumer/outside.ts"
import { type FrontFeatures, Ledger } from "../suites/consumer/support.ts"
import { outboxSuite } from "../suites/outbox/index.ts"

/** Lines by a number that only grows, as a sequence of a database does. */
const lines = Memory.table<number, readonly [page: string, line: string]>("ledger")

const ledger = Layer.effect(
  Ledger,
  Effect.gen(function*() {
    const store = yield* Memory.MemoryStore
    let last = 0
    return Ledger.of({
      write: (page, line) => Effect.provideService(lines.set(++last, [page, line]), Memory.MemoryStore, store),
      read: (page) =>
        Effect.provideService(lines.entries, Memory.MemoryStore, store).pipe(
          Effect.map((all) =>
            all.filter(([, [of]]) => of === page).toSorted(([a], [b]) => a - b).map(([, [, line]]) => line)
          )
        )
    })
  })
)

const services = Layer.merge(ledger, memoryOutside).pipe(
  Layer.provideMerge(Layer.mergeAll(Memory.layerBrokerWith({ autoCreate: false }), Memory.layerStore))
)

const features: FrontFeatures = {
  clock: "live",
  events: 5_000,
  members: 50,
  concurrentTransactions: false,
  flood: 100_000
}

consumerSuite("Memory", services, features)
outboxSuite("Memory", services, features)

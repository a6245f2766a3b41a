/** Scenario 9: ten members and a hundred publishers, while the only broker is killed twice. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Consumer from "../../../src/Consumer.ts"
import * as Publisher from "../../../src/Publisher.ts"
import { Item, itemTopic, silent } from "../../suites/consumer/support.ts"
import { KafkaLayer } from "../../support/kafkaClient.ts"
import { requireOrSkip } from "../../support/services.ts"
import { kill, ownKafka, start } from "./cluster.ts"
import { upTo } from "./support.ts"

const publishers = 100
const perPublisher = 100
const total = publishers * perPublisher
const Items = itemTopic("items", 12)

/** Each publisher has a key of its own, and numbers its events. */
const eventOf = (publisher: number, n: number) => new Item({ key: `key-${publisher}`, n: publisher * perPublisher + n })

describe.skipIf(requireOrSkip("kafka"))("ten members of one group", () => {
  it.live(
    "get every event of a hundred publishers in the order of its key, although the broker is killed twice",
    () =>
      Effect.gen(function*() {
        const cluster = yield* ownKafka({ nodes: 1 })
        const node = cluster.nodes[0]!
        const layer = KafkaLayer.layer({
          brokers: cluster.brokers,
          sessionTimeout: "30 seconds",
          heartbeatInterval: "1 second",
          requestTimeout: "5 seconds"
        })
        const seen: Array<number> = []
        const missing = new Set(upTo(total))
        const complete = yield* Deferred.make<void>()
        const handler = Consumer.idempotent(Items, (event) =>
          Effect.sync(() => {
            seen.push(event.payload.n)
            missing.delete(event.payload.n)
            if (missing.size === 0) Deferred.doneUnsafe(complete, Effect.void)
          }))
        yield* Effect.forEach(
          upTo(10),
          () =>
            Layer.build(
              Consumer.layer("ten", [handler]).pipe(Layer.provide(Layer.fresh(layer)), Layer.provide(silent))
            ),
          { concurrency: "unbounded" }
        )
        const reached = [Math.floor(total / 3), total / 2].map((count) => ({
          count,
          done: Deferred.makeUnsafe<void>()
        }))
        let acknowledged = 0
        const publishing = yield* Effect.forEach(upTo(publishers), (publisher) =>
          Effect.forEach(upTo(perPublisher), (n) =>
            Effect.tap(Publisher.publish(Items, eventOf(publisher, n)), () => {
              acknowledged++
              for (const one of reached) {
                if (acknowledged >= one.count) {
                  Deferred.doneUnsafe(one.done, Effect.void)
                }
              }
              return Effect.sleep(5)
            }), { discard: true }), { concurrency: "unbounded", discard: true }).pipe(
            Effect.provide(Layer.fresh(layer)),
            Effect.forkScoped
          )
        for (const { done } of reached) {
          // Publishing has not ended before; if it has failed, it says why.
          yield* Effect.raceFirst(Deferred.await(done), Fiber.join(publishing))
          yield* kill(node)
          yield* start(node)
        }
        yield* Fiber.join(publishing)
        yield* Deferred.await(complete)

        const highest = new Map<number, number>()
        const known = new Set<number>()
        const overtaken = seen.filter((n) => {
          const publisher = Math.floor(n / perPublisher)
          const before = highest.get(publisher) ?? -1
          const isNew = !known.has(n)
          known.add(n)
          highest.set(publisher, Math.max(before, n))
          return isNew && n < before
        })
        assert.deepStrictEqual(overtaken, [])
        assert.strictEqual(known.size, total)
        yield* Effect.sync(() =>
          process.stderr.write(`ten members, two kills: ${total} published, ${seen.length - total} redelivered\n`)
        )
      }),
    420_000
  )
})

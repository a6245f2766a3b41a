/** Publishing that begins while no broker is there: it has its delivery timeout, like publishing that began before. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Broker } from "../../../src/Broker.ts"
import * as Publisher from "../../../src/Publisher.ts"
import { Item, itemTopic } from "../../suites/consumer/support.ts"
import { requireOrSkip } from "../../support/services.ts"
import { kill, ownKafka, start } from "./cluster.ts"
import { connect } from "./support.ts"

const Known = itemTopic("known", 3)
const New = itemTopic("new", 3)
const item = new Item({ key: "k", n: 1 })

/** A broker that has gone, and the client that knew one of its topics. */
const gone = Effect.gen(function*() {
  const { brokers, nodes } = yield* ownKafka({ nodes: 1 })
  const options = { connectTimeout: "1 second", requestTimeout: "2 seconds", metadataMaxAge: "100 millis" } as const
  const broker = yield* connect({ brokers, ...options })
  yield* broker.ensureTopics([Known, New])
  const publish = (topic: typeof Known, timeout: Duration.Input) =>
    Publisher.publish(topic, item).pipe(
      Effect.provideService(Publisher.DeliveryTimeout, timeout),
      Effect.provideService(Broker, broker)
    )
  yield* publish(Known, "1 minute")
  yield* kill(nodes[0]!)
  return { publish, comeBack: start(nodes[0]!) }
})

describe.skipIf(requireOrSkip("kafka"))("publishing that begins while no broker is there", () => {
  it.live("arrives when one is back, also in a topic that nothing was known of", () =>
    Effect.gen(function*() {
      const { comeBack, publish } = yield* gone
      const waiting = yield* Effect.forkChild(
        Effect.all([publish(Known, "1 minute"), publish(New, "1 minute")], { concurrency: 2 })
      )
      // Longer than a first connect may take, and than what is known is young.
      yield* Effect.sleep("4 seconds")
      yield* comeBack
      const [known, fresh] = yield* Fiber.join(waiting)
      assert.deepStrictEqual([known.offset, fresh.offset], [1n, 0n])
    }), 120_000)

  it.live(
    "fails by its delivery timeout and not before, as unreachable where no request was begun",
    () =>
      Effect.gen(function*() {
        const { publish } = yield* gone
        for (const [topic, reason] of [[Known, "ResultUnknown"], [New, "Unreachable"]] as const) {
          const [took, error] = yield* Effect.timed(Effect.flip(publish(topic, "3 seconds")))
          assert.strictEqual(error.reason._tag, reason)
          assert.isAtLeast(Duration.toMillis(took), 2_900)
          assert.isBelow(Duration.toMillis(took), 20_000)
        }
      }),
    120_000
  )
})

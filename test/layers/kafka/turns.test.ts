/** More waits in each partition than a fetch may bring of all of them. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import { isPlatformatic } from "../../support/kafkaClient.ts"
import { kafkaBrokers, requireOrSkip } from "../../support/services.ts"
import { connect, freshName, newTopic, sendText, upTo } from "./support.ts"

const partitions = 8
const each = 40
const text = "x".repeat(8_000)
/** KafkaJS asks in an order of chance, so that some are ahead of others. */
const least = isPlatformatic ? each / 2 : 0

describe.skipIf(requireOrSkip("kafka"))("partitions of which a fetch brings a part", () => {
  it.live("take turns: none waits until others have been read to their end", () =>
    Effect.gen(function*() {
      const broker = yield* connect({
        brokers: kafkaBrokers ?? [],
        fetch: { maxBytesPerPartition: 16_384, maxBytes: 32_768 }
      })
      const topic = yield* newTopic(broker, partitions)
      const producer = yield* broker.producer
      yield* Effect.forEach(
        upTo(partitions),
        (partition) => Effect.forEach(upTo(each), () => sendText(producer, topic, partition, text), { discard: true }),
        { discard: true, concurrency: "unbounded" }
      )
      const read = upTo(partitions).map(() => 0)
      const ended = yield* Deferred.make<ReadonlyArray<number>>()
      yield* broker.subscribe({
        group: yield* freshName("turns"),
        topics: [topic],
        onSignal: (signal) =>
          Effect.suspend(() => {
            if (signal._tag !== "Records") return Effect.void
            const count = (read[signal.assignment.partition]! += signal.records.length)
            return count === each ? Deferred.succeed(ended, [...read]) : Effect.void
          })
      })
      // What the others have when the first one has been read.
      const counts = yield* Deferred.await(ended)
      assert.isAbove(Math.min(...counts), least, `read of each: ${counts.join(", ")}`)
    }))
})

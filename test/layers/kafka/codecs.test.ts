/** Records that other programs have packed. */
import { assert, describe, it } from "@effect/vitest"
import { compressionsAlgorithms, Producer } from "@platformatic/kafka"
import * as Effect from "effect/Effect"
import { isPlatformatic } from "../../support/kafkaClient.ts"
import { kafkaBrokers, requireOrSkip } from "../../support/services.ts"
import { connect, newTopic, readLog, upTo } from "./support.ts"

// KafkaJS itself has gzip only; the others must be registered with it.
const codecs = isPlatformatic ? ["gzip", "snappy", "lz4", "zstd"] as const : ["gzip"] as const

const publish = (topic: string, compression: typeof codecs[number], texts: ReadonlyArray<string>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => new Producer({ clientId: "codecs", bootstrapBrokers: [...kafkaBrokers!] })),
    (producer) =>
      Effect.promise(() =>
        producer.send({
          acks: -1,
          compression,
          messages: texts.map((text) => ({ topic, partition: 0, value: Buffer.from(text) }))
        })
      ),
    (producer) => Effect.promise(() => producer.close())
  )

describe.skipIf(requireOrSkip("kafka"))("records that were packed", () => {
  for (const codec of codecs) {
    it.live.skipIf(!compressionsAlgorithms[codec].available)(
      `with ${codec} are read as they were written`,
      () =>
        Effect.gen(function*() {
          const broker = yield* connect({ brokers: kafkaBrokers! })
          const topic = yield* newTopic(broker, 1)
          const texts = upTo(200).map((n) => `${codec} ${n} ${"same again ".repeat(n % 20)}`)
          yield* publish(topic, codec, texts)
          assert.deepStrictEqual(yield* readLog(broker, topic, 1), [texts])
        })
    )
  }
})

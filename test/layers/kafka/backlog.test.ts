/** Much more lies ready than a consumer may hold. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { execFile } from "node:child_process"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"
import { clientName } from "../../support/kafkaClient.ts"
import { kafkaBrokers, requireOrSkip } from "../../support/services.ts"
import { outside } from "./outside.ts"
import { connect, freshName, newTopic, nonEmpty, upTo } from "./support.ts"

const program = fileURLToPath(new URL("../../support/backlogProgram.ts", import.meta.url))

const partitions = 20
/** 100 kB each. */
const events = 10_000
const eventsPerRequest = 8
const mebibyte = 1024 * 1024
/** What a membership may buffer is 64 MiB; two fetches bring 10 MiB each, and some is being decoded. */
const most = 128 * mebibyte

const memoryOf = (group: string, topic: string): Effect.Effect<ReadonlyArray<number>> =>
  Effect.promise((signal) =>
    promisify(execFile)(process.execPath, ["--expose-gc", program, group, topic, String(events)], { signal })
  ).pipe(Effect.map(({ stdout }) => JSON.parse(stdout)))

describe.skipIf(requireOrSkip("kafka"))("a gigabyte behind a slow consumer", () => {
  it.live(
    `is handled, and never held (${clientName})`,
    () =>
      Effect.gen(function*() {
        const broker = yield* connect({ brokers: kafkaBrokers ?? [] })
        const topic = yield* Effect.acquireRelease(
          newTopic(broker, partitions),
          (topic) => outside(kafkaBrokers ?? []).deleteTopic(topic)
        )
        const producer = yield* broker.producer
        const value = Buffer.from(JSON.stringify({ n: 0, note: "x".repeat(100_000) }))
        const records = nonEmpty(
          upTo(eventsPerRequest).map((n) => ({ key: Buffer.from(`key-${n}`), value, headers: {} }))
        )
        yield* Effect.forEach(
          upTo(events / eventsPerRequest),
          (n) => producer.send({ topic, partition: n % partitions, records, timeout: Duration.seconds(60) }),
          { discard: true }
        )
        const samples = yield* memoryOf(yield* freshName("slow"), topic)
        assert.strictEqual(samples.length, 20)
        const shown = samples.map((bytes) => Math.round(bytes / mebibyte))
        assert.isBelow(Math.max(...samples), most, `MiB held: ${shown.join(", ")}`)
      }),
    300_000
  )
})

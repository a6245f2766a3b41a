/** Kafka's own console producer, in Java: what is written is none of our doing. */
import { Data, Effect, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import { distribution, javaArgs } from "../../scripts/services/kafka/distribution.ts"

export class ConsoleProducerFailed extends Data.TaggedError("ConsoleProducerFailed")<{ readonly detail: string }> {
  override get message() {
    return `Kafka's console producer did not do its work: ${this.detail}`
  }
}

/** Java 17 and Kafka's jars, which are fetched by Maven the first time. */
const findKafka = Effect.tryPromise({
  try: distribution,
  catch: (cause) => new ConsoleProducerFailed({ detail: cause instanceof Error ? cause.message : String(cause) })
})

/** Writes each line as a record; `properties` say how a line is read. */
export const produce = (options: {
  readonly brokers: string
  readonly topic: string
  readonly properties: ReadonlyArray<string>
  readonly lines: ReadonlyArray<string>
}) =>
  Effect.scoped(Effect.gen(function*() {
    const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
    const java = ChildProcess.make(
      "java",
      javaArgs(yield* findKafka, "org.apache.kafka.tools.ConsoleProducer", [
        "--bootstrap-server",
        options.brokers,
        "--topic",
        options.topic,
        ...options.properties.flatMap((property) => ["--property", property])
      ]),
      {
        stdin: Stream.encodeText(Stream.make(options.lines.map((line) => `${line}\n`).join(""))),
        stdout: "ignore",
        stderr: "inherit",
        forceKillAfter: "5 seconds"
      }
    )
    const child = yield* spawner.spawn(java)
    const code = yield* child.exitCode
    if (code !== 0) return yield* new ConsoleProducerFailed({ detail: `it ended with code ${code}` })
  }))

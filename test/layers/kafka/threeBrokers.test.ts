/**
 * Three brokers, of which one after another is killed, restarted or frozen
 * while everything runs.
 *
 * What is acknowledged is in the log, once, in the order of its key, and the
 * group reads all of it.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import KafkaJsClient from "kafkajs"
import type { KafkaCluster } from "../../../scripts/services/kafka/cluster.ts"
import { Broker } from "../../../src/Broker.ts"
import type { Position } from "../../../src/Broker.ts"
import * as Journal from "../../suites/broker/journal.ts"
import { requireOrSkip } from "../../support/services.ts"
import { kill, ownKafka, start } from "./cluster.ts"
import { outside } from "./outside.ts"
import { compare, connect, newTopic, readLog, sendText, upTo } from "./support.ts"

const partitions = 6
const lanes = 6

/** Texts that are acknowledged, by lane, and who waits for more of them. */
const makeLedger = () => {
  const acked = upTo(lanes).map((): Array<string> => [])
  const waiting = new Set<{ readonly atLeast: ReadonlyArray<number>; readonly done: Deferred.Deferred<void> }>()
  return {
    acked,
    note: (lane: number, text: string) =>
      Effect.sync(() => {
        acked[lane]!.push(text)
        for (const waiter of waiting) {
          if (acked.every((own, n) => own.length >= waiter.atLeast[n]!)) {
            waiting.delete(waiter)
            Deferred.doneUnsafe(waiter.done, Effect.void)
          }
        }
      }),
    /** Succeeds when every lane has `more` acknowledged texts than now. */
    progress: (more: number) =>
      Effect.suspend(() => {
        const waiter = { atLeast: acked.map((own) => own.length + more), done: Deferred.makeUnsafe<void>() }
        waiting.add(waiter)
        return Deferred.await(waiter.done)
      })
  }
}

/** A member that commits what it has read after each chunk, and when it is revoked. */
const committing = (journal: Journal.Journal, broker: Broker["Service"], name: string, group: string, topic: string) =>
  Effect.gen(function*() {
    const commit = yield* Deferred.make<(positions: ReadonlyArray<Position>) => Effect.Effect<void>>()
    const member = yield* journal.member(name, {
      group,
      topics: [topic],
      hook: (signal) =>
        signal._tag === "Records" || signal._tag === "Revoked"
          ? Effect.flatMap(Deferred.await(commit), (commit) => commit(journal.positions(name)))
          : Effect.void
    })
    yield* Deferred.succeed(commit, (positions) => Effect.ignore(member.commit(positions)))
  }).pipe(Effect.provideContext(Context.make(Broker, broker)))

const nodeAt = (cluster: KafkaCluster, address: string) =>
  cluster.nodes.find((node) => node.broker === address) ?? cluster.nodes[0]!

interface Stage {
  readonly cluster: KafkaCluster
  readonly kafka: ReturnType<typeof outside>
  readonly topic: string
  /** Succeeds when every lane has so many more acknowledged texts. */
  readonly progress: (more: number) => Effect.Effect<void>
}

describe.skipIf(requireOrSkip("kafka"))("three brokers", () => {
  /** Publishes and consumes while accidents happen, and looks at the log afterwards. */
  const survives = (name: string, accidents: (stage: Stage) => Effect.Effect<void>) =>
    Effect.gen(function*() {
      const cluster = yield* ownKafka({ nodes: 3 })
      const options = { brokers: cluster.brokers, requestTimeout: "10 seconds", sessionTimeout: "45 seconds" } as const
      const broker = yield* connect(options)
      const topic = yield* newTopic(broker, partitions)
      const journal = yield* Journal.make
      yield* committing(journal, broker, "a", "group", topic)
      yield* committing(journal, broker, "b", "group", topic)
      const producer = yield* broker.producer
      const ledger = makeLedger()
      const stop = yield* Deferred.make<void>()
      const publish = Effect.fnUntraced(function*(lane: number) {
        for (let n = 0; !Deferred.isDoneUnsafe(stop); n++) {
          yield* sendText(producer, topic, lane, `${lane}-${n}`)
          yield* ledger.note(lane, `${lane}-${n}`)
          yield* Effect.sleep(10)
        }
      })
      const publishing = yield* Effect.forkScoped(Effect.forEach(upTo(lanes), publish, { concurrency: lanes }))
      yield* ledger.progress(50)
      yield* accidents({ cluster, kafka: outside(cluster.brokers), topic, progress: ledger.progress })
      yield* Deferred.succeed(stop, undefined)
      yield* Fiber.join(publishing)
      const acknowledged = ledger.acked.flat()
      const log = yield* readLog(broker, topic, partitions)
      assert.deepStrictEqual(compare(acknowledged, log), { lost: [], doubled: [] })
      assert.deepStrictEqual(log, ledger.acked)
      yield* journal.until("the group has read all", () => {
        const read = new Set(journal.texts())
        return acknowledged.every((text) => read.has(text))
      })
      const published = new Set<string | null>(acknowledged)
      const redelivered = journal.texts().filter((text) => published.has(text)).length - published.size
      yield* Effect.sync(() =>
        process.stderr.write(`${name}: ${acknowledged.length} acknowledged, ${redelivered} redelivered\n`)
      )
    })

  it.live(
    "a leader, then the group's coordinator killed: nothing lost, doubled or out of order",
    () =>
      survives("two kills", ({ cluster, kafka, progress, topic }) =>
        Effect.gen(function*() {
          for (const find of [kafka.leader(topic, 0), kafka.coordinator("group")]) {
            const node = nodeAt(cluster, yield* find)
            yield* kill(node)
            yield* progress(50)
            yield* start(node)
            yield* progress(100)
          }
        })),
    420_000
  )

  it.live(
    "a rolling restart, and a leader that freezes: nothing lost, doubled or out of order",
    () =>
      survives("rolling restart and freeze", ({ cluster, kafka, progress, topic }) =>
        Effect.gen(function*() {
          for (const node of cluster.nodes) {
            yield* Effect.promise(() => node.stop())
            yield* start(node)
            yield* progress(50)
          }
          const frozen = nodeAt(cluster, yield* kafka.leader(topic, 0))
          yield* Effect.acquireUseRelease(
            Effect.sync(() => frozen.pause()),
            () => progress(50),
            () => Effect.sync(() => frozen.resume())
          )
          yield* progress(100)
        })),
    420_000
  )

  it.live(
    "the same accident loses acknowledged messages when one KafkaJS send spans several partitions",
    () =>
      Effect.gen(function*() {
        const cluster = yield* ownKafka({ nodes: 3 })
        const broker = yield* connect({ brokers: cluster.brokers, requestTimeout: "10 seconds" })
        const topic = yield* newTopic(broker, partitions)
        const kafka = new KafkaJsClient.Kafka({ brokers: cluster.brokers, logLevel: KafkaJsClient.logLevel.NOTHING })
        const raw = kafka.producer({
          idempotent: true,
          createPartitioner: KafkaJsClient.Partitioners.DefaultPartitioner,
          retry: { initialRetryTime: 100, maxRetryTime: 2_000, retries: 1_000_000 }
        })
        yield* Effect.promise(() => raw.connect())
        const acked: Array<string> = []
        const sendAll = Effect.fnUntraced(function*(round: number) {
          const texts = upTo(partitions).map((partition) => `${round}-${partition}`)
          const messages = texts.map((value, partition) => ({ value, partition }))
          const sent = yield* Effect.timeoutOption(Effect.promise(() => raw.send({ topic, messages })), 30_000)
          if (sent._tag === "Some") acked.push(...texts)
        })
        const node = nodeAt(cluster, yield* outside(cluster.brokers).leader(topic, 0))
        yield* Effect.forEach(upTo(50), sendAll)
        yield* Effect.all([kill(node), Effect.forEach(upTo(100), (n) => sendAll(n + 50))], { concurrency: 2 })
        yield* Effect.promise(() => raw.disconnect())
        const { doubled, lost } = compare(acked, yield* readLog(broker, topic, partitions))
        // Reported, not asserted: it shows that the case above can fail.
        yield* Effect.sync(() =>
          process.stderr.write(
            `KafkaJS's sendBatch: ${lost.length} lost, ${doubled.length} doubled of ${acked.length}\n`
          )
        )
      }),
    360_000
  )
})

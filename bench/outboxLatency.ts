/**
 * `outbox-latency`: the time from a commit to the handler, by way of the outbox
 * and its relay, against the time from `Publisher.publish` to the same handler,
 * at a hundred events a second.
 */
import { Deferred, Effect, Layer, ManagedRuntime } from "effect"
import { Consumer, Outbox, Publisher } from "effect-events"
import { postgres } from "./databases.ts"
import { type Benchmark, quiet, type Round } from "./harness.ts"
import { create, drop, orderOf, topicOf, unique } from "./orders.ts"

const perSecond = 100
const events = 500

const outboxLatency = (percentile: number, aim: number): Benchmark => ({
  name: `outbox-latency pg p${percentile}`,
  unit: "ms",
  aim,
  settings: {
    events,
    perSecond,
    payloadBytes: 200,
    ours: "Outbox.transaction with one event: from its end to the handler; relay and consumer in the process",
    twin: "Publisher.publish: from its call to the handler"
  },
  open: async () => {
    const name = unique("latency")
    await create(name)
    const topic = topicOf(name)
    let begun = new Map<string, number>()
    let latencies: Array<number> = []
    let all = Deferred.makeUnsafe<void>()
    const arrived = (orderId: string) => {
      latencies.push(performance.now() - begun.get(orderId)!)
      if (latencies.length === events) Deferred.doneUnsafe(all, Effect.void)
    }
    const consumer = Consumer.idempotent(topic, ({ payload }) => Effect.sync(() => arrived(payload.orderId)))
    const runtime = ManagedRuntime.make(
      Layer.merge(Consumer.layer(unique("group"), [consumer]), Outbox.layerRelay()).pipe(
        Layer.provideMerge(postgres().layer)
      )
    )

    /** One event after another, each at its time, whatever the one before takes. */
    const round = (publish: (i: number) => Effect.Effect<unknown, unknown, Effect.Services<typeof publishing>>) =>
      runtime.runPromise(quiet(Effect.gen(function*() {
        begun = new Map()
        latencies = []
        all = Deferred.makeUnsafe()
        const start = performance.now()
        const cpu = process.cpuUsage()
        for (let i = 0; i < events; i++) {
          yield* Effect.sleep(Math.max(0, start + i * 1_000 / perSecond - performance.now()))
          yield* Effect.forkChild(publish(i))
        }
        yield* Deferred.await(all)
        const used = process.cpuUsage(cpu)
        latencies.sort((a, b) => a - b)
        return {
          events: 1,
          wallMillis: latencies[Math.ceil(events * percentile / 100) - 1]!,
          cpuMicros: (used.user + used.system) / events
        } satisfies Round
      })))

    /** Names what both ways ask for. */
    const publishing = Effect.andThen(
      Publisher.publish(topic, orderOf(0)),
      Outbox.transaction(Outbox.publish(topic, orderOf(0)))
    )
    const note = (i: number) => Effect.sync(() => void begun.set(orderOf(i).orderId, performance.now()))
    return {
      ours: () => round((i) => Effect.andThen(Outbox.transaction(Outbox.publish(topic, orderOf(i))), note(i))),
      twin: () => round((i) => Effect.andThen(note(i), Publisher.publish(topic, orderOf(i)))),
      close: () => runtime.dispose().then(() => drop(name))
    }
  }
})

export const outboxLatencies = [outboxLatency(50, 0.5), outboxLatency(99, 0.33)]

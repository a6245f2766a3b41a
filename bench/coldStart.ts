/**
 * `cold-start`: the time from the start of a process to the first event that
 * it handles, ours against KafkaJS, in a group without members. The topic for
 * dead letters is there, as it is whenever a service starts again;
 * `cold-start-first`: it is not, and ours makes it.
 */
import { build, oneByOne, runChild } from "./children.ts"
import type { Benchmark, Round } from "./harness.ts"
import { create, deadLettersOf, drop, fill, unique } from "./orders.ts"

const children = 3

const coldStart = (variant: string, aim: { readonly aim?: number }, again: boolean): Benchmark => ({
  name: `cold-start${variant} KafkaJs`,
  unit: "ms",
  ...aim,
  short: 2,
  settings: {
    children,
    payloadBytes: 200,
    partitions: 1,
    ours: "programs/coldStartOurs.js: KafkaJs.layer, Consumer.layer with one idempotent consumer, schema decode",
    twin: "programs/coldStartTwin.js: KafkaJS eachMessage, JSON.parse",
    deadLetterTopic: again ? "there" : "made at the start",
    package: "dist, built before; plain JavaScript"
  },
  open: async () => {
    build()
    const topic = unique("cold-start")
    await fill(topic, 1, 1)
    return {
      ours: () =>
        oneByOne(children, async () => {
          const group = unique("group")
          if (again) await create(deadLettersOf(topic, group), 1)
          return start("coldStartOurs.js", topic, group)
        }),
      twin: () => oneByOne(children, () => start("coldStartTwin.js", topic, unique("group"))),
      close: () => drop(topic)
    }
  }
})

export const coldStarts = [coldStart("", { aim: 0.77 }, true), coldStart("-first", {}, false)]

/** The child says the id of the order that it handles, and what CPU time it took. */
const start = async (program: string, topic: string, group: string): Promise<Round> => {
  const { millis, text } = await runChild(program, [process.env.KAFKA_BROKERS!, topic, group])
  const { cpu, orderId } = JSON.parse(text) as { readonly orderId: string; readonly cpu: NodeJS.CpuUsage }
  if (orderId !== "order-0000000000") throw new Error(`${program} has handled ${orderId}`)
  return { events: 1, wallMillis: millis, cpuMicros: cpu.user + cpu.system }
}

/**
 * `publish-fibers`: 256 fibers that publish one event after another and await
 * each, so that what they publish meanwhile leaves together, against as many
 * loops that await an idempotent KafkaJS `send` per event.
 */
import { Effect, ManagedRuntime } from "effect"
import { Publisher } from "effect-events"
import { type Benchmark, measure, quiet, type Round, sized } from "./harness.ts"
import {
  counted,
  create,
  drop,
  headersOf,
  kafka,
  layer,
  type Order,
  orderOf,
  partitions,
  topicOf,
  unique
} from "./orders.ts"

const events = sized(60_000, 12_000)
const twinEvents = sized(3_000, 1_000)
const concurrent = 256

export const publishFibers: Benchmark = {
  name: "publish-fibers KafkaJs",
  aim: 15,
  short: 3,
  settings: {
    events: `${events} ours, ${twinEvents} twin`,
    payloadBytes: 200,
    partitions,
    headers: "CloudEvents",
    concurrent,
    ours: "Publisher.publish, defaults",
    twin: "idempotent producer, acks -1, JSON.stringify, one send per event"
  },
  open: async () => {
    const topic = unique("publish")
    await create(topic)
    const Orders = topicOf(topic)
    const orders = Array.from({ length: events }, (_, i) => orderOf(i))
    const runtime = ManagedRuntime.make(layer)
    await runtime.context()
    const producer = kafka.producer({ idempotent: true, allowAutoTopicCreation: false })
    await producer.connect()
    const ours = Effect.forEach(orders, (order) => Publisher.publish(Orders, order), {
      concurrency: concurrent,
      discard: true
    })
    const send = (order: Order, i: number) =>
      producer.send({
        topic,
        acks: -1,
        messages: [{ key: order.customer, value: JSON.stringify(order), headers: headersOf(i) }]
      })
    /** The loops take from one list. */
    const byHand = async () => {
      const waiting = orders.slice(0, twinEvents).entries()
      const loop = async () => {
        for (const [i, order] of waiting) await send(order, i)
      }
      await Promise.all(Array.from({ length: concurrent }, loop))
    }
    const round = (events: number, work: () => Promise<unknown>): Promise<Round> =>
      counted(topic, events, () =>
        measure(events, async () => {
          await work()
        }))
    return {
      ours: () => round(events, () => runtime.runPromise(quiet(ours))),
      twin: () => round(twinEvents, byHand),
      close: async () => {
        await runtime.dispose()
        await producer.disconnect()
        await drop(topic)
      }
    }
  }
}

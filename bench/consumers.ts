/**
 * `consumers`: one `Consumer.layer` with an idempotent consumer for each of
 * fifty topics, against the same with one topic, with the same events in all.
 * Every topic has one partition: what more of those cost, `partitions` tells.
 */
import { Effect } from "effect"
import { Consumer } from "effect-events"
import { consuming } from "./consuming.ts"
import { alike, type Benchmark, type Side, sized } from "./harness.ts"
import { type Client, drop, fillAll, topicOf, unique } from "./orders.ts"

const events = sized(200_000, 20_000)
const many = 50

const prepareOn = (client: Client) => async (count: number): Promise<Side> => {
  const topics = Array.from({ length: count }, () => unique("consumers"))
  await fillAll(topics, events / count, 1)
  return {
    round: () =>
      consuming(
        events,
        (add) =>
          topics.map((topic) =>
            Consumer.idempotent(topicOf(topic), (event) => Effect.sync(() => add(event.payload.total)))
          ),
        client
      ),
    close: () => drop(...topics)
  }
}

const consumersOn = (client: Client): Benchmark => ({
  name: `consumers ${client}`,
  aim: 0.8,
  settings: {
    events,
    payloadBytes: 200,
    headers: "CloudEvents",
    partitions: 1,
    ours: `idempotent, defaults, ${many} topics in one Consumer.layer`,
    twin: "the same with 1 topic"
  },
  open: alike(prepareOn(client), many, 1)
})

export const consumers = [consumersOn("KafkaJs"), consumersOn("Platformatic")]

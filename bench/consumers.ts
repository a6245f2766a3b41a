/**
 * `consumers`: one `Consumer.layer` with an idempotent consumer for each of
 * fifty topics, against the same with one topic, with the same events in all.
 * Every topic has one partition: what more of those cost, `partitions` tells.
 */
import { Effect } from "effect"
import { Consumer } from "effect-events"
import { consuming } from "./consuming.ts"
import { alike, type Benchmark, type Side, sized } from "./harness.ts"
import { drop, fillAll, topicOf, unique } from "./orders.ts"

const events = sized(200_000, 20_000)
const many = 50

const prepare = async (count: number): Promise<Side> => {
  const topics = Array.from({ length: count }, () => unique("consumers"))
  await fillAll(topics, events / count, 1)
  return {
    round: () =>
      consuming(
        events,
        (add) =>
          topics.map((topic) =>
            Consumer.idempotent(topicOf(topic), (event) => Effect.sync(() => add(event.payload.total)))
          )
      ),
    close: () => drop(...topics)
  }
}

export const consumers: Benchmark = {
  name: "consumers KafkaJs",
  aim: 0.8,
  settings: {
    events,
    payloadBytes: 200,
    headers: "CloudEvents",
    partitions: 1,
    ours: `idempotent, defaults, ${many} topics in one Consumer.layer`,
    twin: "the same with 1 topic"
  },
  open: alike(prepare, many, 1)
}

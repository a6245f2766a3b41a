/**
 * `partitions`: an idempotent consumer over a hundred partitions, against
 * itself over one, with the same events in all.
 */
import { Effect } from "effect"
import { Consumer } from "effect-events"
import { consuming } from "./consuming.ts"
import { alike, type Benchmark, type Side, sized } from "./harness.ts"
import { drop, fill, topicOf, unique } from "./orders.ts"

const events = sized(200_000, 40_000)
const many = 100

const prepare = async (partitions: number): Promise<Side> => {
  const topic = unique("partitions")
  await fill(topic, events, partitions)
  return {
    round: () =>
      consuming(events, (add) => [
        Consumer.idempotent(topicOf(topic), (event) => Effect.sync(() => add(event.payload.total)))
      ]),
    close: () => drop(topic)
  }
}

export const partitions: Benchmark = {
  name: "partitions KafkaJs",
  aim: 0.8,
  short: 2,
  settings: {
    events,
    payloadBytes: 200,
    headers: "CloudEvents",
    ours: `idempotent, defaults, one topic with ${many} partitions`,
    twin: "the same with 1 partition"
  },
  open: alike(prepare, many, 1)
}

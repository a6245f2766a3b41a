/**
 * `partitions`: an idempotent consumer over a hundred partitions, against
 * itself over one, with the same events in all.
 */
import { Effect } from "effect"
import { Consumer } from "effect-events"
import { consuming } from "./consuming.ts"
import { alike, type Benchmark, type Side, sized } from "./harness.ts"
import { type Client, drop, fill, topicOf, unique } from "./orders.ts"

const events = sized(200_000, 40_000)
const many = 100

const prepareOn = (client: Client) => async (partitions: number): Promise<Side> => {
  const topic = unique("partitions")
  await fill(topic, events, partitions)
  return {
    round: () =>
      consuming(
        events,
        (add) => [Consumer.idempotent(topicOf(topic), (event) => Effect.sync(() => add(event.payload.total)))],
        client
      ),
    close: () => drop(topic)
  }
}

const partitionsOn = (client: Client): Benchmark => ({
  name: `partitions ${client}`,
  aim: 0.8,
  short: 2,
  settings: {
    events,
    payloadBytes: 200,
    headers: "CloudEvents",
    ours: `idempotent, defaults, one topic with ${many} partitions`,
    twin: "the same with 1 partition"
  },
  open: alike(prepareOn(client), many, 1)
})

export const partitions = [partitionsOn("KafkaJs"), partitionsOn("Platformatic")]

/**
 * The topics that dead letters go to: made on demand, checked for the right to
 * write, written to.
 *
 * A letter must find room and must last: its topic takes records 64 KiB larger
 * than the source's, for the headers that say why, and keeps them as long as
 * the source, at least 7 days. It is never compacted: letters of one key are
 * all of them wanted. A topic that exists is left as it is.
 *
 * @internal
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Broker, BrokerError, HeaderValue, ProducerRecord, TopicDescription } from "../../../Broker.ts"
import * as Shared from "../../publisher/shared.ts"
import * as DeadLetter from "../../wire/deadLetter.ts"
import type { WriteLetter } from "../failure/exhausted.ts"

const leastRetention = Duration.toMillis(Duration.days(7))
const roomForReasons = 65_536

/** Settings of a dead-letter topic, from those of its source. Those that the source does not show are the broker's. */
export const settingsFor = ({ config }: TopicDescription): { readonly [name: string]: string } => {
  const retention = Number(config["retention.ms"] ?? leastRetention)
  const maxBytes = Number(config["max.message.bytes"])
  const inSync = config["min.insync.replicas"]
  return {
    "cleanup.policy": "delete",
    // -1 is for ever.
    "retention.ms": String(retention < 0 ? -1 : Math.max(retention, leastRetention)),
    "retention.bytes": "-1",
    ...(maxBytes > 0 ? { "max.message.bytes": String(maxBytes + roomForReasons) } : {}),
    ...(inSync === undefined ? {} : { "min.insync.replicas": inSync })
  }
}

/** Makes sure of the dead-letter topic of a source that exists, and of the right to write to it. */
export const ensure = Effect.fnUntraced(function*(
  broker: Broker["Service"],
  topic: string,
  group: string
): Effect.fn.Return<void, BrokerError> {
  const name = DeadLetter.topicName(topic, group)
  // Not asked whether it is there: for a topic that is missing that takes as long as one that was just made needs.
  const source = yield* broker.describe(topic)
  const { partitions, replicationFactor } = source
  yield* broker.ensureTopics([{ name, create: { partitions, replicationFactor, config: settingsFor(source) } }])
  yield* broker.mayWrite(name)
})

const timeout = Duration.seconds(30)

const lengthOf = (value: HeaderValue): number => typeof value === "string" ? Buffer.byteLength(value) : value.length

const sizeOf = ({ headers, key, value }: ProducerRecord): number => {
  let bytes = (key === null ? 0 : lengthOf(key)) + (value === null ? 0 : value.length)
  for (const [name, values] of Object.entries(headers)) {
    if (values === undefined) continue
    const all = typeof values === "string" || values instanceof Uint8Array ? [values] : values
    for (const one of all) bytes += name.length + lengthOf(one) + 4
  }
  return bytes
}

/** Writes letters and markers; it succeeds when the broker has them. */
export const writer = (broker: Broker["Service"]): WriteLetter => (topic, record, partition) =>
  Effect.flatMap(Shared.lanes(broker), (lanes) =>
    Effect.flatMap(
      lanes.send([{ ...record, topic, partition, bytes: sizeOf(record) }], timeout),
      ([outcome]) => Effect.asVoid(outcome!)
    ))

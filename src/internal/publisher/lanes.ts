/**
 * From messages to partitions: one request per partition, one request in
 * flight per partition, and while it is under way the next one gathers.
 *
 * Never several partitions in one request: with KafkaJS and Platformatic such
 * a request resolves as sent although a partition whose leader moved was left
 * out (17 of 21 runs lost messages, `kafkajs.md` §13). Requests of different
 * partitions go side by side.
 *
 * Order: a lane sends what it was given in the order of the calls. A call's
 * messages for one partition are one entry; when a part of an entry fails, the
 * rest of it is not sent.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { BrokerError, type Producer, type ProducerRecord, ResultUnknown, Unreachable } from "../../Broker.ts"
import { partitionOf } from "../wire/partitioner.ts"

/** A message whose partition follows from its key. */
export interface Message extends ProducerRecord {
  readonly topic: string
  /** Of key, value and headers. */
  readonly bytes: number
}

/** Where a message lies in the log. `offset` is `-1n` if a retry was only told that the broker has it already. */
export interface Position {
  readonly partition: number
  readonly offset: bigint
}

export type Outcome = Exit.Exit<Position, BrokerError>

export interface Lanes {
  /**
   * Sends messages, and succeeds with one outcome for each, in their order.
   * Ends by `timeout`: what has not been acknowledged by then has failed.
   */
  readonly send: (
    messages: ReadonlyArray<Message>,
    timeout: Duration.Duration
  ) => Effect.Effect<Array<Outcome>>
}

/**
 * Largest request. Kafka's default `max.message.bytes` (1,048,588) bounds the
 * batch of a partition, not the single message.
 */
const maxRequestBytes = 900_000
/** What a record costs beside its key, value and headers, at most. */
const recordOverhead = 64

interface Entry {
  readonly messages: ReadonlyArray<Message>
  readonly deadline: number
  /** Index of the first message that has no outcome. */
  next: number
  cancelled: boolean
  readonly settle: (index: number, outcome: Outcome) => void
}

class Lane {
  readonly entries: Array<Entry> = []
  running = false
  readonly topic: string
  readonly partition: number
  constructor(topic: string, partition: number) {
    this.topic = topic
    this.partition = partition
  }
}

/** What one request takes: pieces of entries, in order. */
interface Request {
  readonly pieces: Array<{ readonly entry: Entry; readonly from: number; readonly to: number }>
  readonly records: Array<ProducerRecord>
  readonly deadline: number
}

const recordOf = (message: Message): ProducerRecord => ({
  key: message.key,
  value: message.value,
  headers: message.headers
})

const nextRequest = (lane: Lane): Request => {
  const pieces: Request["pieces"] = []
  const records: Array<ProducerRecord> = []
  let bytes = 0
  let deadline = Infinity
  for (const entry of lane.entries) {
    const from = entry.next
    let to = from
    while (to < entry.messages.length) {
      const size = entry.messages[to]!.bytes + recordOverhead
      if (records.length > 0 && bytes + size > maxRequestBytes) break
      bytes += size
      records.push(recordOf(entry.messages[to]!))
      to++
    }
    if (to > from) {
      pieces.push({ entry, from, to })
      deadline = Math.min(deadline, entry.deadline)
    }
    if (to < entry.messages.length) break
  }
  return { pieces, records, deadline }
}

const notSent = (address: string): Outcome =>
  Exit.fail(
    new BrokerError({
      reason: new Unreachable({
        address,
        tried: "the message waited for its turn until its time was up",
        cause: undefined
      })
    })
  )

const cutOff = ({ partition, topic }: Lane): Outcome =>
  Exit.fail(
    new BrokerError({
      reason: new ResultUnknown({ topic, partition, detail: "the broker's Layer was closed meanwhile" })
    })
  )

export const make = Effect.fnUntraced(function*(options: { readonly producer: Producer; readonly address: string }) {
  const { address, producer } = options
  const context = yield* Effect.context<never>()
  const scope = yield* Effect.scope
  const clock = Context.get(context, Clock.Clock)
  const run = Effect.runForkWith(context)
  const lanes = new Map<string, Lane>()
  let keyless = 0

  const laneOf = (topic: string, partition: number): Lane => {
    const name = `${topic}/${partition}`
    const known = lanes.get(name)
    if (known !== undefined) return known
    const lane = new Lane(topic, partition)
    lanes.set(name, lane)
    return lane
  }

  const start = (lane: Lane) => {
    if (lane.running) return
    lane.running = true
    run(Effect.forkIn(Effect.onInterrupt(drainLane(lane), () => Effect.sync(() => end(lane))), scope))
  }

  const drainLane = (lane: Lane): Effect.Effect<void> =>
    Effect.suspend(() => {
      dropEnded(lane)
      const { deadline, pieces, records } = nextRequest(lane)
      if (!Arr.isArrayNonEmpty(records)) {
        lane.running = false
        return Effect.void
      }
      const timeout = Duration.millis(Math.max(1, deadline - clock.currentTimeMillisUnsafe()))
      return Effect.flatMap(
        Effect.exit(sendSplitting(lane, records, timeout)),
        (exit) => {
          settle(lane, pieces, exit)
          return drainLane(lane)
        }
      )
    })

  // A request that is too large as a whole is halved, so that one oversize
  // message fails alone.
  const sendSplitting = (
    lane: Lane,
    records: Arr.NonEmptyReadonlyArray<ProducerRecord>,
    timeout: Duration.Duration
  ): Effect.Effect<ReadonlyArray<Outcome>, BrokerError> =>
    producer.send({ topic: lane.topic, partition: lane.partition, records, timeout }).pipe(
      Effect.map((base) =>
        records.map((_, i): Outcome => Exit.succeed({ partition: lane.partition, offset: base + BigInt(i) }))
      ),
      Effect.catchIf(
        (error) => error.reason._tag === "TooLarge" && records.length > 1,
        () => {
          const [left, right] = Arr.splitAt(records, records.length >> 1)
          return Effect.zipWith(
            Effect.exit(sendSplitting(lane, left as Arr.NonEmptyArray<ProducerRecord>, timeout)),
            Effect.exit(sendSplitting(lane, right as Arr.NonEmptyArray<ProducerRecord>, timeout)),
            (a, b) => [...outcomesOf(a, left.length), ...outcomesOf(b, right.length)]
          )
        }
      )
    )

  const outcomesOf = (
    exit: Exit.Exit<ReadonlyArray<Outcome>, BrokerError>,
    length: number
  ): ReadonlyArray<Outcome> => Exit.isSuccess(exit) ? exit.value : Arr.makeBy(length, () => Exit.failCause(exit.cause))

  const settle = (lane: Lane, pieces: Request["pieces"], exit: Exit.Exit<ReadonlyArray<Outcome>, BrokerError>) => {
    let at = 0
    for (const { entry, from, to } of pieces) {
      const outcomes = outcomesOf(exit, at + to - from).slice(at, at + to - from)
      at += to - from
      outcomes.forEach((outcome, i) => entry.settle(from + i, outcome))
      entry.next = to
      const failure = outcomes.find(Exit.isFailure)
      if (failure !== undefined && to < entry.messages.length) abandon(entry, failure)
    }
    dropEnded(lane)
  }

  const abandon = (entry: Entry, outcome: Outcome) => {
    for (let i = entry.next; i < entry.messages.length; i++) entry.settle(i, outcome)
    entry.next = entry.messages.length
  }

  /** The scope has closed: nobody sends what is left. */
  const end = (lane: Lane) => {
    for (const entry of lane.entries.splice(0)) abandon(entry, cutOff(lane))
  }

  const dropEnded = (lane: Lane) => {
    const now = clock.currentTimeMillisUnsafe()
    for (const entry of lane.entries) {
      if (entry.next < entry.messages.length && !entry.cancelled && entry.deadline <= now) {
        abandon(entry, notSent(address))
      }
    }
    const alive = lane.entries.filter((entry) => entry.next < entry.messages.length && !entry.cancelled)
    lane.entries.splice(0, lane.entries.length, ...alive)
  }

  /**
   * The lane of each message. Keyless messages of one call go together, to the
   * partitions in turn. A topic without partitions fails its own messages only.
   */
  const group = Effect.fnUntraced(function*(messages: ReadonlyArray<Message>) {
    const counts = new Map<string, Exit.Exit<number, BrokerError>>()
    const groups = new Map<Lane, Array<number>>()
    const outcomes = new Array<Outcome>(messages.length)
    const turn = keyless++
    for (let i = 0; i < messages.length; i++) {
      const { key, topic } = messages[i]!
      let count = counts.get(topic)
      if (count === undefined) {
        count = yield* Effect.exit(producer.partitions(topic))
        counts.set(topic, count)
      }
      if (Exit.isFailure(count)) {
        outcomes[i] = Exit.failCause(count.cause)
        continue
      }
      const lane = laneOf(topic, key === null ? turn % count.value : partitionOf(key, count.value))
      const own = groups.get(lane)
      if (own === undefined) groups.set(lane, [i])
      else own.push(i)
    }
    return { groups, outcomes }
  })

  const enqueue = (
    { groups, outcomes }: Effect.Success<ReturnType<typeof group>>,
    messages: ReadonlyArray<Message>,
    deadline: number
  ): Effect.Effect<Array<Outcome>> =>
    Effect.callback<Array<Outcome>>((resume) => {
      const entries: Array<Entry> = []
      let open = 0
      for (const indexes of groups.values()) open += indexes.length
      if (open === 0) return resume(Effect.succeed(outcomes))
      for (const [lane, indexes] of groups) {
        const entry: Entry = {
          messages: indexes.map((i) => messages[i]!),
          deadline,
          next: 0,
          cancelled: false,
          settle(index, outcome) {
            outcomes[indexes[index]!] = outcome
            if (--open === 0) resume(Effect.succeed(outcomes))
          }
        }
        entries.push(entry)
        lane.entries.push(entry)
        start(lane)
      }
      // What has not left when the caller is interrupted does not leave any more.
      return Effect.sync(() => {
        for (const entry of entries) entry.cancelled = true
      })
    })

  return {
    send: (messages, timeout) =>
      messages.length === 0
        ? Effect.succeed([])
        : Effect.flatMap(group(messages), (grouped) =>
          enqueue(grouped, messages, clock.currentTimeMillisUnsafe() + Duration.toMillis(timeout)))
  } satisfies Lanes
})

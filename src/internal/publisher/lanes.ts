/**
 * From messages to partitions: one request per partition, one request in
 * flight per partition, and while it is under way the next one gathers.
 *
 * Never several partitions in one request: with KafkaJS and Platformatic such
 * a request resolves as sent although a partition whose leader moved was left
 * out (17 of 21 runs lost messages). Requests of different partitions go side
 * by side.
 *
 * Order: a lane sends what it was given in the order of the calls; what becomes
 * of them when a request fails is said in `sending.ts`.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { BrokerError, type Producer, Unreachable } from "../../Broker.ts"
import { partitionOf } from "../wire/partitioner.ts"
import * as Buffer from "./buffer.ts"
import * as Deadlines from "./deadlines.ts"
import * as Request from "./request.ts"
import * as Sending from "./sending.ts"

export type { Message, Outcome, Position } from "./request.ts"

export interface Lanes {
  /**
   * Sends messages, and succeeds with one outcome for each, in their order.
   * Ends by `timeout`: what has not been acknowledged by then has failed.
   * Waits while more than `most` bytes of calls are open, these included;
   * without it never.
   */
  readonly send: (
    messages: ReadonlyArray<Request.Message>,
    timeout: Duration.Duration,
    most?: number
  ) => Effect.Effect<Array<Request.Outcome>>
}

/** One call: what it gave to which lane, and its outcomes so far. */
interface Call extends Buffer.Guest, Deadlines.Bounded {
  readonly timeout: Duration.Duration
  readonly outcomes: Array<Request.Outcome | undefined>
  readonly entries: Array<{ readonly lane: Request.Lane; readonly entry: Request.Entry }>
  /** Messages without an outcome. */
  open: number
  /** Whether it has got into the buffer. */
  entered: boolean
  readonly end: () => void
}

/** The lanes of one topic, by partition. */
interface Lines {
  readonly topic: string
  readonly lanes: Array<Request.Lane | undefined>
  /** Those who wait to be told how many partitions it has; `undefined` when nobody asks. */
  asking: Array<(partitions: Exit.Exit<number, BrokerError>) => void> | undefined
}

export const make = Effect.fnUntraced(function*(options: { readonly producer: Producer; readonly address: string }) {
  const { address, producer } = options
  const context = yield* Effect.context<never>()
  const scope = yield* Effect.scope
  const clock = Context.get(context, Clock.Clock)
  const run = Effect.runForkWith(context)
  const topics = new Map<string, Lines>()
  const buffer = new Buffer.Buffer()
  /** Not the wall clock, which may be set back. */
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  let keyless = 0
  let closed = false

  const linesOf = (topic: string): Lines => {
    const known = topics.get(topic)
    if (known !== undefined) return known
    const lines: Lines = { topic, lanes: [], asking: undefined }
    topics.set(topic, lines)
    return lines
  }

  const laneOf = ({ lanes, topic }: Lines, partition: number): Request.Lane =>
    lanes[partition] ??= { topic, partition, entries: [], running: false }

  const notSent = (tried: string): Exit.Exit<never, BrokerError> =>
    Exit.fail(new BrokerError({ reason: new Unreachable({ address, tried, cause: undefined }) }))

  const late = () => notSent("the message waited for its turn until its time was up")
  const ended = notSent("the Layer of the broker has ended")
  const fork = (effect: Effect.Effect<unknown, unknown>) => void run(Effect.forkIn(effect, scope))
  const sending = Sending.make({ producer, now, fork, late, ended })

  /**
   * Tells how many partitions a topic has: at once if that is known, and
   * always in the order in which it was asked, so that no call overtakes one
   * that had to wait for it.
   */
  const count = (lines: Lines, then: (partitions: Exit.Exit<number, BrokerError>) => void): void => {
    if (lines.asking !== undefined) return void lines.asking.push(then)
    const partitions = producer.partitions(lines.topic)
    if (Exit.isExit(partitions)) return then(partitions as Exit.Exit<number, BrokerError>)
    const asking = lines.asking = [then]
    const tell = (exit: Exit.Exit<number, BrokerError>) =>
      Effect.sync(() => {
        const told = Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? ended : exit
        // Whoever asks meanwhile comes behind those who wait.
        for (const then of asking) then(told)
        lines.asking = undefined
      })
    fork(Effect.onExit(partitions, tell))
  }

  /** Gives messages of one topic to their lanes. Keyless ones of one call go together, to the partitions in turn. */
  const enqueue = (
    call: Call,
    lines: Lines,
    messages: ReadonlyArray<Request.Message>,
    indexes: ReadonlyArray<number>,
    partitions: number,
    turn: number
  ): void => {
    const parts = new Map<number, Array<number>>()
    for (const index of indexes) {
      const { key, partition } = messages[index]!
      const at = partition !== undefined
        ? partition % partitions
        : key === null
        ? turn % partitions
        : partitionOf(key, partitions)
      const part = parts.get(at)
      if (part === undefined) parts.set(at, [index])
      else part.push(index)
    }
    for (const [partition, part] of parts) {
      const lane = laneOf(lines, partition)
      const entry: Request.Entry = {
        messages: part.length === messages.length ? messages : part.map((index) => messages[index]!),
        deadline: call.deadline,
        next: 0,
        cancelled: false,
        blocked: undefined,
        settle: (index, outcome) => settle(call, part[index]!, outcome)
      }
      call.entries.push({ lane, entry })
      sending.offer(lane, entry)
    }
  }

  const settle = (call: Call, index: number, outcome: Request.Outcome): void => {
    // The first outcome counts: an answer may come after the time was up.
    if (call.outcomes[index] !== undefined) return
    call.outcomes[index] = outcome
    if (--call.open === 0) call.end()
  }

  /** Begins to send a call that has got into the buffer. */
  const begin = (call: Call, messages: ReadonlyArray<Request.Message>): void => {
    const turn = keyless++
    for (const [topic, indexes] of byTopic(messages)) {
      const lines = linesOf(topic)
      count(lines, (partitions) => {
        if (call.open === 0) return
        // A topic without partitions fails its own messages only.
        if (Exit.isFailure(partitions)) {
          for (const index of indexes) settle(call, index, Exit.failCause(partitions.cause))
        } else enqueue(call, lines, messages, indexes, partitions.value, turn)
      })
    }
  }

  /** Ends a call: what has left is unknown, the rest was not sent. */
  const cutOff = (call: Call, rest: Request.Outcome, why: string): void => {
    for (const { entry, lane } of call.entries) {
      const left = entry.next
      Request.abandon(entry, rest)
      for (let i = 0; i < left; i++) entry.settle(i, Sending.unknown(lane, why))
    }
    for (let i = 0; i < call.outcomes.length; i++) settle(call, i, rest)
  }

  const expire = (call: Call): void =>
    cutOff(
      call,
      call.entered ? late() : notSent("the message waited for room in the publisher's buffer until its time was up"),
      `no answer within ${Duration.format(call.timeout)}`
    )

  const deadlines = new Deadlines.Deadlines<Call>({
    now,
    after: (millis, then) => fork(Effect.andThen(Effect.sleep(millis), Effect.sync(then))),
    onDue: expire
  })

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      for (const call of deadlines.all) cutOff(call, ended, Sending.closedMeanwhile)
    })
  )

  const leave = (call: Call): void => {
    deadlines.delete(call)
    if (call.entered) buffer.leave(call)
    else buffer.giveUp(call)
  }

  const send: Lanes["send"] = (messages, timeout, most = Infinity) =>
    messages.length === 0 ? Effect.succeed([]) : Effect.callback((resume) => {
      let bytes = 0
      for (const message of messages) bytes += message.bytes
      const outcomes: Array<Request.Outcome | undefined> = new Array(messages.length)
      const call: Call = {
        bytes,
        most,
        deadline: now() + Duration.toMillis(timeout),
        timeout,
        outcomes,
        entries: [],
        open: messages.length,
        entered: false,
        enter: () => {
          call.entered = true
          begin(call, messages)
        },
        end: () => {
          leave(call)
          resume(Effect.succeed(outcomes as Array<Request.Outcome>))
        }
      }
      deadlines.add(call)
      if (closed) return cutOff(call, ended, Sending.closedMeanwhile)
      buffer.come(call)
      // What has not left when the caller is gone does not leave any more.
      return Effect.sync(() => {
        if (call.open === 0) return
        for (const { entry } of call.entries) entry.cancelled = true
        call.open = 0
        leave(call)
      })
    })

  return { send } satisfies Lanes
})

const byTopic = (messages: ReadonlyArray<Request.Message>): ReadonlyMap<string, ReadonlyArray<number>> => {
  const topics = new Map<string, Array<number>>()
  for (let i = 0; i < messages.length; i++) {
    const indexes = topics.get(messages[i]!.topic)
    if (indexes === undefined) topics.set(messages[i]!.topic, [i])
    else indexes.push(i)
  }
  return topics
}

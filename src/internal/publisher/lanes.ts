/**
 * From messages to partitions: one request per partition, one request in
 * flight per partition, and while it is under way the next one gathers.
 *
 * Never several partitions in one request: with KafkaJS and Platformatic such
 * a request resolves as sent although a partition whose leader moved was left
 * out (17 of 21 runs lost messages). Requests of different partitions go side
 * by side.
 *
 * Order: a lane sends what it was given in the order of the calls. When a
 * request fails, the rest of the calls in it is not sent; when one message is
 * too large, or refused, only what follows of its key in its call.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { BrokerError, type Producer, ResultUnknown, Unreachable } from "../../Broker.ts"
import { partitionOf } from "../wire/partitioner.ts"
import * as Request from "./request.ts"

export type { Message, Outcome, Position } from "./request.ts"

export interface Lanes {
  /**
   * Sends messages, and succeeds with one outcome for each, in their order.
   * Ends by `timeout`: what has not been acknowledged by then has failed.
   */
  readonly send: (
    messages: ReadonlyArray<Request.Message>,
    timeout: Duration.Duration
  ) => Effect.Effect<Array<Request.Outcome>>
}

/** One call: its entries by lane, and its outcomes so far. */
interface Call {
  readonly outcomes: Array<Request.Outcome | undefined>
  readonly entries: Array<{ readonly lane: Request.Lane; readonly entry: Request.Entry }>
}

export const make = Effect.fnUntraced(function*(options: { readonly producer: Producer; readonly address: string }) {
  const { address, producer } = options
  const context = yield* Effect.context<never>()
  const scope = yield* Effect.scope
  const clock = Context.get(context, Clock.Clock)
  const run = Effect.runForkWith(context)
  const lanes = new Map<string, Request.Lane>()
  /** Not the wall clock, which may be set back. */
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  let keyless = 0

  const laneOf = (topic: string, partition: number): Request.Lane => {
    const name = `${topic}/${partition}`
    const known = lanes.get(name)
    if (known !== undefined) return known
    const lane: Request.Lane = { topic, partition, entries: [], running: false }
    lanes.set(name, lane)
    return lane
  }

  // --- requests ---

  const start = (lane: Request.Lane) => {
    if (lane.running) return
    lane.running = true
    run(Effect.forkIn(drain(lane), scope))
  }

  const drain = (lane: Request.Lane): Effect.Effect<void> =>
    Effect.suspend(() => {
      const { deadline, pieces } = Request.take(lane, now(), notSent)
      if (!Arr.isReadonlyArrayNonEmpty(pieces)) {
        lane.running = false
        return Effect.void
      }
      const timeout = Duration.millis(Math.max(1, deadline - now()))
      return sendPieces(lane, pieces, timeout).pipe(
        Effect.onInterrupt(() => Effect.sync(() => close(lane, pieces))),
        Effect.andThen(drain(lane))
      )
    })

  // The Layer ends while calls wait: they end with it, and not by their time.
  const close = (lane: Request.Lane, pieces: ReadonlyArray<Request.Piece>) => {
    for (const { entry, index } of pieces) entry.settle(index, unknown(lane, "the publisher closed meanwhile"))
    for (const entry of lane.entries) Request.abandon(entry, notSent())
  }

  /** Sends and settles pieces; `true` if the lane may go on with what follows them. */
  const sendPieces = Effect.fnUntraced(function*(
    lane: Request.Lane,
    pieces: Arr.NonEmptyReadonlyArray<Request.Piece>,
    timeout: Duration.Duration
  ): Effect.fn.Return<boolean> {
    const { partition, topic } = lane
    const exit = yield* Effect.exit(
      producer.send({ topic, partition, records: Arr.map(pieces, Request.messageOf), timeout })
    )
    if (Exit.isSuccess(exit)) {
      pieces.forEach(({ entry, index }, i) =>
        entry.settle(index, Exit.succeed({ partition, offset: exit.value < 0n ? -1n : exit.value + BigInt(i) }))
      )
      return true
    }
    const outcome: Request.Outcome = Exit.failCause(exit.cause)
    if (!concernsContent(exit)) {
      for (const { entry, index } of pieces) {
        entry.settle(index, outcome)
        Request.abandon(entry, outcome)
      }
      return false
    }
    if (pieces.length === 1) {
      Request.refuse(pieces[0], outcome)
      return true
    }
    return yield* sendHalves(lane, pieces, timeout)
  })

  // A request that is too large, or refused, as a whole is halved, so that one
  // message at fault fails alone.
  const sendHalves = Effect.fnUntraced(function*(
    lane: Request.Lane,
    pieces: Arr.NonEmptyReadonlyArray<Request.Piece>,
    timeout: Duration.Duration
  ): Effect.fn.Return<boolean> {
    const middle = pieces.length >> 1
    let failed: Request.Outcome | undefined
    for (const half of [pieces.slice(0, middle), pieces.slice(middle)]) {
      const open: Array<Request.Piece> = []
      for (const piece of half) {
        const outcome = failed ?? Request.blockOf(piece)
        if (outcome === undefined) open.push(piece)
        else piece.entry.settle(piece.index, outcome)
      }
      if (!Arr.isArrayNonEmpty(open)) continue
      if (!(yield* sendPieces(lane, open, timeout))) failed = unknown(lane, "an earlier part of it has no result")
    }
    return failed === undefined
  })

  const unknown = ({ partition, topic }: Request.Lane, detail: string): Request.Outcome =>
    Exit.fail(new BrokerError({ reason: new ResultUnknown({ topic, partition, detail }) }))

  const notSent = (): Request.Outcome =>
    Exit.fail(
      new BrokerError({
        reason: new Unreachable({
          address,
          tried: "the message waited for its turn until its time was up",
          cause: undefined
        })
      })
    )

  // --- calls ---

  /**
   * The lane of each message. Keyless messages of one call go together, to the
   * partitions in turn. A topic without partitions fails its own messages only.
   */
  const group = Effect.fnUntraced(function*(call: Call, messages: ReadonlyArray<Request.Message>) {
    const counts = new Map<string, Exit.Exit<number, BrokerError>>()
    const groups = new Map<Request.Lane, Array<number>>()
    const turn = keyless++
    for (let i = 0; i < messages.length; i++) {
      const { key, partition, topic } = messages[i]!
      let count = counts.get(topic)
      if (count === undefined) {
        count = yield* Effect.exit(producer.partitions(topic))
        counts.set(topic, count)
      }
      if (Exit.isFailure(count)) {
        call.outcomes[i] = Exit.failCause(count.cause)
        continue
      }
      const lane = laneOf(
        topic,
        partition !== undefined
          ? partition % count.value
          : key === null
          ? turn % count.value
          : partitionOf(key, count.value)
      )
      const own = groups.get(lane)
      if (own === undefined) groups.set(lane, [i])
      else own.push(i)
    }
    return groups
  })

  /** Gives the messages to their lanes, and waits for the last outcome. */
  const enqueue = (
    call: Call,
    groups: ReadonlyMap<Request.Lane, ReadonlyArray<number>>,
    messages: ReadonlyArray<Request.Message>,
    deadline: number
  ): Effect.Effect<void> =>
    Effect.callback<void>((resume) => {
      let open = 0
      for (const indexes of groups.values()) open += indexes.length
      if (open === 0) return resume(Effect.void)
      for (const [lane, indexes] of groups) {
        const entry: Request.Entry = {
          messages: indexes.map((i) => messages[i]!),
          deadline,
          next: 0,
          cancelled: false,
          blocked: new Map(),
          settle(index, outcome) {
            // The first outcome counts: an answer may come after the time was up.
            if (call.outcomes[indexes[index]!] !== undefined) return
            call.outcomes[indexes[index]!] = outcome
            if (--open === 0) resume(Effect.void)
          }
        }
        call.entries.push({ lane, entry })
        lane.entries.push(entry)
        start(lane)
      }
      // What has not left when the caller is gone does not leave any more.
      return Effect.sync(() => {
        for (const { entry } of call.entries) entry.cancelled = true
      })
    })

  /** The outcomes of a call whose time is up: what has left is unknown, the rest was not sent. */
  const expire = (call: Call, timeout: Duration.Duration) => {
    for (const { entry, lane } of call.entries) {
      const left = entry.next
      Request.abandon(entry, notSent())
      for (let i = 0; i < left; i++) entry.settle(i, unknown(lane, `no answer within ${Duration.format(timeout)}`))
    }
  }

  const send: Lanes["send"] = (messages, timeout) =>
    Effect.suspend(() => {
      const call: Call = { outcomes: messages.map(() => undefined), entries: [] }
      const deadline = now() + Duration.toMillis(timeout)
      return Effect.flatMap(group(call, messages), (groups) => enqueue(call, groups, messages, deadline)).pipe(
        Effect.timeoutOrElse({ duration: timeout, orElse: () => Effect.sync(() => expire(call, timeout)) }),
        Effect.map(() => call.outcomes.map((outcome) => outcome ?? notSent()))
      )
    })

  return { send } satisfies Lanes
})

/** Whether a smaller request could be taken. */
const concernsContent = (exit: Exit.Failure<unknown, BrokerError>): boolean =>
  exit.cause.reasons.some((reason) =>
    reason._tag === "Fail" && (reason.error.reason._tag === "TooLarge" || reason.error.reason._tag === "Refused")
  )

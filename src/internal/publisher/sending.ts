/**
 * The requests of one partition after another: while one is under way the next
 * one gathers, and what a failed one says of the messages in it, and of those
 * behind it.
 *
 * When a request fails, the rest of the calls in it is not sent; when one
 * message is too large, or refused, only what follows of its key in its call.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { BrokerError, type Producer, ResultUnknown, type TopicPartition } from "../../Broker.ts"
import * as Request from "./request.ts"

/** Of a message that has left, and of which nothing was heard. */
export const unknown = ({ partition, topic }: TopicPartition, detail: string): Request.Outcome =>
  Exit.fail(new BrokerError({ reason: new ResultUnknown({ topic, partition, detail }) }))

export const closedMeanwhile = "the publisher closed meanwhile"

export interface Sending {
  /** Puts an entry behind the others of its lane. */
  readonly offer: (lane: Request.Lane, entry: Request.Entry) => void
}

export const make = (options: {
  readonly producer: Producer
  /** Not the wall clock, which may be set back; milliseconds. */
  readonly now: () => number
  /** Runs an effect until the Layer ends. */
  readonly fork: (effect: Effect.Effect<void>) => void
  /** Of what waited for its turn until its time was up. */
  readonly late: () => Request.Outcome
  /** Of what the end of the Layer keeps from leaving. */
  readonly ended: Request.Outcome
}): Sending => {
  const { ended, fork, late, now, producer } = options

  const offer = (lane: Request.Lane, entry: Request.Entry) => {
    lane.entries.push(entry)
    if (lane.running) return
    lane.running = true
    fork(drain(lane))
  }

  const drain = (lane: Request.Lane): Effect.Effect<void> =>
    Effect.suspend(() => {
      const { deadline, pieces } = Request.take(lane, now(), late)
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
    for (const { entry, index } of pieces) entry.settle(index, unknown(lane, closedMeanwhile))
    for (const entry of lane.entries) Request.abandon(entry, ended)
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
      if (!(yield* sendPieces(lane, open, timeout))) {
        failed = unknown(lane, "an earlier part of it has no result")
      }
    }
    return failed === undefined
  })

  return { offer }
}

/** Whether a smaller request could be taken. */
const concernsContent = (exit: Exit.Failure<unknown, BrokerError>): boolean =>
  exit.cause.reasons.some((reason) =>
    reason._tag === "Fail" && (reason.error.reason._tag === "TooLarge" || reason.error.reason._tag === "Refused")
  )

/**
 * Batches of a batch handler: runs one as a whole, and finds out which of its
 * events are at fault when it fails.
 *
 * - The handler names them (`Batching.failed`): they are judged by the policy,
 *   each alone. The others are applied, or run again without them if the
 *   transaction rolled back, which is no attempt of theirs.
 * - Else it is halved until the event at fault stands alone: one poison record
 *   among n costs at most 2·⌈log2 n⌉+1 attempts. What shares a key with a half
 *   that failed is left for later.
 * - If both halves fail, the cause is common: all of them back off together,
 *   and run again together, but no more than half of them at a time, so that
 *   round after round the batch divides. Where waiting cannot help (a permanent
 *   error, the schedule's end) it is split on at once: only an event that has
 *   failed alone, or was named, is given up on.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Batching from "../../../Batching.ts"
import type { Meter } from "../../metrics.ts"
import * as Attempt from "../failure/attempt.ts"
import type { Outcome } from "../failure/outcome.ts"
import type { Handler } from "../handler.ts"
import type { Task } from "../order/assignment.ts"
import type { Lane } from "../order/lanes.ts"
import type { Slot, Slots } from "./slots.ts"
import { type Decoded, tasksOf, without } from "./together.ts"

type Batch = Arr.NonEmptyReadonlyArray<Decoded>

/** What failed as a whole, and nobody knows by which event. */
interface Failed {
  readonly batch: Batch
  readonly cause: Cause.Cause<unknown>
}

export const make = (options: {
  readonly handler: Handler
  readonly outcome: Outcome
  readonly begin: Slots["begin"]
  readonly meter: Meter
  readonly clock: Clock.Clock
}) => {
  const { begin, clock, handler, meter, outcome } = options

  const bounded = Effect.timeoutOrElse({
    duration: Attempt.timeoutMillis(handler),
    orElse: () => Effect.fail(Attempt.timedOut(handler))
  })

  const attempt = (slot: Slot, batch: Batch): Effect.Effect<Exit.Exit<unknown, unknown>> => {
    const tasks = tasksOf(batch)
    begin(slot, tasks)
    meter.batch(tasks.length)
    for (const task of tasks) task.delivery.assignment.start(task)
    const applied = Effect.provideService(
      bounded(handler.apply(Arr.map(batch, ({ event }) => event))),
      Batching.Closed,
      slot.closed
    )
    return Effect.map(Effect.exit(slot.restore(applied)), (exit) => {
      slot.running = []
      meter.took(clock.currentTimeMillisUnsafe() - slot.startedMillis)
      return exit
    })
  }

  /** Runs a batch; lanes of tasks that must run again are added to `held`. */
  const run = Effect.fnUntraced(function*(
    slot: Slot,
    batch: ReadonlyArray<Decoded>,
    held: Set<Lane<Task>>
  ): Effect.fn.Return<void> {
    const own = runnable(batch, held)
    if (slot.interrupted !== undefined || !Arr.isReadonlyArrayNonEmpty(own)) return
    const failed = yield* runWhole(slot, own, held)
    if (failed !== undefined) yield* split(slot, failed, held)
  })

  /** Runs a batch as a whole, without those that it names; returns what failed unnamed. */
  const runWhole = Effect.fnUntraced(function*(
    slot: Slot,
    batch: Batch,
    held: Set<Lane<Task>>
  ): Effect.fn.Return<Failed | undefined> {
    for (let rest: ReadonlyArray<Decoded> = batch; Arr.isReadonlyArrayNonEmpty(rest);) {
      const exit = yield* attempt(slot, rest)
      if (Exit.isSuccess(exit)) {
        yield* applied(rest)
        return undefined
      }
      if (slot.interrupted !== undefined) return undefined
      const { cause, culprits } = namedBy(exit.cause, rest)
      // While the store is away no part would fare better: all wait together.
      if (Attempt.isOutage(handler, cause)) {
        hold(rest, held)
        yield* outcome.waitOut(tasksOf(rest), cause)
        return undefined
      }
      if (culprits.size === 0) return { batch: rest, cause }
      if (!handler.rollsBack) {
        yield* applied(rest.filter((one) => !culprits.has(one)))
        rest = rest.filter((one) => culprits.has(one))
      }
      for (const one of culprits) {
        // Behind one that must run again: its turn comes after that one.
        if (held.has(one.task.lane)) continue
        const done = yield* outcome.failed(slot, one.task, cause)
        if (!done) held.add(one.task.lane)
        rest = without(rest, one.task, done)
      }
      if (!handler.rollsBack || slot.interrupted !== undefined) return undefined
      rest = rest.filter((one) => !culprits.has(one) && !one.task.dropped)
    }
    return undefined
  })

  const applied = (batch: ReadonlyArray<Decoded>): Effect.Effect<void> => {
    const tasks = tasksOf(batch)
    for (const task of tasks) outcome.done(task)
    return outcome.debug(tasks)
  }

  /** Goes on with the halves of what has failed as a whole. */
  const split = Effect.fnUntraced(function*(
    slot: Slot,
    { batch, cause }: Failed,
    held: Set<Lane<Task>>
  ): Effect.fn.Return<void> {
    if (batch.length === 1) {
      const { task } = batch[0]
      if (!(yield* outcome.failed(slot, task, cause))) held.add(task.lane)
      return
    }
    const middle = batch.length >> 1
    const failed: Array<Failed> = []
    const later = new Set<Lane<Task>>()
    for (const half of [batch.slice(0, middle), batch.slice(middle)]) {
      const own = runnable(half, held, later)
      if (slot.interrupted !== undefined) return
      const failure = Arr.isReadonlyArrayNonEmpty(own) ? yield* runWhole(slot, own, held) : undefined
      if (failure === undefined) continue
      failed.push(failure)
      hold(failure.batch, later)
    }
    const guilty = failed.length === 2 ? yield* waitTogether(failed, Math.ceil(batch.length / 2), held) : failed
    for (const failure of guilty) if (slot.interrupted === undefined) yield* split(slot, failure, held)
  })

  /**
   * Both halves have failed: they back off together, and then run `most` at a
   * time. Returns the halves for which waiting is no use.
   */
  const waitTogether = Effect.fnUntraced(function*(
    failed: ReadonlyArray<Failed>,
    most: number,
    held: Set<Lane<Task>>
  ): Effect.fn.Return<ReadonlyArray<Failed>> {
    const guilty: Array<Failed> = []
    const waiting: Array<Failed> = []
    let afterMillis = 0
    for (const failure of failed) {
      const { batch, cause } = failure
      const wait = batch.length === 1
        ? undefined
        : yield* Attempt.judgeTogether(handler, tasksOf(batch), cause, most)
      if (wait === undefined) guilty.push(failure)
      else {
        waiting.push(failure)
        afterMillis = Math.max(afterMillis, wait)
      }
    }
    if (waiting.length === 0) return guilty
    const dueMillis = (yield* Clock.currentTimeMillis) + afterMillis
    const batch = waiting.flatMap(({ batch }) => batch)
    for (const { task } of batch) task.dueMillis = dueMillis
    hold(batch, held)
    yield* outcome.batchFailed(tasksOf(batch), afterMillis, waiting[0]!.cause)
    return guilty
  })

  return { run }
}

const hold = (batch: ReadonlyArray<Decoded>, lanes: Set<Lane<Task>>): void => {
  for (const { task } of batch) lanes.add(task.lane)
}

const runnable = (
  batch: ReadonlyArray<Decoded>,
  ...held: ReadonlyArray<ReadonlySet<Lane<Task>>>
): ReadonlyArray<Decoded> => batch.filter(({ task }) => !task.dropped && !held.some((lanes) => lanes.has(task.lane)))

/**
 * The events that a failure names, and its cause as the policy sees it. None if
 * it names one that is not of the batch: the others cannot count as applied.
 */
const namedBy = (
  cause: Cause.Cause<unknown>,
  batch: Batch
): { readonly cause: Cause.Cause<unknown>; readonly culprits: ReadonlySet<Decoded> } => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  if (!(error instanceof Batching.Failed)) return { cause, culprits: new Set() }
  const named = error.events.map((event) =>
    batch.find((one) => one.event === event) ??
      batch.find(({ event: { offset, partition } }) => offset === event.offset && partition === event.partition)
  )
  const culprits = named.every((one) => one !== undefined) ? batch.filter((one) => named.includes(one)) : []
  return { cause: Cause.fail(error.error), culprits: new Set(culprits) }
}

/**
 * Group commit: runs several events of one handler in one transaction, and
 * finds out which of them is at fault when it fails.
 *
 * A named culprit is judged by its policy like any failed event, and the rest
 * runs again without it and without what follows of its key; that is no
 * attempt of theirs. A failure that names nobody is halved, and so is a group
 * that lost a race (a deadlock, a serialization failure): a smaller one holds
 * fewer locks. An event alone loses ten races before that counts as an attempt.
 * After three
 * culprits the rest runs event by event, so that a broken handler costs each
 * event a few runs and not one per neighbour.
 *
 * How many events share a transaction follows from how long they take: as many
 * as fit into 50 ms, so that a group holds its locks no longer than that.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import type { Meter } from "../../metrics.ts"
import * as Attempt from "../failure/attempt.ts"
import type { Outcome } from "../failure/outcome.ts"
import type { Grouped, Handler } from "../handler.ts"
import type { Task } from "../order/assignment.ts"
import type { Lane } from "../order/lanes.ts"
import type { TakeLimits } from "../order/ready.ts"
import { Culprit } from "./exactlyOnce.ts"
import type { Slot, Slots } from "./slots.ts"
import { type Decoded, tasksOf, without } from "./together.ts"

/** How long a group may take. */
const groupMillis = 50
/** Events in the first group, before anything is known of their cost. */
const firstSize = 10
/** How much the last group weighs in the estimate. */
const weight = 0.3
const maxCulprits = 3

export const make = Effect.fnUntraced(function*(options: {
  readonly handler: Handler
  readonly grouped: Grouped
  readonly outcome: Outcome
  readonly begin: Slots["begin"]
  readonly meter: Meter
  /** Runs an event by itself; `false` if it must run again. */
  readonly runTask: (slot: Slot, task: Task) => Effect.Effect<boolean>
}) {
  const { begin, grouped, handler, meter, outcome, runTask } = options
  const clock = yield* Clock.Clock
  let eventMillis = groupMillis / firstSize

  const learn = (events: number, millis: number) => {
    eventMillis = eventMillis * (1 - weight) + millis / events * weight
  }

  /** What a slot takes now. */
  const limits = (): TakeLimits => ({
    maxBytes: grouped.limits.maxBytes,
    maxSize: Math.max(1, Math.min(grouped.limits.maxSize, Math.floor(groupMillis / Math.max(eventMillis, 0.01))))
  })

  /** Runs a group as a whole; `at` is the task that ran when it ended. */
  const attempt = (slot: Slot, group: Arr.NonEmptyReadonlyArray<Decoded>) => {
    const tasks = new Map(group.map(({ event, task }) => [event, task]))
    let at: Task | undefined
    begin(slot, Array.from(tasks.values()))
    meter.batch(tasks.size)
    for (const task of tasks.values()) task.delivery.assignment.start(task)
    const applied = grouped.apply(Arr.map(group, ({ event }) => event), (event) => {
      at = tasks.get(event)
      // Each event has the whole timeout.
      slot.startedMillis = clock.currentTimeMillisUnsafe()
    })
    return Effect.map(Effect.exit(slot.restore(applied)), (exit) => {
      slot.running = []
      return { exit, at }
    })
  }

  /** Runs a group; lanes of tasks that must run again are added to `held`. */
  const run = Effect.fnUntraced(function*(
    slot: Slot,
    group: ReadonlyArray<Decoded>,
    held: Set<Lane<Task>>
  ): Effect.fn.Return<void> {
    let rest: ReadonlyArray<Decoded> = group.filter(({ task }) => !held.has(task.lane))
    for (let culprits = 0;;) {
      rest = rest.filter(({ task }) => !task.dropped)
      if (slot.interrupted !== undefined || !Arr.isReadonlyArrayNonEmpty(rest)) return
      if (rest.length === 1 || culprits >= maxCulprits) return yield* runEach(slot, rest, held)
      const started = clock.currentTimeMillisUnsafe()
      const { at, exit } = yield* attempt(slot, rest)
      if (Exit.isSuccess(exit)) {
        learn(rest.length, clock.currentTimeMillisUnsafe() - started)
        for (const { task } of rest) outcome.done(task)
        return yield* outcome.debug(tasksOf(rest))
      }
      if (slot.interrupted === "Drain") return
      // Interrupted by its time limit, or by itself: it was the one that ran.
      const culprit = culpritOf(exit.cause, rest, Cause.hasInterrupts(exit.cause) ? at : undefined)
      if (culprit === undefined) return yield* halve(slot, rest, exit.cause, held)
      culprits++
      const done = yield* outcome.failed(slot, culprit.task, culprit.cause)
      if (!done) held.add(culprit.task.lane)
      rest = without(rest, culprit.task, done)
    }
  })

  const runEach = Effect.fnUntraced(function*(
    slot: Slot,
    group: ReadonlyArray<Decoded>,
    held: Set<Lane<Task>>
  ) {
    for (const { task } of group) {
      if (task.dropped || held.has(task.lane)) continue
      if (slot.interrupted !== undefined) return
      if (!(yield* runTask(slot, task))) held.add(task.lane)
    }
  })

  const halve = Effect.fnUntraced(function*(
    slot: Slot,
    group: ReadonlyArray<Decoded>,
    cause: Cause.Cause<unknown>,
    held: Set<Lane<Task>>
  ): Effect.fn.Return<void> {
    if (Attempt.isOutage(handler, cause)) {
      for (const { task } of group) held.add(task.lane)
      return yield* outcome.waitOut(tasksOf(group), cause)
    }
    const middle = group.length >> 1
    yield* run(slot, group.slice(0, middle), held)
    yield* run(slot, group.slice(middle), held)
  })

  return { limits, run }
})

const culpritOf = (
  cause: Cause.Cause<unknown>,
  group: ReadonlyArray<Decoded>,
  interrupted: Task | undefined
): { readonly task: Task; readonly cause: Cause.Cause<unknown> } | undefined => {
  if (interrupted !== undefined) return { task: interrupted, cause }
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  if (!(error instanceof Culprit)) return undefined
  const found = group.find(({ event }) => event === error.event)
  return found === undefined ? undefined : { task: found.task, cause: error.cause }
}

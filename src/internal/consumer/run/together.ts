/**
 * What was taken at once: which tasks run together, and which alone.
 *
 * What has failed alone before goes alone, so that it does not take others
 * with it again; what has failed with others goes with others again, but with
 * fewer; the rest goes as one. Tasks of one lane never overtake each other:
 * what cannot go yet is left for the next take.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Event from "../../../Event.ts"
import type { Task } from "../order/assignment.ts"
import type { Lane } from "../order/lanes.ts"
import { isDone, type Undecodable } from "./decode.ts"
import type { Slot } from "./slots.ts"

/** A task beside its decoded event. */
export interface Decoded {
  readonly task: Task
  readonly event: Event.Event<unknown>
}

export const tasksOf = (batch: ReadonlyArray<Decoded>): ReadonlyArray<Task> => batch.map(({ task }) => task)

/** A batch without a task; if that must run again, without what follows in its lane, too. */
export const without = (batch: ReadonlyArray<Decoded>, gone: Task, done: boolean): ReadonlyArray<Decoded> => {
  const from = batch.findIndex(({ task }) => task === gone)
  return batch.filter(({ task }, i) => task !== gone && (done || i < from || task.lane !== gone.lane))
}

/** Runs a batch; lanes of tasks that must run again are added to `held`. */
export type Run = (slot: Slot, batch: ReadonlyArray<Decoded>, held: Set<Lane<Task>>) => Effect.Effect<void>

export const make = (options: {
  readonly decoded: (task: Task) => Effect.Effect<Event.Event<unknown>, Undecodable>
  /** Runs an event by itself; `false` if it must run again. */
  readonly runTask: (slot: Slot, task: Task) => Effect.Effect<boolean>
}) => {
  const { decoded, runTask } = options

  /** Decodes tasks and runs them by `run`. */
  return Effect.fnUntraced(function*(slot: Slot, tasks: ReadonlyArray<Task>, run: Run) {
    const held = new Set<Lane<Task>>()
    const later = new Set<Lane<Task>>()
    const batch: Array<Decoded> = []
    const again: Array<Decoded> = []
    // Hardly ever asked, so looked for and not kept.
    const goes = (lane: Lane<Task>) => [batch, again].some((part) => part.some(({ task }) => task.lane === lane))
    for (const task of tasks) {
      const { failures, lane } = task
      if (task.dropped || held.has(lane) || later.has(lane)) continue
      const alone = failures !== undefined && (failures.together === 1 || failures.givenUp !== undefined)
      const decoding = alone ? undefined : decoded(task)
      const event = decoding === undefined || isDone(decoding) ? decoding : yield* Effect.exit(decoding)
      if (event === undefined || Exit.isFailure(event)) {
        if (goes(lane)) later.add(lane)
        else if (!(yield* runTask(slot, task))) held.add(lane)
        continue
      }
      const ofBatch = failures === undefined
      if (!ofBatch && batch.some((one) => one.task.lane === lane)) {
        later.add(lane)
        continue
      }
      ;(ofBatch ? batch : again).push({ task, event: event.value })
    }
    for (const part of [...parts(again), batch]) {
      yield* run(slot, part, held)
      // What is left of a part must not be overtaken by the next one.
      for (const { task } of part) if (!task.finished) held.add(task.lane)
    }
  })
}

/** Cuts what has failed together into parts as large as each of their events may run in. */
const parts = (again: ReadonlyArray<Decoded>): Array<Array<Decoded>> => {
  const all: Array<Array<Decoded>> = []
  let most = 0
  for (const one of again) {
    const own = one.task.failures?.together ?? 1
    const last = all.at(-1)
    if (last !== undefined && last.length < Math.min(most, own)) {
      last.push(one)
      most = Math.min(most, own)
    } else {
      all.push([one])
      most = own
    }
  }
  return all
}

/**
 * Readers of partitions: each takes chunks from its log and hands them to
 * `onSignal`, one at a time.
 *
 * Invariant: a reader has at most one `onSignal` call in flight, and makes none
 * after `stop`.
 *
 * Insight: a reader closes its latch *before* it looks. Whatever happens after
 * the look opens the latch again, so no wake-up is lost and nothing polls.
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type { Assignment, Signal, TopicPartition } from "../../../Broker.ts"
import { partitionKey } from "./group.ts"
import * as Log from "./log.ts"

export interface Feed {
  /** Reads one partition from a position until `stop`. */
  readonly read: (assignment: Assignment, log: Log.PartitionLog, from: bigint) => Effect.Effect<void>
  /** Readers end when their running `onSignal` returns. */
  readonly stop: () => void
  readonly pause: (partitions: ReadonlyArray<TopicPartition>) => void
  readonly resume: (partitions: ReadonlyArray<TopicPartition>) => void
}

export const make = (onSignal: (signal: Signal) => Effect.Effect<void>): Feed => {
  const latches = new Map<string, Latch.Latch>()
  const paused = new Set<string>()
  let stopped = false
  const reading = () => !stopped

  const wakeAll = () => latches.forEach((latch) => latch.openUnsafe())

  const read = Effect.fnUntraced(function*(assignment: Assignment, log: Log.PartitionLog, from: bigint) {
    const key = partitionKey(assignment)
    const latch = Latch.makeUnsafe()
    const listener = () => void latch.openUnsafe()
    latches.set(key, latch)
    log.listeners.add(listener)
    let position = from
    yield* Effect.gen(function*() {
      while (reading()) {
        latch.closeUnsafe()
        const chunk = paused.has(key) ? undefined : Log.read(log, position)
        if (chunk === undefined) {
          yield* latch.await
        } else {
          yield* onSignal({ _tag: "Records", assignment, ...chunk })
          position = chunk.nextOffset
        }
      }
    }).pipe(Effect.ensuring(Effect.sync(() => log.listeners.delete(listener))))
  })

  return {
    read,
    stop() {
      stopped = true
      wakeAll()
    },
    pause(partitions) {
      partitions.forEach((at) => paused.add(partitionKey(at)))
    },
    resume(partitions) {
      partitions.forEach((at) => paused.delete(partitionKey(at)))
      wakeAll()
    }
  }
}

/**
 * Who runs: the slots of one handler, and the watch over them.
 *
 * A worker is a fiber that holds one permit of each limit (its handler's, its
 * group's, the process's) and loops: no fiber or timer per record. While work is
 * ready, exactly one further worker stands in line for the next permits; so the
 * number of workers follows the semaphores, also when they are shared or
 * resized, and an idle handler has none. A worker is uninterruptible except inside the handler, so
 * interrupting it ends the attempt and never the bookkeeping.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type { CloseReason } from "../../../Batching.ts"
import type { Handler } from "../handler.ts"
import type { Assignment, Task } from "../order/assignment.ts"
import * as EventLoop from "../status/eventLoop.ts"

/** Why a worker's fiber was interrupted: by the watch, by a drain, or by its own handler. */
export type Interruption = "Timeout" | "Drain" | "Handler"

export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** One running worker. */
export interface Slot {
  /** Makes an effect interruptible again. */
  readonly restore: Restore
  readonly fiber: Fiber.Fiber<unknown, unknown>
  /** The tasks of what runs now and may be interrupted; empty in between. */
  running: ReadonlyArray<Task>
  /** Why the batch that it runs closed. */
  closed: CloseReason | undefined
  /** What began last, also when it has ended. */
  latest: ReadonlyArray<Task>
  startedMillis: number
  /** Once set, the fiber is of no further use: the worker ends after its bookkeeping. */
  interrupted: Interruption | undefined
}

export interface Slots {
  /** Says that something may be ready. Synchronous and cheap. */
  readonly kick: () => void
  /** Whether all slots are taken: a worker stands in line for the next permit. */
  readonly busy: () => boolean
  /** Notes what runs now, and bounds it by the handler's timeout. */
  readonly begin: (slot: Slot, tasks: ReadonlyArray<Task>) => void
  /** The workers that live. */
  readonly all: ReadonlySet<Slot>
  /** Runs an effect beside the workers, for as long as they live. */
  readonly fork: (effect: Effect.Effect<unknown>) => void
  /** Interrupts the workers that run tasks of these assignments, and returns their fibers. */
  readonly interrupt: (assignments: ReadonlySet<Assignment>) => Array<Fiber.Fiber<unknown, unknown>>
}

export const make = Effect.fnUntraced(function*(options: {
  readonly handler: Handler
  readonly timeoutMillis: number
  /** How much is ready. */
  readonly waiting: () => number
  /** What a worker does with its slot. */
  readonly work: (slot: Slot) => Effect.Effect<void>
}) {
  const { handler, timeoutMillis, waiting, work } = options
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const fork = (effect: Effect.Effect<unknown>) => void run(Effect.forkIn(effect, scope))
  const slots = new Set<Slot>()
  const rememberedMillis = EventLoop.tickMillis
  let inLine = false
  let watching = false

  const kick = () => {
    if (inLine || waiting() === 0) return
    inLine = true
    fork(worker)
  }

  // In one order everywhere, so that no two workers wait for each other.
  const withPermits = (effect: Effect.Effect<void>) =>
    handler.slots.reduceRight((held, semaphore) => semaphore.withPermit(held), effect)

  const worker = Effect.suspend(() => {
    let slot: Slot | undefined
    return withPermits(Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber) => {
        slot = {
          restore,
          fiber,
          running: [],
          latest: [],
          closed: undefined,
          startedMillis: 0,
          interrupted: undefined
        }
        slots.add(slot)
        inLine = false
        return work(slot)
      })
    )).pipe(
      Effect.onExit(() =>
        Effect.sync(() => {
          if (slot === undefined) inLine = false
          else {
            slots.delete(slot)
            const now = clock.currentTimeMillisUnsafe()
            if (now - slot.startedMillis >= rememberedMillis) ended(slot, now)
          }
          kick()
        })
      )
    )
  })

  // Nothing looks at the clock when an attempt ends; so it is noticed when the next begins, or the worker ends.
  const ended = ({ latest, startedMillis }: Slot, now: number) => {
    if (latest.length > 0) EventLoop.remember({ handler: handler.name, tasks: latest, startedMillis, endedMillis: now })
  }

  const interruptSlot = (slot: Slot, why: Interruption) => {
    slot.interrupted = why
    slot.fiber.interruptUnsafe()
  }

  // One watch for all slots: it sleeps until the oldest attempt may be due, and
  // ends when nothing runs.
  const watch: Effect.Effect<void> = Effect.suspend(() => {
    const now = clock.currentTimeMillisUnsafe()
    let next = Infinity
    for (const slot of slots) {
      if (slot.running.length === 0 || slot.interrupted !== undefined) continue
      const left = slot.startedMillis + timeoutMillis - now
      if (left > 0) next = Math.min(next, left)
      else interruptSlot(slot, "Timeout")
    }
    watching = next !== Infinity
    return watching ? Effect.andThen(Effect.sleep(next), watch) : Effect.void
  })

  const slotsOf: Slots = {
    all: slots,
    kick,
    busy: () => inLine,
    fork,
    begin: (slot, tasks) => {
      const now = clock.currentTimeMillisUnsafe()
      if (now - slot.startedMillis >= rememberedMillis) ended(slot, now)
      slot.running = tasks
      slot.latest = tasks
      slot.startedMillis = now
      // A batch carries its own timer: when it is due, its worker goes on with the halves.
      if (watching || handler.batch !== undefined) return
      watching = true
      fork(watch)
    },
    interrupt: (assignments) => {
      const interrupted: Array<Fiber.Fiber<unknown, unknown>> = []
      for (const slot of slots) {
        if (!slot.running.some((task) => assignments.has(task.delivery.assignment))) continue
        interruptSlot(slot, "Drain")
        interrupted.push(slot.fiber)
      }
      return interrupted
    }
  }
  return slotsOf
})

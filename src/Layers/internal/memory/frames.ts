/**
 * Which transaction of the in-memory store a fiber is in, and how it ends.
 *
 * Invariant: one outermost transaction runs at a time, and one savepoint at a
 * time within it. A fiber that outlives its transaction gets a typed error.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Semaphore from "effect/Semaphore"
import { MessageStoreError, StoreFailed } from "../../../MessageStore.ts"
import * as Tx from "./transactions.ts"

/** A transaction or savepoint, and the lock for the savepoints within it. */
interface Frame {
  readonly level: Tx.Level
  readonly inner: Semaphore.Semaphore
}

/** The innermost frame of the fiber, for each store that it is in a transaction of. */
const Frames = Context.Reference<ReadonlyMap<object, Frame>>("effect-events/Layers/Memory/Frames", {
  defaultValue: () => new Map()
})

export const make = () => {
  const self = {}
  const outermost = Semaphore.makeUnsafe(1)
  const commitFailures: Array<MessageStoreError> = []

  const frame = Effect.map(Frames, (frames) => frames.get(self))

  /** Runs one step on the state that the calling fiber sees. */
  const atomically = <A>(operation: string, f: (level: Tx.Level | undefined, now: number) => A) =>
    Effect.flatMap(frame, (frame): Effect.Effect<A, MessageStoreError> =>
      frame !== undefined && !Tx.isOpen(frame.level)
        ? Effect.fail(ended(operation))
        : Effect.map(Clock.currentTimeMillis, (now) => f(frame?.level, now)))

  /** Ends a level by the outcome of its effect; fails if the commit fails. */
  const end = (level: Tx.Level, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void, MessageStoreError> => {
    const outlived = level.parent !== undefined && !Tx.isOpen(level.parent)
    const failure = Exit.isFailure(exit) ?
      undefined
      : outlived ?
      ended("release a savepoint")
      : level.parent === undefined ?
      commitFailures.shift()
      : undefined
    if (Exit.isFailure(exit) || failure !== undefined) {
      Tx.rollback(level)
    } else {
      Tx.commit(level)
    }
    return failure === undefined ? Effect.void : Effect.fail(failure)
  }

  const transaction = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | MessageStoreError, R> =>
    Effect.flatMap(Frames, (frames) => {
      const outer = frames.get(self)
      const lock = outer?.inner ?? outermost
      return lock.withPermit(Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
        if (outer !== undefined && !Tx.isOpen(outer.level)) {
          return yield* Effect.fail(ended("begin a savepoint"))
        }
        const inner: Frame = { level: Tx.begin(outer?.level), inner: Semaphore.makeUnsafe(1) }
        const exit = yield* restore(effect).pipe(
          Effect.provideService(Frames, new Map(frames).set(self, inner)),
          Effect.exit
        )
        yield* end(inner.level, exit)
        return yield* exit
      })))
    })

  return { atomically, transaction, level: Effect.map(frame, (frame) => frame?.level), commitFailures }
}

const ended = (operation: string): MessageStoreError =>
  new MessageStoreError({
    reason: new StoreFailed({
      operation,
      detail: "the transaction of this fiber has ended; a fiber must not outlive the transaction that it uses",
      cause: new Error("transaction ended")
    })
  })

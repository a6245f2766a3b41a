/**
 * The engine's input port, played by a test: it gives the signals that a
 * broker would give, and keeps what the engine commits and asks for.
 *
 * Signals return when the engine has taken them in, as the contract asks.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as TestClock from "effect/testing/TestClock"
import * as Batching from "../../src/Batching.ts"
import type { BrokerError, ConsumerRecord, Headers, Position, ProducerRecord, Signal } from "../../src/Broker.ts"
import type * as Event from "../../src/Event.ts"
import * as FailurePolicy from "../../src/FailurePolicy.ts"
import * as Group from "../../src/internal/consumer/group.ts"
import type { Handler } from "../../src/internal/consumer/handler.ts"
import type { Ordering } from "../../src/internal/consumer/order/lanes.ts"
import * as Idempotent from "../../src/internal/consumer/run/idempotent.ts"
import * as Worker from "../../src/internal/consumer/run/worker.ts"
import * as Topic from "../../src/Topic.ts"

export const topicName = "orders"

const Item = Schema.Struct({ n: Schema.Number })

export type Item = Event.Event<typeof Item.Type>

/** A record whose payload is its offset. */
export const record = (offset: number, key: string | null, fields?: {
  readonly value?: Uint8Array | null
  readonly headers?: Headers
}): ConsumerRecord => ({
  key: key === null ? null : Buffer.from(key),
  value: fields?.value === undefined ? Buffer.from(JSON.stringify({ n: offset })) : fields.value,
  headers: { ce_id: `id-${offset}`, ...fields?.headers },
  offset: BigInt(offset),
  timestamp: 0
})

/** Records with the offsets from 0, one for each key. */
export const records = (...keys: ReadonlyArray<string | null>): Array<ConsumerRecord> =>
  keys.map((key, offset) => record(offset, key))

export const make = () => {
  let onSignal: (signal: Signal) => Effect.Effect<void> = () => Effect.void
  const epochs = new Map<number, number>()
  const commits: Array<Position> = []
  const flow: Array<string> = []
  const script: { commit: (positions: ReadonlyArray<Position>) => Effect.Effect<void, BrokerError> } = {
    commit: () => Effect.void
  }
  let epoch = 0

  const grant = (partition: number) => ({ topic: topicName, partition, epoch: epochs.get(partition)! })
  const grants = (partitions: ReadonlyArray<number>) => partitions.map(grant)
  const said = (word: string) => (partitions: ReadonlyArray<{ readonly partition: number }>) =>
    Effect.sync(() => {
      for (const { partition } of partitions) flow.push(`${word} ${partition}`)
    })

  const feed: Group.Feed = (take) =>
    Effect.sync(() => {
      onSignal = (signal) => Effect.provideService(take(signal), References.MinimumLogLevel, "None")
      return {
        pause: said("pause"),
        resume: said("resume"),
        failed: Effect.never,
        commit: (positions) =>
          Effect.andThen(script.commit(positions), Effect.sync(() => void commits.push(...positions)))
      }
    })

  return {
    feed,
    /** What was committed, in order. */
    commits,
    /** What was paused and resumed, in order. */
    flow,
    /** What becomes of a commit; by default it succeeds. */
    script,
    committed: (partition: number): bigint | undefined =>
      commits.findLast((position) => position.partition === partition)?.offset,
    assign: (...partitions: ReadonlyArray<number>) =>
      Effect.suspend(() => {
        for (const partition of partitions) epochs.set(partition, ++epoch)
        return onSignal({ _tag: "Assigned", assignments: grants(partitions) })
      }),
    deliver: (partition: number, records: ReadonlyArray<ConsumerRecord>, nextOffset?: bigint) =>
      Effect.suspend(() =>
        onSignal({
          _tag: "Records",
          assignment: grant(partition),
          records,
          nextOffset: nextOffset ?? (records.at(-1)?.offset ?? -1n) + 1n
        })
      ),
    revoke: (partitions: ReadonlyArray<number>, within: Duration.Duration) =>
      Effect.suspend(() => onSignal({ _tag: "Revoked", assignments: grants(partitions), within })),
    lose: (...partitions: ReadonlyArray<number>) =>
      Effect.suspend(() => onSignal({ _tag: "Lost", assignments: grants(partitions) }))
  }
}

export type ScriptedFeed = ReturnType<typeof make>

/** Lets every fiber run as far as it comes while the clock stands still. */
export const settle: Effect.Effect<void> = Effect.forEach(
  Array.from({ length: 100 }),
  () => Effect.yieldNow,
  { discard: true }
)

/** Lets time pass, and everything happen that was waiting for it. */
export const pass = (duration: Duration.Input): Effect.Effect<void> =>
  settle.pipe(Effect.andThen(TestClock.adjust(duration)), Effect.andThen(settle))

/** Retries after a fixed delay, so many times. */
export const retries = (times: number, delay: Duration.Input = "1 second") =>
  Schedule.spaced(delay).pipe(Schedule.upTo({ times }))

/** Gives up at the first failure, into the dead-letter topic. */
export const saving: FailurePolicy.FailurePolicy<unknown> = { ...FailurePolicy.save(), retry: retries(0) }

interface HandlerOptions {
  readonly name?: string
  readonly ordering?: Ordering
  readonly concurrency?: number | Semaphore.Semaphore
  readonly isOutage?: (error: unknown) => boolean
  /** Of the group, of the process. */
  readonly limits?: ReadonlyArray<Semaphore.Semaphore>
  /** Whether a failed batch leaves nothing behind. */
  readonly rollsBack?: boolean
  readonly policy?: FailurePolicy.FailurePolicy<unknown>
  readonly topic?: Topic.Any
}

export const itemTopic = Topic.make(topicName, { schema: Item }) as unknown as Topic.Any

const handlerOf = (
  options: HandlerOptions,
  batch: Batching.Limits | undefined,
  plain: Pick<Handler, "apply" | "direct">
): Handler => ({
  name: options.name ?? topicName,
  topic: options.topic ?? itemTopic,
  ordering: options.ordering ?? "key",
  slots: [
    options.concurrency === undefined || typeof options.concurrency === "number"
      ? Semaphore.makeUnsafe(options.concurrency ?? 16)
      : options.concurrency,
    ...options.limits ?? []
  ],
  policy: options.policy ?? saving,
  batch,
  ...plain,
  rollsBack: options.rollsBack ?? false,
  grouped: undefined,
  isOutage: options.isOutage ?? (() => false)
})

/** A handler of single events. */
export const each = (
  handle: (event: Item) => Effect.Effect<unknown, unknown, Scope.Scope>,
  options: HandlerOptions = {}
): Handler =>
  handlerOf(options, undefined, Idempotent.each((event) => handle(event as Item) as Effect.Effect<unknown, unknown>))

/** A handler of batches. */
export const batches = (
  handle: (events: ReadonlyArray<Item>) => Effect.Effect<unknown, unknown, Scope.Scope>,
  options: HandlerOptions & Batching.Options = {}
): Handler =>
  handlerOf(
    { concurrency: 3, ...options },
    Batching.limits(options),
    Idempotent.batch((events) => handle(events as ReadonlyArray<Item>) as Effect.Effect<unknown, unknown>)
  )

/** A dead letter, where it was written. */
export interface Letter {
  readonly topic: string
  readonly record: ProducerRecord
}

/** Runs handlers on a scripted feed, in a group that stops with the scope if not before. */
export const engine = Effect.fnUntraced(function*(
  handlers: ReadonlyArray<Handler>,
  options: {
    readonly shutdownTimeout?: Duration.Duration
    /** What the engine logs; nothing by default. */
    readonly logLevel?: "Warn" | "Debug"
    readonly stuckAfter?: Duration.Duration
    readonly writeDeadLetter?: (letter: Letter) => Effect.Effect<void, BrokerError>
  } = {}
) {
  const feed = make()
  const letters: Array<Letter> = []
  const scope = yield* Scope.fork(yield* Effect.scope)
  yield* Group.make({
    group: "group",
    readers: (finished) =>
      Effect.forEach(handlers, (handler) =>
        Worker.make({
          group: "group",
          handler,
          writeDeadLetter: (topic, record) =>
            Effect.andThen(
              options.writeDeadLetter?.({ topic, record }) ?? Effect.void,
              Effect.sync(() => void letters.push({ topic, record }))
            ),
          finished
        })),
    feed: feed.feed,
    shutdownTimeout: options.shutdownTimeout ?? Duration.seconds(20),
    stuckAfter: options.stuckAfter
  }).pipe(Scope.provide(scope), Effect.provideService(References.MinimumLogLevel, options.logLevel ?? "None"))
  const stop = Scope.close(scope, Exit.void)
  // A drain may wait for handlers that a test left running: time passes until it is through.
  yield* Effect.addFinalizer(() =>
    Effect.flatMap(Effect.forkChild(stop), (stopping) => Effect.andThen(pass("1 hour"), Fiber.join(stopping)))
  )
  return { feed, letters, stop }
})

/** A gate that a handler waits at until a test opens it. */
export const makeGate = () => {
  const deferred = Deferred.makeUnsafe<void>()
  return {
    wait: Deferred.await(deferred),
    open: Effect.andThen(Deferred.succeed(deferred, undefined), settle)
  }
}

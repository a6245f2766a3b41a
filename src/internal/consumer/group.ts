/**
 * One membership: signals come in, rooms are wired, and it ends in good order.
 *
 *     Signal ─▶ assignment ─▶ lanes ─▶ reader ─▶ attempt ─▶ mode
 *                   ▲                     │
 *                   └──── finish ◀────────┘ ─▶ watermark ─▶ commits ─▶ broker
 *
 * Signals change the engine's state in synchronous steps. Memory is bounded
 * per partition: once too much waits, or too many offsets lie between the
 * watermark and what was delivered last, its partition is paused until half of
 * it is done.
 *
 * @internal
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Scope from "effect/Scope"
import type { Assignment as Grant, BrokerError, Flow, Position, Signal } from "../../Broker.ts"
import * as EngineEvent from "../engineEvent.ts"
import { Assignment } from "./assignment.ts"
import * as Commits from "./commits.ts"
import * as Drain from "./drain.ts"
import type { Reader } from "./handler.ts"

/** Where the signals come from: a group's subscription, or a tail, which has nothing to commit. */
export type Feed = (
  onSignal: (signal: Signal) => Effect.Effect<void>
) => Effect.Effect<
  Flow & { readonly commit?: (positions: ReadonlyArray<Position>) => Effect.Effect<void, BrokerError> },
  BrokerError,
  Scope.Scope
>

/** Records that may wait or run per partition before it is paused, unless batches ask for more. */
const leastPrefetch = 1_024
/** Batches that the records of one partition should fill, so that none waits for a fetch. */
const prefetchedBatches = 8
/** Offsets that may lie between watermark and highest delivered record before the partition is paused. */
const maxSpan = 10_000
/** How long a full partition waits for room before it is paused: a pause costs a fetch. */
const roomWait = "25 millis"

const nameOf = (grant: Grant): string => `${grant.topic}/${grant.partition}`

export const make = Effect.fnUntraced(function*(options: {
  readonly group: string
  /** Makes the readers; `finished` is theirs to call after a task of an assignment has finished. */
  readonly readers: (
    finished: (assignment: Assignment) => void
  ) => Effect.Effect<ReadonlyArray<Reader>, never, Scope.Scope>
  readonly feed: Feed
  readonly shutdownTimeout: Duration.Duration
}) {
  const { group } = options
  const context = yield* Effect.context<never>()
  const fork = (effect: Effect.Effect<unknown>) => void Effect.runForkWith(context)(effect)
  const flow = Deferred.makeUnsafe<Effect.Success<ReturnType<Feed>>>()
  const assignments = new Map<string, Assignment>()
  const rooms = new WeakMap<Assignment, Latch.Latch>()
  let stopping = false

  const commits = Commits.make({
    group,
    assignments: () => assignments.values(),
    commit: (positions) =>
      Effect.flatMap(Deferred.await(flow), (flow) => flow.commit === undefined ? Effect.void : flow.commit(positions))
  })

  const finished = (assignment: Assignment) => {
    commits.finished(1)
    const room = rooms.get(assignment)
    if (room !== undefined && hasRoom(assignment)) {
      rooms.delete(assignment)
      room.openUnsafe()
    }
  }

  // Opened before everything else and so closed last: after the drain, and also when there is none.
  const workScope = yield* Effect.flatMap(Effect.scope, (scope) => Scope.fork(scope))
  const readers = yield* Scope.provide(options.readers(finished), workScope)
  const prefetch = Math.max(leastPrefetch, ...readers.map(({ takes }) => takes * prefetchedBatches))
  const isFull = ({ buffered, watermark }: Assignment) => buffered >= prefetch || watermark.span >= maxSpan
  const hasRoom = ({ buffered, watermark }: Assignment) => buffered <= prefetch / 2 && watermark.span < maxSpan

  const byTopic = new Map<string, Array<Reader>>()
  for (const reader of readers) byTopic.set(reader.topic, [...byTopic.get(reader.topic) ?? [], reader])
  const { drain, lose } = Drain.make({ group, readers, commits })

  // --- signals ---

  const ours = (grants: ReadonlyArray<Grant>): Array<Assignment> =>
    grants.flatMap((grant) => {
      const assignment = assignments.get(nameOf(grant))
      return assignment !== undefined && assignment.grant.epoch === grant.epoch ? [assignment] : []
    })

  const forget = (gone: ReadonlyArray<Assignment>) => {
    for (const assignment of gone) {
      rooms.get(assignment)?.openUnsafe()
      if (assignments.get(nameOf(assignment.grant)) === assignment) assignments.delete(nameOf(assignment.grant))
    }
  }

  const logEach = (tag: "Assigned" | "Revoked" | "Lost", grants: ReadonlyArray<Grant>) =>
    Effect.forEach(grants, (grant) => EngineEvent.log({ _tag: tag, group, ...grant }), { discard: true })

  const onAssigned = (grants: ReadonlyArray<Grant>): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (stopping) return Effect.void
      for (const grant of grants) {
        assignments.set(nameOf(grant), new Assignment(grant, byTopic.get(grant.topic)?.length ?? 0))
      }
      return logEach("Assigned", grants)
    })

  const onRecords = (signal: Extract<Signal, { readonly _tag: "Records" }>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const assignment = ours([signal.assignment])[0]
      if (stopping || assignment === undefined || assignment.phase._tag !== "Owned") return Effect.void
      const readers = byTopic.get(signal.assignment.topic) ?? []
      for (const record of signal.records) {
        const delivery = assignment.deliver(record)
        if (readers.length === 0) assignment.finishDelivery(delivery)
        // Tasks only wait here, so all of a delivery exist before one can finish.
        for (let i = 0; i < readers.length; i++) {
          readers[i]!.ready.offer(assignment.task(delivery, i, readers[i]!.ordering))
        }
      }
      assignment.watermark.pass(signal.nextOffset)
      if (signal.records.length === 0) commits.finished(1)
      for (const reader of readers) reader.kick()
      return isFull(assignment) ? waitForRoom(assignment) : Effect.void
    })

  const waitForRoom = Effect.fnUntraced(function*(assignment: Assignment) {
    // Paused already: this chunk was on its way, and the resume is waiting for the room.
    if (rooms.has(assignment)) return
    const room = Latch.makeUnsafe(false)
    rooms.set(assignment, room)
    if ((yield* Effect.timeoutOption(room.await, roomWait))._tag === "Some") return
    const { pause, resume } = yield* Deferred.await(flow)
    yield* pause([assignment.grant])
    fork(
      Effect.andThen(room.await, Effect.suspend(() => assignment.mayCommit ? resume([assignment.grant]) : Effect.void))
    )
  })

  const onSignal = (signal: Signal): Effect.Effect<void> => {
    switch (signal._tag) {
      case "Records":
        return onRecords(signal)
      case "Assigned":
        return onAssigned(signal.assignments)
      case "Revoked": {
        const gone = ours(signal.assignments)
        return drain(gone, signal.within, "rebalanceTimeout of the broker's Layer").pipe(
          Effect.andThen(Effect.sync(() => forget(gone))),
          Effect.andThen(logEach("Revoked", signal.assignments))
        )
      }
      case "Lost": {
        const gone = ours(signal.assignments)
        return lose(gone).pipe(
          Effect.andThen(Effect.sync(() => forget(gone))),
          Effect.andThen(logEach("Lost", signal.assignments))
        )
      }
    }
  }

  // --- life ---

  const subscription = yield* options.feed(onSignal)
  yield* Deferred.succeed(flow, subscription)
  yield* Effect.forkScoped(commits.run)
  yield* EngineEvent.log({ _tag: "Joined", group, topics: Array.from(byTopic.keys()).join(", ") })

  // Runs before the membership ends, since it is registered after it.
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      stopping = true
      return drain(Array.from(assignments.values()), options.shutdownTimeout, "shutdownTimeout of the consumer")
    }).pipe(
      Effect.andThen(EngineEvent.log({ _tag: "Left", group }))
    )
  )
  return { failed: subscription.failed }
})

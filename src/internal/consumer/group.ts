/**
 * One membership: signals come in, rooms are wired, and it ends in good order.
 *
 *     Signal ─▶ assignment ─▶ lanes ─▶ reader ─▶ attempt ─▶ mode
 *                   ▲                     │
 *                   └──── finish ◀────────┘ ─▶ watermark ─▶ commits ─▶ broker
 *
 * Signals change the engine's state in synchronous steps. `room` bounds what
 * is held in memory.
 *
 * @internal
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import type { Assignment as Grant, BrokerError, Flow, Position, Signal } from "../../Broker.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Commits from "./commits.ts"
import * as Drain from "./drain.ts"
import type { Reader } from "./handler.ts"
import type { Letters } from "./letters/letters.ts"
import { Assignment } from "./order/assignment.ts"
import * as Room from "./order/room.ts"
import * as Pulse from "./status/pulse.ts"

/** Where the signals come from: a group's subscription, or a tail, which has nothing to commit. */
export type Feed = (
  onSignal: (signal: Signal) => Effect.Effect<void>
) => Effect.Effect<
  & Flow
  & {
    readonly commit?: (positions: ReadonlyArray<Position>) => Effect.Effect<void, BrokerError>
    readonly trusted?: (() => boolean) | undefined
  },
  BrokerError,
  Scope.Scope
>

const nameOf = (grant: Grant): string => `${grant.topic}/${grant.partition}`

export const make = Effect.fnUntraced(function*(options: {
  readonly group: string
  /**
   * Makes the readers; `finished` is theirs to call after a task of an
   * assignment has finished, and `trusted` to ask before they begin one.
   */
  readonly readers: (
    finished: (assignment: Assignment) => void,
    trusted: () => boolean
  ) => Effect.Effect<ReadonlyArray<Reader>, never, Scope.Scope>
  readonly feed: Feed
  /** Dead letters that come back to the readers. */
  readonly letters?: Letters
  readonly shutdownTimeout: Duration.Duration
  /** Default: 6 minutes. */
  readonly stuckAfter?: Duration.Duration | undefined
}) {
  const { group } = options
  const context = yield* Effect.context<never>()
  const fork = (effect: Effect.Effect<unknown>) => void Effect.runForkWith(context)(effect)
  const flow = Deferred.makeUnsafe<Effect.Success<ReturnType<Feed>>>()
  const assignments = new Map<string, Assignment>()
  let stopping = false

  const commits = Commits.make({
    group,
    assignments: () => assignments.values(),
    commit: (positions) =>
      Effect.flatMap(Deferred.await(flow), (flow) => flow.commit === undefined ? Effect.void : flow.commit(positions))
  })

  const finished = (assignment: Assignment) => {
    commits.finished(1)
    room.finished(assignment)
  }

  // Opened before everything else and so closed last: after the drain, and also when there is none.
  const workScope = yield* Effect.flatMap(Effect.scope, (scope) => Scope.fork(scope))
  let trusts: () => boolean = () => true
  const readers = yield* Scope.provide(options.readers(finished, () => trusts()), workScope)
  const room = Room.make({
    takes: readers.map(({ takes }) => takes),
    flow: Deferred.await(flow),
    partitions: () => assignments.size,
    fork
  })

  const byTopic = new Map<string, Array<Reader>>()
  for (const reader of readers) byTopic.set(reader.topic, [...byTopic.get(reader.topic) ?? [], reader])
  options.letters?.serve(readers, finished)
  const { drain: drainAll, lose } = Drain.make({ group, readers, commits })
  const drain: typeof drainAll = (gone, within, setting) =>
    options.letters === undefined
      ? drainAll(gone, within, setting)
      : Effect.andThen(options.letters.settle(gone), drainAll(gone, within, setting))

  let commitsAtAll = true
  yield* Pulse.make({
    group,
    assignments: () => assignments.values(),
    readers,
    commits: () => commitsAtAll,
    commitError: () => commits.error() ?? null,
    stuckAfterMillis: Duration.toMillis(options.stuckAfter ?? Duration.minutes(6))
  })

  // --- signals ---

  const ours = (grants: ReadonlyArray<Grant>): Array<Assignment> =>
    grants.flatMap((grant) => {
      const assignment = assignments.get(nameOf(grant))
      return assignment !== undefined && assignment.grant.epoch === grant.epoch ? [assignment] : []
    })

  const forget = (gone: ReadonlyArray<Assignment>) => {
    for (const assignment of gone) {
      if (assignments.get(nameOf(assignment.grant)) === assignment) assignments.delete(nameOf(assignment.grant))
      room.ended(assignment)
    }
  }

  const logEach = (tag: "Assigned" | "Revoked" | "Lost", grants: ReadonlyArray<Grant>) =>
    Effect.forEach(grants, (grant) => EngineEvent.log({ _tag: tag, group, ...grant }), { discard: true })

  const onAssigned = (grants: ReadonlyArray<Grant>): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (stopping) return Effect.void
      for (const grant of grants) {
        assignments.set(nameOf(grant), new Assignment(grant, byTopic.get(grant.topic)?.length ?? 0, room.total))
      }
      return logEach("Assigned", grants)
    })

  const onRecords = (signal: Extract<Signal, { readonly _tag: "Records" }>): Effect.Effect<void> =>
    Effect.suspend(() => {
      const assignment = ours([signal.assignment])[0]
      if (stopping || assignment === undefined || assignment.phase._tag !== "Owned") return Effect.void
      const readers = byTopic.get(signal.assignment.topic) ?? []
      const own = options.letters?.deliver(assignment, signal.records) === true ? [] : signal.records
      for (const record of own) {
        const delivery = assignment.deliver(record)
        if (readers.length === 0) assignment.finishDelivery(delivery)
        // Tasks only wait here, so all of a delivery exist before one can finish.
        for (let i = 0; i < readers.length; i++) {
          const task = assignment.task(delivery, i, readers[i]!.ordering)
          readers[i]!.ready.offer(task)
          if (readers[i]!.ordering === "key") room.offered(task)
        }
      }
      assignment.watermark.pass(signal.nextOffset)
      if (signal.records.length === 0) commits.finished(1)
      for (const reader of readers) reader.kick()
      return room.entered(assignment)
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
  commitsAtAll = subscription.commit !== undefined
  if (subscription.trusted !== undefined) trusts = subscription.trusted
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

/**
 * Owns the member's dealings with the coordinator of its group: the hook
 * before each join, heartbeats, commits, and finding the coordinator again
 * after it has moved.
 *
 * Invariant: a commit goes out only while its guard holds, checked in the tick
 * in which the request is written; and one join runs at a time.
 *
 * The insights: KafkaJS asks `cluster.findGroupCoordinator` before every
 * JoinGroup, on all its paths, and waits for the answer; that is the one place
 * to drain. What it gets there it uses until the next join, even when the
 * coordinator has moved: heartbeats and commits then go to a broker that knows
 * nothing of the group. So it gets a stand-in that finds the new one.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FiberSet from "effect/FiberSet"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import KafkaJs from "kafkajs"
import type { KafkaJSError } from "kafkajs"
import { attempt, coordinatorMoved, evicted, KafkaJsFailure } from "./errors.ts"
import type { Network, Node, TopicOffsets } from "./internals.ts"

/** What the membership does when the group asks. */
export interface Hooks {
  /** Gives back what is assigned. Runs before each JoinGroup. */
  readonly beforeJoin: Effect.Effect<void>
  /** The coordinator says that a generation of ours has ended. */
  readonly onEvicted: (generation: number) => void
}

export interface Coordinator {
  /** To call when a join is complete. */
  readonly joined: () => void
  /** Whether a join is running. */
  readonly isJoining: () => boolean
  /** When the coordinator last answered; the trust window counts from when it was asked. */
  readonly lastContact: () => number
  /** Makes KafkaJS join again at its next heartbeat. */
  readonly forceJoin: () => void
  /** Tells the coordinator that this member lives, in the generation it has. */
  readonly keepAlive: Effect.Effect<void>
  /** Commits as long as `guard` holds; `undefined` when it no longer did. */
  readonly commit: (
    topics: ReadonlyArray<TopicOffsets>,
    guard: () => boolean
  ) => Effect.Effect<"committed" | "fenced", KafkaJsFailure>
  /** Leaves the group, if KafkaJS has not. Afterwards no join succeeds. */
  readonly leave: Effect.Effect<void>
}

/** An error that makes KafkaJS join again. */
export const rebalanceError = (): KafkaJSError =>
  Object.assign(new KafkaJs.KafkaJSError("The group is to be joined again"), { type: "REBALANCE_IN_PROGRESS" })

interface Standing {
  readonly generation: number
  readonly memberId: string
}

/** Stands between a consumer's cluster and its coordinator. */
export const install = Effect.fnUntraced(function*(
  network: Network,
  groupId: string,
  hooks: Hooks
): Effect.fn.Return<Coordinator, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const run = yield* FiberSet.makeRuntimePromise<never, unknown, unknown>()
  const now = () => clock.currentTimeMillisUnsafe()
  const find = network.findGroupCoordinator.bind(network)
  const joinEnded = Latch.makeUnsafe(true)
  let node: Node | undefined
  let memberId: string | undefined
  let standing: Standing | undefined
  let contact = now()
  // Requests of a join that are under way; between them only KafkaJS knows what goes on.
  let underWay = 0
  let joinForced = false
  let closed = false

  const endJoin = () => joinEnded.openUnsafe()
  const locate = Effect.suspend(() =>
    node !== undefined
      ? Effect.succeed(node)
      : Effect.tap(attempt(() => find({ groupId })), (found) => Effect.sync(() => (node = found)))
  )

  /** Asks the coordinator, wherever it is by now, for at most `within` ms. */
  const call = <A>(ask: (node: Node) => Promise<A>, within: number): Effect.Effect<A, KafkaJsFailure> => {
    const loop = (deadline: number): Effect.Effect<A, KafkaJsFailure> =>
      Effect.flatMap(locate, (asked) =>
        Effect.catch(attempt(() => ask(asked)), (failure) => {
          if (!coordinatorMoved(failure)) return Effect.fail(failure)
          if (node === asked) node = undefined
          return now() > deadline ? Effect.fail(failure) : Effect.andThen(Effect.sleep(200), loop(deadline))
        })).pipe(
          Effect.catchIf(
            (failure) => node === undefined && coordinatorMoved(failure) && now() <= deadline,
            () => Effect.andThen(Effect.sleep(200), loop(deadline))
          )
        )
    return Effect.suspend(() => loop(now() + within))
  }

  const heartbeat = (generation: number, id: string, within: number) =>
    Effect.suspend(() => {
      const asked = now()
      const alive = Effect.sync(() => {
        contact = Math.max(contact, asked)
      })
      return call((node) => node.heartbeat({ groupId, groupGenerationId: generation, memberId: id }), within).pipe(
        Effect.tap(alive),
        Effect.tapError((failure) => {
          if (failure.type === "REBALANCE_IN_PROGRESS") return alive
          if (evicted(failure)) hooks.onEvicted(generation)
          return Effect.void
        })
      )
    })

  // A promise for KafkaJS that rejects with KafkaJS's own error.
  const answer = <A>(effect: Effect.Effect<A, KafkaJsFailure>): Promise<A> =>
    run(Effect.mapError(effect, (failure) => failure.error))

  const whileJoining = <A>(effect: Effect.Effect<A, KafkaJsFailure>) =>
    Effect.suspend(() => {
      underWay++
      return Effect.ensuring(effect, Effect.sync(() => underWay--))
    }).pipe(Effect.tapError(() => Effect.sync(endJoin)))

  const standIn = (found: Node): Node => {
    const overrides: Partial<Node> = {
      // KafkaJS looks for the bare broker again when this says no.
      isConnected: () => true,
      heartbeat: ({ groupGenerationId, memberId }) =>
        joinForced ? Promise.reject(rebalanceError()) : answer(heartbeat(groupGenerationId, memberId, 15_000)),
      offsetFetch: (request) => answer(call((node) => node.offsetFetch(request), 15_000)),
      offsetCommit: (request) => answer(call((node) => node.offsetCommit(request), 15_000)),
      leaveGroup: (request) => {
        memberId = undefined
        return answer(call((node) => node.leaveGroup(request), 1_000))
      },
      joinGroup: (request) =>
        answer(whileJoining(Effect.tap(call((node) => node.joinGroup(request), 60_000), (group) =>
          Effect.sync(() => {
            memberId = group.memberId
          })))),
      syncGroup: (request) =>
        answer(whileJoining(Effect.tap(call((node) => node.syncGroup(request), 30_000), () =>
          Effect.sync(() => {
            standing = { generation: request.generationId, memberId: request.memberId }
            contact = now()
            joinForced = false
          }))))
    }
    return Object.assign(Object.create(found) as Node, overrides)
  }

  /** Waits for a join that another of KafkaJS's fetchers has begun. One that stands still is taken over. */
  const otherJoinEnded: Effect.Effect<void> = Effect.suspend(() =>
    joinEnded.isOpen()
      ? Effect.void
      : Effect.flatMap(Effect.timeoutOption(joinEnded.await, 5_000), (ended) =>
        ended._tag === "Some" || underWay === 0 ? Effect.void : otherJoinEnded)
  )

  const beforeJoin = Effect.gen(function*() {
    yield* otherJoinEnded
    if (closed) return yield* new KafkaJsFailure({ error: new KafkaJs.KafkaJSNonRetriableError("The subscription is closed") })
    joinEnded.closeUnsafe()
    return yield* whileJoining(Effect.andThen(
      hooks.beforeJoin,
      Effect.tap(attempt(() => find({ groupId })), (found) =>
        Effect.sync(() => {
          node = found
        }))
    ))
  })
  network.findGroupCoordinator = () => answer(Effect.map(beforeJoin, standIn))

  const commit = (topics: ReadonlyArray<TopicOffsets>, guard: () => boolean) =>
    call((node) => {
      const current = standing
      if (current === undefined || !guard()) return Promise.resolve("fenced" as const)
      const request = { groupId, groupGenerationId: current.generation, memberId: current.memberId, topics }
      return node.offsetCommit(request).then(() => "committed" as const)
    }, 15_000).pipe(
      Effect.tapError((failure) => {
        if (evicted(failure) && standing !== undefined) hooks.onEvicted(standing.generation)
        return Effect.void
      })
    )

  return {
    joined: endJoin,
    isJoining: () => !joinEnded.isOpen(),
    lastContact: () => contact,
    forceJoin: () => {
      joinForced = true
    },
    keepAlive: Effect.suspend(() =>
      standing === undefined ? Effect.void : Effect.ignore(heartbeat(standing.generation, standing.memberId, 1_000))
    ),
    commit,
    leave: Effect.suspend(() => {
      closed = true
      const id = memberId
      memberId = undefined
      return id === undefined || node === undefined
        ? Effect.void
        : Effect.ignore(Effect.timeout(attempt(() => node!.leaveGroup({ groupId, memberId: id })), 1_000))
    })
  }
})

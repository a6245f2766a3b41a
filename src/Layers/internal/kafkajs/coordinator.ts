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
import type * as Commits from "../kafka/commits.ts"
import { coordinatorMoved, evicted, type KafkaFailure } from "../kafka/failure.ts"
import * as CommittedOffsets from "./committedOffsets.ts"
import { attempt, failureOf } from "./errors.ts"
import type { Network, Node, OffsetFetchRequest, TopicOffsets } from "./internals.ts"
import * as TopicIds from "./topicIds.ts"

/** What the membership does when the group asks. */
export interface Hooks {
  /** Gives back what is assigned. Runs before each JoinGroup. */
  readonly beforeJoin: Effect.Effect<void>
  /** The coordinator says that a generation of ours has ended. */
  readonly onEvicted: (generation: number) => void
  /** A position is given up that is not in the log, or in another topic of that name; what comes begins anew. */
  readonly onReset: () => void
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
  /** The topics of this generation that were deleted and created again since its positions were looked up. */
  readonly replaced: Effect.Effect<ReadonlyArray<string>, KafkaFailure>
  /** Commits, unless `guard` no longer holds when the request is written. */
  readonly commit: (
    topics: ReadonlyArray<TopicOffsets>,
    guard: () => boolean
  ) => Effect.Effect<Commits.Outcome, KafkaFailure>
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

/** What is known of the group's coordinator, and of us there. */
interface Ties {
  readonly groupId: string
  readonly hooks: Hooks
  /** KafkaJS's own search. */
  readonly find: Network["findGroupCoordinator"]
  readonly now: () => number
  readonly run: <A>(effect: Effect.Effect<A, unknown>) => Promise<A>
  /** Open while no join runs. */
  readonly joinEnded: Latch.Latch
  /** Joins that have begun. */
  turns: number
  node: Node | undefined
  memberId: string | undefined
  standing: Standing | undefined
  /** As they were before the first record of the generation was fetched. */
  topicIds: Map<string, string>
  contact: number
  /** Requests of a join that are under way; between them only KafkaJS knows what goes on. */
  underWay: number
  joinForced: boolean
  closed: boolean
}

const locate = (ties: Ties): Effect.Effect<Node, KafkaFailure> =>
  Effect.tap(attempt(() => ties.find({ groupId: ties.groupId })), (found) =>
    Effect.sync(() => {
      ties.node = found
    }))

/** Asks the coordinator, wherever it is by now, for at most `within` ms. */
const call = <A>(ties: Ties, ask: (node: Node) => Promise<A>, within: number): Effect.Effect<A, KafkaFailure> => {
  const loop = (deadline: number): Effect.Effect<A, KafkaFailure> =>
    Effect.suspend(() => ties.node === undefined ? locate(ties) : Effect.succeed(ties.node)).pipe(
      Effect.flatMap((asked) =>
        Effect.tapError(attempt(() => ask(asked)), (failure) =>
          Effect.sync(() => {
            if (coordinatorMoved(failure) && ties.node === asked) ties.node = undefined
          }))
      ),
      Effect.catchIf(
        (failure) => coordinatorMoved(failure) && ties.now() <= deadline,
        () => Effect.andThen(Effect.sleep(200), loop(deadline))
      )
    )
  return Effect.suspend(() => loop(ties.now() + within))
}

const heartbeat = (ties: Ties, { generation, memberId }: Standing, within: number) =>
  Effect.suspend(() => {
    const asked = ties.now()
    const alive = Effect.sync(() => {
      ties.contact = Math.max(ties.contact, asked)
    })
    const request = { groupId: ties.groupId, groupGenerationId: generation, memberId }
    return call(ties, (node) => node.heartbeat(request), within).pipe(
      Effect.tap(alive),
      Effect.tapError((failure) => {
        if (failure.type === "REBALANCE_IN_PROGRESS") return alive
        if (evicted(failure)) ties.hooks.onEvicted(generation)
        return Effect.void
      })
    )
  })

/** A promise for KafkaJS, which rejects with KafkaJS's own error. */
const answer = <A>(ties: Ties, effect: Effect.Effect<A, KafkaFailure>): Promise<A> =>
  ties.run(Effect.mapError(effect, (failure) => failure.error))

const whileJoining = <A>(ties: Ties, effect: Effect.Effect<A, KafkaFailure>) =>
  Effect.suspend(() => {
    ties.underWay++
    return Effect.ensuring(effect, Effect.sync(() => ties.underWay--))
  }).pipe(Effect.tapError(() => Effect.sync(() => ties.joinEnded.openUnsafe())))

/** Looks up the positions of a generation, and which topics they are in: first the topic, so that it cannot be newer. */
const lookUpOffsets = (ties: Ties, node: Node, request: OffsetFetchRequest) => {
  const { standing } = ties
  return TopicIds.findAll(node, request.topics.map(({ topic }) => topic)).then((ids) =>
    CommittedOffsets.fetch(node, request).then((answer) => {
      if (ties.standing === standing) {
        if (TopicIds.replaced(ties.topicIds, ids).length > 0) ties.hooks.onReset()
        else for (const [topic, id] of ids) ties.topicIds.set(topic, id)
      }
      return TopicIds.withoutOld(answer, ids)
    })
  )
}

const replaced = (ties: Ties) =>
  Effect.suspend(() => {
    const { topicIds } = ties
    return Effect.map(
      call(ties, (node) => TopicIds.find(node, [...topicIds.keys()]), 1_000),
      (now) => ties.topicIds === topicIds ? TopicIds.replaced(topicIds, now) : []
    )
  })

/** What KafkaJS gets in place of the broker that it asked for. */
const standIn = (ties: Ties, found: Node): Node => {
  const overrides: Partial<Node> = {
    // KafkaJS looks for the bare broker again when this says no.
    isConnected: () => true,
    heartbeat: ({ groupGenerationId, memberId }) =>
      ties.joinForced
        ? Promise.reject(rebalanceError())
        : answer(ties, heartbeat(ties, { generation: groupGenerationId, memberId }, 15_000)),
    offsetFetch: (request) => answer(ties, call(ties, (node) => lookUpOffsets(ties, node, request), 15_000)),
    // Our own commits take another way: this is KafkaJS after `OFFSET_OUT_OF_RANGE`.
    offsetCommit: (request) =>
      answer(
        ties,
        Effect.ensuring(
          call(ties, (node) => node.offsetCommit(request), 15_000),
          Effect.sync(() => ties.hooks.onReset())
        )
      ),
    leaveGroup: (request) => {
      ties.memberId = undefined
      return answer(ties, call(ties, (node) => node.leaveGroup(request), 1_000))
    },
    joinGroup: (request) =>
      answer(
        ties,
        Effect.tap(whileJoining(ties, call(ties, (node) => node.joinGroup(request), 60_000)), (group) =>
          Effect.sync(() => {
            ties.memberId = group.memberId
          }))
      ),
    syncGroup: (request) =>
      answer(
        ties,
        Effect.tap(whileJoining(ties, call(ties, (node) => node.syncGroup(request), 30_000)), () =>
          Effect.sync(() => {
            ties.standing = { generation: request.generationId, memberId: request.memberId }
            ties.topicIds = new Map()
            ties.contact = ties.now()
            ties.joinForced = false
          }))
      )
  }
  return Object.assign(Object.create(found) as Node, overrides)
}

/**
 * Waits for a join that another of KafkaJS's fetchers has begun. One that
 * stands still is taken over. Whoever waits wakes up together, and one goes on:
 * of two joins side by side each would bring a grant of the same partitions.
 */
const takeTurn = (ties: Ties): Effect.Effect<void> =>
  Effect.suspend(() => {
    if (ties.joinEnded.isOpen()) {
      ties.joinEnded.closeUnsafe()
      ties.turns++
      return Effect.void
    }
    const { turns } = ties
    return Effect.flatMap(Effect.timeoutOption(ties.joinEnded.await, 5_000), () => {
      if (ties.joinEnded.isOpen() || ties.turns !== turns || ties.underWay > 0) return takeTurn(ties)
      ties.turns++
      return Effect.void
    })
  })

/** What happens when KafkaJS asks for the coordinator, which it does before each JoinGroup. */
const prepareJoin = (ties: Ties): Effect.Effect<Node, KafkaFailure> =>
  Effect.gen(function*() {
    yield* takeTurn(ties)
    if (ties.closed) {
      ties.joinEnded.openUnsafe()
      return yield* failureOf(new KafkaJs.KafkaJSNonRetriableError("The subscription is closed"))
    }
    const found = yield* whileJoining(ties, Effect.andThen(ties.hooks.beforeJoin, locate(ties)))
    return standIn(ties, found)
  })

const commit = (ties: Ties, topics: ReadonlyArray<TopicOffsets>, guard: () => boolean) =>
  call(ties, (node) => {
    const current = ties.standing
    if (current === undefined || !guard()) return Promise.resolve("Fenced" as const)
    const { generation, memberId } = current
    const labelled = TopicIds.label(topics, ties.topicIds)
    return node.offsetCommit({ groupId: ties.groupId, groupGenerationId: generation, memberId, topics: labelled })
      .then(() => "Committed" as const)
  }, 15_000).pipe(
    Effect.tapError((failure) => {
      if (evicted(failure) && ties.standing !== undefined) ties.hooks.onEvicted(ties.standing.generation)
      return Effect.void
    })
  )

const leave = (ties: Ties) =>
  Effect.suspend(() => {
    const { groupId, memberId, node } = ties
    ties.closed = true
    ties.memberId = undefined
    return memberId === undefined || node === undefined
      ? Effect.void
      : Effect.ignore(Effect.timeout(attempt(() => node.leaveGroup({ groupId, memberId })), 1_000))
  })

/** Stands between a consumer's cluster and its coordinator. */
export const install = Effect.fnUntraced(function*(
  network: Network,
  groupId: string,
  hooks: Hooks
): Effect.fn.Return<Coordinator, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const ties: Ties = {
    groupId,
    hooks,
    find: network.findGroupCoordinator.bind(network),
    now,
    run: yield* FiberSet.makeRuntimePromise<never, unknown, unknown>(),
    joinEnded: Latch.makeUnsafe(true),
    turns: 0,
    node: undefined,
    memberId: undefined,
    standing: undefined,
    topicIds: new Map(),
    contact: now(),
    underWay: 0,
    joinForced: false,
    closed: false
  }
  network.findGroupCoordinator = () => answer(ties, prepareJoin(ties))
  return {
    joined: () => {
      ties.joinEnded.openUnsafe()
    },
    isJoining: () => !ties.joinEnded.isOpen(),
    lastContact: () => ties.contact,
    forceJoin: () => {
      ties.joinForced = true
    },
    keepAlive: Effect.suspend(() =>
      ties.standing === undefined ? Effect.void : Effect.ignore(heartbeat(ties, ties.standing, 1_000))
    ),
    replaced: replaced(ties),
    commit: (topics, guard) => commit(ties, topics, guard),
    leave: leave(ties)
  }
})

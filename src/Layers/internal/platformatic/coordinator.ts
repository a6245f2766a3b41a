/**
 * Owns the requests to the coordinator of a group, wherever it is by now.
 *
 * Invariant: a request names the generation that it belongs to; nothing here
 * joins by itself.
 *
 * The insights: the client's own `commit` joins the group again when it was
 * removed, and then commits for partitions that others have (seen). Since Kafka
 * 4 a coordinator answers out of what its followers have confirmed, and one
 * that has just taken over does not know yet how far that is: asked for stable
 * offsets it waits until it does.
 */
import {
  findCoordinatorV3,
  heartbeatV4,
  joinGroupV7,
  leaveGroupV4,
  offsetCommitV8,
  offsetFetchV7,
  syncGroupV5
} from "@platformatic/kafka"
import type { Connection } from "@platformatic/kafka"
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { TopicPartition } from "../../../Broker.ts"
import type { Candidate, Owned } from "../kafka/assigner.ts"
import { coordinatorMoved, type KafkaFailure } from "../kafka/failure.ts"
import * as MemberProtocol from "../kafka/memberProtocol.ts"
import type { Settings } from "../kafka/settings.ts"
import { type Cluster, failureOfCode } from "./cluster.ts"
import * as Connections from "./connections.ts"
import { attempt } from "./errors.ts"

/** A member in a generation of its group. */
export interface Standing {
  readonly memberId: string
  readonly generation: number
}

export interface Joined extends Standing {
  /** Of all members, for the one that leads; else empty. */
  readonly members: ReadonlyArray<Candidate>
}

/** A position to commit; `label` is kept with it. */
export interface Position extends TopicPartition {
  readonly offset: bigint
  readonly label: string
}

/** A position that was committed; below 0: none was. */
export interface Committed extends TopicPartition {
  readonly offset: bigint
  readonly label: string | null
}

export interface Coordinator {
  /** Waits until all members have joined. */
  readonly join: (memberId: string, member: Omit<Candidate, "id">) => Effect.Effect<Joined, KafkaFailure>
  /** Waits until the leader has said who gets what. */
  readonly sync: (
    standing: Standing,
    assignments: ReadonlyMap<string, Owned>
  ) => Effect.Effect<Owned, KafkaFailure>
  readonly heartbeat: (standing: Standing, within: number) => Effect.Effect<void, KafkaFailure>
  readonly commit: (standing: Standing, positions: ReadonlyArray<Position>) => Effect.Effect<void, KafkaFailure>
  readonly committed: (
    partitions: ReadonlyArray<TopicPartition>
  ) => Effect.Effect<ReadonlyArray<Committed>, KafkaFailure>
  readonly leave: (memberId: string) => Effect.Effect<void>
}

/** How long the coordinator is looked for when it has moved. */
const patience = 15_000
const pause = 200

const byTopic = <A extends TopicPartition>(partitions: ReadonlyArray<A>): Array<readonly [string, ReadonlyArray<A>]> =>
  Object.entries(Arr.groupBy(partitions, ({ topic }) => topic))

export const make = Effect.fnUntraced(function*(
  settings: Settings,
  cluster: Cluster,
  groupId: string
): Effect.fn.Return<Coordinator, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  // Its own: the join of one member waits for that of another, and must not stand behind it.
  const connections = yield* Connections.make(settings)
  const now = () => clock.currentTimeMillisUnsafe()
  let known: Connections.Address | undefined

  const find = Effect.flatMap(
    cluster.askAny((connection) => findCoordinatorV3.api.async(connection, 0, [groupId])),
    ({ coordinators }) => {
      const found = coordinators[0]
      if (found === undefined || found.errorCode !== 0) return Effect.fail(failureOfCode(found?.errorCode ?? 15))
      known = { host: found.host, port: found.port }
      return Effect.succeed(known)
    }
  )

  const ask = <A>(
    purpose: Connections.Purpose,
    request: (connection: Connection) => Promise<A>,
    within: number = patience
  ): Effect.Effect<A, KafkaFailure> => {
    const once = Effect.suspend(() => {
      const asked = known
      return Effect.flatMap(
        asked === undefined ? find : Effect.succeed(asked),
        (address) =>
          Effect.flatMap(connections.get(address, purpose), (connection) => attempt(() => request(connection)))
      )
        .pipe(
          Effect.tapError((failure) =>
            Effect.sync(() => {
              if (coordinatorMoved(failure) && known === asked) known = undefined
            })
          )
        )
    })
    const loop = (deadline: number): Effect.Effect<A, KafkaFailure> =>
      Effect.catchIf(
        once,
        (failure) => coordinatorMoved(failure) && now() <= deadline,
        () => Effect.andThen(Effect.sleep(pause), loop(deadline))
      )
    return Effect.suspend(() => loop(now() + within))
  }

  return {
    join: (memberId, member) =>
      Effect.map(
        ask("join", (connection) =>
          joinGroupV7.api.async(
            connection,
            groupId,
            settings.sessionTimeout,
            settings.rebalanceTimeout,
            memberId,
            null,
            "consumer",
            [{ name: MemberProtocol.name, metadata: MemberProtocol.encodeMember(member) }],
            null
          )),
        (answer) => ({
          memberId: answer.memberId,
          generation: answer.generationId,
          members: answer.leader === answer.memberId
            ? answer.members.map(({ memberId, metadata }) => MemberProtocol.decodeMember(memberId, metadata))
            : []
        })
      ),
    sync: ({ generation, memberId }, assignments) =>
      Effect.map(
        ask("join", (connection) =>
          syncGroupV5.api.async(
            connection,
            groupId,
            generation,
            memberId,
            null,
            "consumer",
            MemberProtocol.name,
            Array.from(assignments, ([memberId, assignment]) => ({
              memberId,
              assignment: MemberProtocol.encodeAssignment(assignment)
            }))
          )),
        ({ assignment }) => MemberProtocol.decodeAssignment(assignment)
      ),
    heartbeat: ({ generation, memberId }, within) =>
      Effect.asVoid(
        ask("group", (connection) => heartbeatV4.api.async(connection, groupId, generation, memberId, null), within)
      ),
    commit: ({ generation, memberId }, positions) =>
      Effect.asVoid(ask("group", (connection) =>
        offsetCommitV8.api.async(
          connection,
          groupId,
          generation,
          memberId,
          null,
          byTopic(positions).map(([name, ofTopic]) => ({
            name,
            partitions: ofTopic.map(({ label, offset, partition }) => ({
              partitionIndex: partition,
              committedOffset: offset,
              committedLeaderEpoch: -1,
              committedMetadata: label
            }))
          }))
        ))),
    committed: (partitions) =>
      Effect.map(
        ask("group", (connection) =>
          offsetFetchV7.api.async(
            connection,
            [{
              groupId,
              topics: byTopic(partitions).map(([name, ofTopic]) => ({
                name,
                partitionIndexes: ofTopic.map(({ partition }) => partition)
              }))
            }],
            true
          )),
        ({ topics }) =>
          topics.flatMap(({ name, partitions }) =>
            partitions.map(({ committedOffset, metadata, partitionIndex }) => ({
              topic: name,
              partition: partitionIndex,
              offset: committedOffset,
              label: metadata ?? null
            }))
          )
      ),
    leave: (memberId) =>
      Effect.ignore(Effect.timeout(
        ask("group", (connection) => leaveGroupV4.api.async(connection, groupId, [{ memberId }]), 0),
        1_000
      ))
  }
})

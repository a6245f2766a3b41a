/**
 * What tests may do to the in-memory broker, and see of it.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { BrokerErrorReason, ConsumerRecord, TopicPartition } from "../../../Broker.ts"
import { UnknownTopic } from "../../../Broker.ts"
import * as Group from "./group.ts"
import * as Log from "./log.ts"
import * as Membership from "./membership.ts"
import * as State from "./state.ts"

/** Documented at `Memory.MemoryBroker`. */
export interface Control {
  readonly records: (topic: string) => Effect.Effect<ReadonlyArray<ConsumerRecord & TopicPartition>>
  readonly committed: (group: string, at: TopicPartition) => Effect.Effect<bigint | undefined>
  readonly rebalance: (group: string) => Effect.Effect<void>
  readonly expire: (group: string, member?: number) => Effect.Effect<void>
  readonly crash: (group: string, member?: number) => Effect.Effect<void>
  readonly failNext: (
    operation: "send" | "commit",
    reason: BrokerErrorReason,
    options?: { readonly times?: number | undefined; readonly applied?: boolean | undefined }
  ) => Effect.Effect<void>
  readonly skipOffsets: (at: TopicPartition, count: number) => Effect.Effect<void>
  readonly addPartitions: (topic: string, count: number) => Effect.Effect<void>
  readonly deleteTopic: (topic: string) => Effect.Effect<void>
}

export const make = (state: State.State): Control => {
  const readersOf = (topic: string) => Array.from(state.readers).filter((reader) => reader.topics.includes(topic))

  const expire = (group: string, member: number, rejoins: boolean) =>
    Effect.sync(() => {
      const cell = State.cellOf(state, group)
      const victim = cell.group.members.filter(({ phase }) => phase._tag !== "Lost")[member]
      if (victim !== undefined) {
        Membership.step(cell, (group) => Group.expire(group, victim.id, rejoins, cell.count))
      }
    })

  return {
    records: (topic) =>
      Effect.sync(() =>
        (state.topics.get(topic)?.partitions ?? []).flatMap((log, partition) =>
          log.records.map((record) => ({ ...record, topic, partition }))
        )
      ),
    committed: (group, at) => Effect.sync(() => state.groups.get(group)?.group.committed.get(Group.partitionKey(at))),
    rebalance: (group) => Effect.sync(() => Membership.step(State.cellOf(state, group), Group.askToRevoke)),
    expire: (group, member = 0) => expire(group, member, true),
    crash: (group, member = 0) => expire(group, member, false),
    failNext: (operation, reason, options) =>
      Effect.sync(() => {
        state.faults.push({ operation, reason, times: options?.times ?? 1, applied: options?.applied ?? false })
      }),
    skipOffsets: (at, count) =>
      Effect.sync(() => {
        const log = State.logOf(state, at.topic, at.partition)
        if (log !== undefined) {
          Log.skip(log, count)
        }
      }),
    addPartitions: (topic, count) =>
      Effect.sync(() => {
        const existing = state.topics.get(topic)
        if (existing !== undefined) {
          Log.addPartitions(existing, count)
          readersOf(topic).forEach((reader) => reader.partitionsAdded())
        }
      }),
    deleteTopic: (topic) =>
      Effect.sync(() => {
        state.topics.delete(topic)
        for (const cell of state.groups.values()) {
          cell.group = Group.forgetTopic(cell.group, topic)
        }
        for (const reader of readersOf(topic)) {
          Deferred.doneUnsafe(reader.failed, State.fail(new UnknownTopic({ topic })))
        }
      })
  }
}

/**
 * What the in-memory broker knows: topics, groups, and who reads what.
 */
import type * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type { BrokerErrorReason } from "../../../Broker.ts"
import { BrokerError } from "../../../Broker.ts"
import * as Group from "./group.ts"
import type * as Log from "./log.ts"
import type { GroupCell } from "./membership.ts"

/** Somebody who reads topics, and is told when one of them changes. */
export interface Reader {
  readonly topics: ReadonlyArray<string>
  readonly failed: Deferred.Deferred<never, BrokerError>
  readonly partitionsAdded: () => void
}

/** A failure that a test has asked for. */
export interface Fault {
  readonly operation: "send" | "commit"
  readonly reason: BrokerErrorReason
  /** Whether the operation takes effect before it fails. */
  readonly applied: boolean
  times: number
}

export interface State {
  readonly topics: Map<string, Log.TopicLog>
  readonly groups: Map<string, GroupCell>
  readonly readers: Set<Reader>
  readonly faults: Array<Fault>
}

export const make = (): State => ({ topics: new Map(), groups: new Map(), readers: new Set(), faults: [] })

export const logOf = (state: State, topic: string, partition: number): Log.PartitionLog | undefined =>
  state.topics.get(topic)?.partitions[partition]

/** How many partitions a topic has; none if it does not exist. */
export const countOf = (state: State, topic: string): number => state.topics.get(topic)?.partitions.length ?? 0

/** A group's cell; a group exists from its first mention. */
export const cellOf = (state: State, name: string): GroupCell => {
  const cell = state.groups.get(name) ??
    { group: Group.empty(name), latches: new Map(), count: (topic: string) => countOf(state, topic) }
  state.groups.set(name, cell)
  return cell
}

export const fail = (reason: BrokerErrorReason): Effect.Effect<never, BrokerError> =>
  Effect.fail(new BrokerError({ reason }))

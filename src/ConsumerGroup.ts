/**
 * Consumer groups as this process runs them: the group that a consumer belongs
 * to, and how each of its partitions is.
 *
 * `status` answers "why does this partition not move?" in one sentence: which
 * handler runs for how long on which key, what a key waits for, why a
 * partition is paused, why commits fail.
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Health from "./Health.ts"
import type { PauseReason } from "./internal/pauseReason.ts"

export type { PauseReason } from "./internal/pauseReason.ts"

/**
 * The group in which a consumer consumes, as in Kafka. Provided by
 * `Consumer.layer` and `Consumer.inGroup`.
 *
 * @category services
 * @since 0.1.0
 */
export class ConsumerGroup extends Context.Service<ConsumerGroup, {
  readonly name: string
}>()("effect-events/ConsumerGroup") {}

/**
 * How a partition, or a group, gets on.
 *
 * - `"idle"`: everything that was delivered is finished and committed.
 * - `"ok"`: there is work, and it moves.
 * - `"stuck"`: there is work, and nothing has moved for `stuckAfter`.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict = "idle" | "ok" | "stuck"

/**
 * A record and the handler that it is for. `offset` is a decimal number as
 * text, since JSON knows no bigint; `key` is cut at 100 characters.
 *
 * @category models
 * @since 0.1.0
 */
export interface RecordOf {
  readonly handler: string
  readonly key: string | null
  readonly offset: string
}

/**
 * The attempt that has run for the longest time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Running extends RecordOf {
  readonly ageMillis: number
  /** Records that run together with this one. */
  readonly batchSize: number
}

/**
 * What the oldest unfinished record of a partition waits for, while it does
 * not run.
 *
 * - `"retry"`: the next attempt, after a failed one.
 * - `"block"`: the next attempt, since its policy never gives up.
 * - `"deadLetter"`: its dead letter, which could not be written.
 * - `"store"`: the database, which does not answer.
 * - `"due"`: the time at which `retryLater` brings its dead letter back.
 * - `"slot"`: a free slot of its handler.
 * - `"commit"`: whoever pulled it from a stream, and has not committed it.
 * - `"pull"`: somebody to pull it from the stream.
 *
 * @category models
 * @since 0.1.0
 */
export interface Waiting extends RecordOf {
  readonly for: "retry" | "block" | "deadLetter" | "store" | "due" | "slot" | "commit" | "pull"
  /** Failed attempts. */
  readonly attempts: number
  /** When it goes on, milliseconds since the epoch; `null` when no time is known. */
  readonly untilMillis: number | null
  /** The message of the last failure, cut at 500 characters. */
  readonly error: string | null
}

/**
 * One assigned partition. Plain data that `JSON.stringify` takes; offsets are
 * decimal numbers as text.
 *
 * @category models
 * @since 0.1.0
 */
export interface Partition {
  readonly topic: string
  readonly partition: number
  /** Which grant of this partition it is. */
  readonly epoch: number
  /** `true` while it is handed over: no new records are taken. */
  readonly draining: boolean
  readonly verdict: Verdict
  /** Why, in a sentence; for `"stuck"` also what to do. */
  readonly reason: string
  /** The first offset that is not finished; `null` before anything was delivered. */
  readonly watermark: string | null
  /** The highest offset that was delivered. */
  readonly highestDelivered: string | null
  /** The position that the broker has acknowledged; `null` for broadcast, which commits nothing. */
  readonly committed: string | null
  /** Offsets between watermark and highest delivered. */
  readonly span: number
  /** Delivered records that are not finished. */
  readonly buffered: number
  readonly paused: PauseReason | null
  readonly running: Running | null
  readonly waiting: Waiting | null
  /** Why commits fail at present; `null` if the last one succeeded. */
  readonly commitError: string | null
  /** When the watermark last moved, or work came to an idle partition: milliseconds since the epoch, to within a second. */
  readonly progressMillis: number
}

/**
 * One membership of this process.
 *
 * @category models
 * @since 0.1.0
 */
export interface Status {
  /** `"(broadcast)"` for broadcast consumers, which have no group. */
  readonly group: string
  readonly handlers: ReadonlyArray<{ readonly topic: string; readonly handler: string }>
  /** `"failing"` while consumers of a Layer are down and wait to start again. */
  readonly state: "running" | "failing"
  /** Why it fails. */
  readonly reason: string | null
  /** The worst of its partitions. */
  readonly verdict: Verdict
  readonly partitions: ReadonlyArray<Partition>
}

/** @internal */
export interface Member {
  readonly group: string
  readonly handlers: Status["handlers"]
  readonly partitions: (nowMillis: number) => ReadonlyArray<Partition>
}

/**
 * Where running memberships are kept. One for the process by default; provide
 * another to look at a part of a program by itself.
 *
 * @category references
 * @since 0.1.0
 */
export const Members: Context.Reference<Set<Member>> = Context.Reference<Set<Member>>(
  "effect-events/ConsumerGroup/Members",
  { defaultValue: () => new Set() }
)

const worst = (partitions: ReadonlyArray<Partition>): Verdict =>
  partitions.some(({ verdict }) => verdict === "stuck")
    ? "stuck"
    : partitions.some(({ verdict }) => verdict === "ok")
    ? "ok"
    : "idle"

/**
 * How the groups of this process are, or the one with this name. One entry per
 * membership: open streams and Layers of one group each have their own.
 *
 * **Details**
 *
 * A snapshot, made when asked: it costs a look at each unfinished record that
 * stands first, and at every running slot. Keys are user data; show them to
 * whom you would show the events.
 *
 * **Example** (Why does it not move?)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { ConsumerGroup } from "effect-events"
 *
 * const why = Effect.gen(function*() {
 *   for (const { group, partitions } of yield* ConsumerGroup.status()) {
 *     for (const { partition, reason, topic, verdict } of partitions) {
 *       yield* Console.log(`${group} ${topic}/${partition} ${verdict}: ${reason}`)
 *     }
 *   }
 * })
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const status = Effect.fnUntraced(function*(group?: string): Effect.fn.Return<ReadonlyArray<Status>> {
  const members = yield* Members
  const parts = yield* Health.Parts
  const now = yield* Clock.currentTimeMillis
  const failing = new Map<string, string>()
  for (const part of parts.values()) {
    if (part.kind === "consumer" && part.state === "Failing") failing.set(part.name, part.reason)
  }
  const all: Array<Status> = []
  for (const member of members) {
    const reason = failing.get(member.group) ?? null
    const partitions = member.partitions(now)
    all.push({
      group: member.group,
      handlers: member.handlers,
      state: reason === null ? "running" : "failing",
      reason,
      verdict: worst(partitions),
      partitions
    })
    failing.delete(member.group)
  }
  // What is down has left its group until it starts again.
  for (const [name, reason] of failing) {
    all.push({ group: name, handlers: [], state: "failing", reason, verdict: "idle", partitions: [] })
  }
  return group === undefined ? all : all.filter((one) => one.group === group)
})

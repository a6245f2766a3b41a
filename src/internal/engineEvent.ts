/**
 * Everything the engine has to say, as data: what happened, at which level,
 * in which sentence. Logs read this table; nothing else of the engine logs.
 *
 * Emitted at transitions and per batch, never per record, apart from failures.
 *
 * @internal
 */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"

interface Place {
  readonly topic: string
  readonly partition: number
}

export interface At extends Place {
  readonly offset: bigint
  /** Cut: it is the user's data. */
  readonly key: string | null
  readonly group: string
  readonly handler: string
  readonly messageId: string
}

export type EngineEvent =
  | { readonly _tag: "Joined"; readonly group: string; readonly topics: string }
  | ({ readonly _tag: "Assigned"; readonly group: string; readonly epoch: number } & Place)
  | ({ readonly _tag: "Revoked"; readonly group: string; readonly epoch: number } & Place)
  | ({ readonly _tag: "Lost"; readonly group: string; readonly epoch: number } & Place)
  | { readonly _tag: "DrainOverdue"; readonly group: string; readonly running: number; readonly setting: string }
  | { readonly _tag: "Committed"; readonly group: string; readonly partitions: number }
  | { readonly _tag: "CommitFenced"; readonly group: string; readonly reason: string }
  | { readonly _tag: "CommitFailed"; readonly group: string; readonly reason: string }
  | ({ readonly _tag: "Stuck"; readonly group: string; readonly epoch: number; readonly reason: string } & Place)
  | ({ readonly _tag: "Unstuck"; readonly group: string; readonly epoch: number } & Place)
  | {
    readonly _tag: "EventLoopBlocked"
    readonly blockedMillis: number
    readonly running: number
    readonly handlers: ReadonlyArray<object>
  }
  | { readonly _tag: "Left"; readonly group: string }
  | { readonly _tag: "Restarting"; readonly group: string; readonly reason: string; readonly afterMillis: number }
  | ({ readonly _tag: "Handled"; readonly attempt: number } & At)
  | ({ readonly _tag: "Duplicate" } & At)
  | {
    readonly _tag: "StoreOutage"
    readonly topic: string
    /** `partition/offset` of the first event of each partition. */
    readonly from: string
    readonly group: string
    readonly handler: string
    readonly waiting: number
    readonly afterMillis: number
    readonly cause: Cause.Cause<unknown>
  }
  | ({
    readonly _tag: "Retrying"
    readonly attempt: number
    readonly afterMillis: number
    readonly cause: Cause.Cause<unknown>
  } & At)
  | {
    readonly _tag: "BatchFailed"
    readonly topic: string
    /** `partition/offset` of the first event of each partition. */
    readonly from: string
    readonly group: string
    readonly handler: string
    readonly events: number
    readonly attempt: number
    readonly afterMillis: number
    readonly cause: Cause.Cause<unknown>
  }
  | {
    readonly _tag: "BatchClosed"
    readonly topic: string
    readonly group: string
    readonly handler: string
    readonly events: number
    readonly closed: string
  }
  | { readonly _tag: "PolicyFailed"; readonly handler: string; readonly cause: Cause.Cause<unknown> }
  | ({ readonly _tag: "Ignored"; readonly cause: Cause.Cause<unknown> } & At)
  | ({
    readonly _tag: "DeadLetter"
    readonly attempt: number
    readonly deadLetterTopic: string
    readonly cause: Cause.Cause<unknown>
  } & At)
  | ({
    readonly _tag: "RetryLater"
    readonly attempt: number
    readonly deadLetterTopic: string
    readonly afterMillis: number
    readonly cause: Cause.Cause<unknown>
  } & At)
  | ({ readonly _tag: "LetterUnwanted"; readonly group: string; readonly handler: string } & Place)
  | ({ readonly _tag: "LettersFiled"; readonly group: string; readonly letters: number } & Place)
  | ({
    readonly _tag: "LetterUnmarked"
    readonly group: string
    readonly handler: string
    readonly afterMillis: number
    readonly cause: Cause.Cause<unknown>
  } & Place)
  | ({ readonly _tag: "DeadLetterUnwritten"; readonly afterMillis: number; readonly cause: Cause.Cause<unknown> } & At)
  | ({ readonly _tag: "Discarded"; readonly attempt: number; readonly cause: Cause.Cause<unknown> } & At)
  | { readonly _tag: "RelayStarted"; readonly instance: string }
  | { readonly _tag: "PartsHeld"; readonly instance: string; readonly parts: number }
  | { readonly _tag: "Relayed"; readonly instance: string; readonly rows: number }
  | { readonly _tag: "RelayFailed"; readonly instance: string; readonly reason: string; readonly afterMillis: number }
  | {
    readonly _tag: "RowsParked"
    readonly instance: string
    readonly topic: string
    readonly rows: number
    /** Of the first that is refused. */
    readonly messageKey: string
    readonly key: string | null
    readonly reason: string | null
  }
  | { readonly _tag: "LeaseOverdue"; readonly instance: string; readonly parts: number }
  | { readonly _tag: "RelayStopped"; readonly instance: string }
  | { readonly _tag: "BroadcastStarted"; readonly topic: string }
  | {
    readonly _tag: "BroadcastRestarting"
    readonly topic: string
    readonly reason: string
    readonly afterMillis: number
  }
  | { readonly _tag: "BroadcastStopped"; readonly topic: string }
  | { readonly _tag: "SubscribersTooSlow"; readonly topic: string; readonly buffer: number }
  | { readonly _tag: "SubscribersCaughtUp"; readonly topic: string; readonly lost: number }
  | ({
    readonly _tag: "BroadcastUndecodable"
    readonly offset: bigint
    /** How many since this was said the last time. */
    readonly records: number
    readonly reason: string
  } & Place)

type Level = "Debug" | "Info" | "Warn" | "Error"

/** Level and sentence of each event. */
export const table: { readonly [Tag in EngineEvent["_tag"]]: readonly [Level, string] } = {
  Joined: ["Info", "Consumers started"],
  Assigned: ["Info", "Partition assigned"],
  Revoked: ["Info", "Partition drained and given back"],
  Lost: ["Warn", "Partition lost: nothing of it is committed any more"],
  DrainOverdue: ["Warn", "Handlers outlived the drain and were interrupted"],
  Committed: ["Debug", "Offsets committed"],
  CommitFenced: ["Warn", "A commit came after an assignment had ended: that one is dropped, the others are made again"],
  CommitFailed: ["Warn", "A commit failed: what it covers goes with the next one, or comes again"],
  Stuck: ["Error", "A partition is stuck"],
  Unstuck: ["Info", "A stuck partition moves again"],
  EventLoopBlocked: [
    "Warn",
    "The event loop was blocked: no heartbeat and no timeout came through. One of these handlers, or other code, did not yield"
  ],
  Left: ["Info", "Consumers stopped"],
  Restarting: ["Error", "The consumer failed and starts again"],
  Handled: ["Debug", "Event handled"],
  Duplicate: ["Debug", "Event recognised as applied already and skipped"],
  StoreOutage: ["Warn", "The database does not answer: events wait, and no attempt is counted"],
  Retrying: ["Warn", "The handler failed and will be tried again"],
  BatchFailed: ["Warn", "A batch failed, and each half of it: its events wait and are tried again together"],
  BatchClosed: ["Debug", "Batch closed"],
  PolicyFailed: ["Error", "A failure policy threw: its event counts as exhausted"],
  Ignored: ["Debug", "The handler's failure is ignored by its policy"],
  DeadLetter: ["Error", "The handler gave up: the event went to the dead-letter topic"],
  RetryLater: ["Warn", "The handler gave up for now: the event went to the dead-letter topic, and comes back later"],
  LetterUnwanted: ["Warn", "A dead letter comes back, but its handler is not among those of this group: it stays"],
  LettersFiled: ["Debug", "Dead letters that wait were written again behind others"],
  LetterUnmarked: ["Warn", "A dead letter was applied, but this cannot be written down yet: its partition waits"],
  DeadLetterUnwritten: ["Error", "A dead letter could not be written: its key waits"],
  Discarded: ["Error", "The handler gave up: the event is discarded"],
  RelayStarted: ["Info", "Outbox relay started"],
  PartsHeld: ["Info", "Outbox parts held"],
  Relayed: ["Debug", "Outbox rows relayed"],
  RelayFailed: ["Warn", "The outbox relay failed and will go on"],
  RowsParked: ["Error", "The broker refuses outbox rows: they are parked, and later rows of their keys with them"],
  LeaseOverdue: ["Warn", "A lease came too near to its end: its rows wait for the next renewal"],
  RelayStopped: ["Info", "Outbox relay stopped"],
  BroadcastStarted: ["Info", "Broadcast subscriptions are served"],
  BroadcastRestarting: [
    "Error",
    "Reading for broadcast subscriptions failed and starts again: they miss what is published meanwhile"
  ],
  BroadcastStopped: ["Info", "Broadcast subscriptions are no longer served"],
  SubscribersTooSlow: ["Warn", "A broadcast subscriber is too slow and loses events"],
  SubscribersCaughtUp: ["Info", "All broadcast subscribers keep up again"],
  BroadcastUndecodable: ["Warn", "A record does not decode: broadcast subscribers do not see it"]
}

/** Logs an event: a constant sentence, the rest as annotations. */
export const log = (event: EngineEvent): Effect.Effect<void> => {
  const [level, sentence] = table[event._tag]
  const { _tag, ...rest } = event
  const { cause, ...fields } = rest as { readonly cause?: Cause.Cause<unknown>; readonly [name: string]: unknown }
  const bare = Effect.logWithLevel(level)(sentence)
  const message = cause === undefined
    ? bare
    // A cause may hold what throws when it is formatted.
    : Effect.catchDefect(Effect.logWithLevel(level)(sentence, cause), () => bare)
  // A logger that throws must not take the engine's fibers with it.
  return Effect.catchDefect(Effect.annotateLogs(message, fields), () => Effect.void)
}

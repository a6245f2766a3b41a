/**
 * The mode `exactlyOnce`: the handler's writes commit in the same database
 * transaction that records the message as processed; a message that is
 * delivered again is recognised and skipped.
 *
 * One transaction per batch: claim the messages in the inbox, run the handler
 * with those that are new, insert the events it published, commit. If the
 * answer to COMMIT is lost, the batch simply runs again, and the inbox decides.
 *
 * Group commit: a handler of single events gets the price of a batch without
 * being one. Its events run one after another inside one transaction, and the
 * one that fails is named, so that the others can run again without it.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import { Failed } from "../../../Batching.ts"
import type * as Event from "../../../Event.ts"
import type { MessageStore, MessageStoreError } from "../../../MessageStore.ts"
import * as Transaction from "../../transaction.ts"
import { messageKey } from "../../wire/messageId.ts"
import type { Apply } from "../handler.ts"
import { call } from "./surroundings.ts"

type Events = Parameters<Apply>[0]

// A batch may hold a message twice: only its first copy is applied.
const firstCopies = (events: Events): Map<string, Event.Event<unknown>> => {
  const copies = new Map<string, Event.Event<unknown>>()
  for (const event of events) {
    const key = messageKey(event)
    if (!copies.has(key)) copies.set(key, event)
  }
  return copies
}

const maxConflicts = 10
const grace = Duration.seconds(10)

/** Runs again at once while the transaction loses races; ten in a row are a failure. Races are no attempts. */
const retryConflicts = (store: MessageStore["Service"]) =>
  Effect.retry({
    while: (error) => store.isConflict(error instanceof Failed ? error.error : error),
    times: maxConflicts,
    schedule: Schedule.exponential("5 millis").pipe(Schedule.jittered)
  })

/** Puts what applies events into a transaction that also records them; `retrying`: again while it loses races. */
export const make = (
  store: MessageStore["Service"],
  consumer: number,
  /** How long a handler may take that is not interrupted. */
  longest: Duration.Duration,
  skipped: (events: ReadonlyArray<Event.Event<unknown>>) => Effect.Effect<void>
) => {
  const retry = retryConflicts(store)
  // What stands still for longer is frozen, and others wait for what it has claimed.
  const idleAtMost = Duration.sum(longest, grace)
  const claim = (keys: Arr.NonEmptyReadonlyArray<string>) => store.inbox.claim(consumer, keys, idleAtMost)
  const transaction = (apply: Apply): Apply => (events) =>
    Transaction.run(store, claimed(claim, apply, skipped, events))
  const retrying = (apply: Apply): Apply => {
    const once = transaction(apply)
    return (events) => retry(once(events))
  }
  return { transaction, retrying }
}

/** The event of a group whose handler failed, and how. */
export class Culprit {
  readonly event: Event.Event<unknown>
  readonly cause: Cause.Cause<unknown>
  constructor(event: Event.Event<unknown>, cause: Cause.Cause<unknown>) {
    this.event = event
    this.cause = cause
  }
}

const errorOf = (cause: Cause.Cause<unknown>): unknown => Option.getOrUndefined(Cause.findErrorOption(cause))

/**
 * Applies the events of a group one after another; `began` is called before
 * each. A failure names its event, unless it concerns the whole transaction,
 * lost a race, or interrupts.
 */
export const oneByOne = (
  store: MessageStore["Service"],
  handle: (event: Event.Event<unknown>) => Effect.Effect<unknown, unknown>,
  began: (event: Event.Event<unknown>) => void
): Apply =>
(events) =>
  Effect.forEach(events, (event) =>
    Effect.suspend(() => {
      began(event)
      return call(handle, event, event)
    }).pipe(
      Effect.catchCause((cause) => {
        const error = errorOf(cause)
        return Cause.hasInterrupts(cause) || store.isConflict(error) || store.isTransactionWide(error)
          ? Effect.failCause(cause)
          : Effect.fail(new Culprit(event, cause))
      })
    ), { discard: true })

/** Claims the messages, and applies those that are new. */
const claimed = (
  claim: (keys: Arr.NonEmptyReadonlyArray<string>) => Effect.Effect<ReadonlySet<string>, MessageStoreError>,
  apply: Apply,
  skipped: (events: ReadonlyArray<Event.Event<unknown>>) => Effect.Effect<void>,
  events: Events
) =>
  Effect.suspend(() => {
    const copies = firstCopies(events)
    const keys = Array.from(copies.keys())
    if (!Arr.isArrayNonEmpty(keys)) return Effect.void
    return Effect.flatMap(claim(keys), (fresh) => {
      const all = fresh.size === events.length
      const todo = all ? events : events.filter((event) => {
        const key = messageKey(event)
        return fresh.has(key) && copies.get(key) === event
      })
      const applied = Arr.isReadonlyArrayNonEmpty(todo)
        ? apply(todo)
        : Effect.void
      return all ? applied : Effect.andThen(applied, skipped(events.filter((event) => !todo.includes(event))))
    })
  })

/**
 * The mode `exactlyOnce`: the handler's writes commit in the same database
 * transaction that records the message as processed; a message that is
 * delivered again is recognised and skipped.
 *
 * One transaction per batch: claim the messages in the inbox, run the handler
 * with those that are new, insert the events it published, commit. If the
 * answer to COMMIT is lost, the batch simply runs again, and the inbox decides.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Event from "../../Event.ts"
import type { MessageStore } from "../../MessageStore.ts"
import * as Transaction from "../transaction.ts"
import { messageKey } from "../wire/messageId.ts"
import type { Apply } from "./handler.ts"

type Events = Parameters<Apply>[0]

const keyOf = (event: Event.Event<unknown>): string => messageKey(event.id, event.source)

// A batch may hold a message twice: only its first copy is applied.
const firstCopies = (events: Events): Map<string, Event.Event<unknown>> => {
  const copies = new Map<string, Event.Event<unknown>>()
  for (const event of events) {
    const key = keyOf(event)
    if (!copies.has(key)) copies.set(key, event)
  }
  return copies
}

const maxConflicts = 10

/** Runs again at once while the transaction loses races; ten in a row are a failure. Races are no attempts. */
const retryConflicts = (store: MessageStore["Service"]) =>
  Effect.retry({
    while: store.isConflict,
    times: maxConflicts,
    schedule: Schedule.exponential("5 millis").pipe(Schedule.jittered)
  })

export const make = (
  store: MessageStore["Service"],
  consumer: number,
  apply: Apply,
  skipped: (events: ReadonlyArray<Event.Event<unknown>>) => Effect.Effect<void>
): Apply => {
  const retry = retryConflicts(store)
  return (events) => retry(Transaction.run(store, claimed(store, consumer, apply, skipped, events)))
}

/** Claims the messages, and applies those that are new. */
const claimed = (
  store: MessageStore["Service"],
  consumer: number,
  apply: Apply,
  skipped: (events: ReadonlyArray<Event.Event<unknown>>) => Effect.Effect<void>,
  events: Events
) =>
  Effect.suspend(() => {
    const copies = firstCopies(events)
    const keys = Array.from(copies.keys())
    if (!Arr.isArrayNonEmpty(keys)) return Effect.void
    return Effect.flatMap(store.inbox.claim(consumer, keys), (fresh) => {
      const all = fresh.size === events.length
      const todo = all ? events : events.filter((event) => {
        const key = keyOf(event)
        return fresh.has(key) && copies.get(key) === event
      })
      const applied = Arr.isReadonlyArrayNonEmpty(todo)
        ? apply(todo)
        : Effect.void
      return all ? applied : Effect.andThen(applied, skipped(events.filter((event) => !todo.includes(event))))
    })
  })

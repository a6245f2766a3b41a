/**
 * The events of one transaction: buffered while it runs, inserted just before
 * it commits.
 *
 * Inserting last is what keeps order per key: a transaction takes its outbox
 * ids after every lock that it takes anywhere, so "publish, then lock" cannot
 * invert a key (`sql.md` §2). A nested transaction hands its events to the
 * outer one when it succeeds, and drops exactly its own when it rolls back.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import {
  type MessageStore,
  type MessageStoreError,
  type OutboxKey,
  type OutboxRow,
  parts,
  type ScheduledRow
} from "../MessageStore.ts"
import { messageKey } from "./wire/messageId.ts"
import { type Outgoing, PublishError, TransactionEnded } from "./wire/outgoing.ts"
import { partOf } from "./wire/partitioner.ts"

/**
 * Evidence of a running transaction: `Outbox.publish` needs it, and
 * `Outbox.transaction` and `exactlyOnce` handlers provide it.
 *
 * @category services
 * @since 0.1.0
 */
export class Transaction extends Context.Service<Transaction, {
  /** Adds events behind those already there. Fails when the transaction has ended, or the fiber is in a savepoint that it does not know. */
  readonly add: (events: ReadonlyArray<Outgoing>) => Effect.Effect<void, PublishError>
}>()("effect-events/Outbox/Transaction") {}

class Buffer {
  open = true
  readonly events: Array<Outgoing> = []
  readonly level: object | undefined
  constructor(level: object | undefined) {
    this.level = level
  }
}

// Finds the buffer behind a `Transaction`, for transactions nested in it.
const buffers = new WeakMap<Transaction["Service"], Buffer>()

const rowOf = (event: Outgoing): OutboxRow => ({
  part: partOf(event.topic, event.key ?? event.id, parts),
  messageKey: messageKey({ id: event.id, source: "" }),
  topic: event.topic,
  key: event.key,
  headers: event.headers,
  payload: event.value
})

const ended = (topic: string, detail: string) => new PublishError({ reason: new TransactionEnded({ topic, detail }) })

const serviceOf = (store: MessageStore["Service"], buffer: Buffer): Transaction["Service"] => {
  const service = Transaction.of({
    add: (events) =>
      Effect.flatMap(store.level, (level) => {
        const topic = events[0]?.topic ?? ""
        if (!buffer.open) {
          return Effect.fail(ended(topic, "it has ended; do not let a fiber that publishes outlive its transaction"))
        }
        if (level !== buffer.level) {
          return Effect.fail(
            ended(topic, "the fiber is in a savepoint of sql.withTransaction; use Outbox.transaction for the inner one")
          )
        }
        for (const event of events) buffer.events.push(event)
        return Effect.void
      })
  })
  buffers.set(service, buffer)
  return service
}

/** The keys of events that ask for it, each once. A scheduled event takes its place later. */
const keysToLock = (events: ReadonlyArray<Outgoing>): Array<OutboxKey> => {
  const keys = new Map<string, OutboxKey>()
  for (const { dueMillis, key, serialize, topic } of events) {
    if (serialize === true && key !== null && dueMillis === undefined) keys.set(`${topic}\u0000${key}`, { topic, key })
  }
  return Array.from(keys.values())
}

/** Inserts events: those that are scheduled by themselves, the others behind all that the transaction has locked. */
const insert = (
  store: MessageStore["Service"],
  events: ReadonlyArray<Outgoing>
): Effect.Effect<void, MessageStoreError> => {
  const rows: Array<OutboxRow> = []
  const later: Array<ScheduledRow> = []
  for (const event of events) {
    if (event.dueMillis === undefined) rows.push(rowOf(event))
    else later.push({ ...rowOf(event), dueMillis: event.dueMillis })
  }
  const keys = keysToLock(events)
  const append = Arr.isArrayNonEmpty(rows) ? store.outbox.append(rows) : Effect.void
  const add = Arr.isArrayNonEmpty(later) ? Effect.andThen(store.outbox.scheduled.add(later), append) : append
  return Arr.isArrayNonEmpty(keys) ? Effect.andThen(store.outbox.lock(keys), add) : add
}

/** Runs an effect in a transaction of the store, and inserts its events just before the commit. */
export const run = <A, E, R>(
  store: MessageStore["Service"],
  effect: Effect.Effect<A, E, R>
): Effect.Effect<A, E | MessageStoreError, Exclude<R, Transaction>> =>
  store.transaction(Effect.withFiber((fiber) => {
    const outer = Context.getOrUndefined(fiber.context, Transaction)
    const parent = outer === undefined ? undefined : buffers.get(outer)
    return Effect.flatMap(store.level, (level) => {
      const buffer = new Buffer(level)
      return Effect.provideService(effect, Transaction, serviceOf(store, buffer)).pipe(
        Effect.onExit(() => Effect.sync(() => buffer.open = false)),
        Effect.tap(() => {
          if (!Arr.isArrayNonEmpty(buffer.events)) return Effect.void
          if (parent?.open === true) {
            for (const event of buffer.events) parent.events.push(event)
            return Effect.void
          }
          return insert(store, buffer.events)
        })
      )
    })
  }))

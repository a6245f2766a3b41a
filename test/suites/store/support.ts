/** Rows, message ids and clean outboxes for the store suite. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { MessageStoreError, OutboxRow, StoredRow } from "../../../src/MessageStore.ts"
import { MessageStore, parts } from "../../../src/MessageStore.ts"
import { freshName } from "../features.ts"

const encoder = new TextEncoder()

/** Numbers from 0, as an array. */
export const upTo = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index)

export const nonEmpty = <A>(items: ReadonlyArray<A>): readonly [A, ...Array<A>] => {
  const [head, ...rest] = items
  if (head === undefined) {
    throw new Error("needs at least one item")
  }
  return [head, ...rest]
}

export const everyPart = nonEmpty(upTo(parts))

/** A time-ordered UUID (version 7). */
export const freshMessageKey: Effect.Effect<string> = Effect.map(Clock.currentTimeMillis, (now) => {
  const time = now.toString(16).padStart(12, "0")
  const random = globalThis.crypto.randomUUID()
  return `${time.slice(0, 8)}-${time.slice(8)}-7${random.slice(15)}`
})

export const freshMessageKeys = (count: number): Effect.Effect<readonly [string, ...Array<string>]> =>
  Effect.map(Effect.forEach(upTo(count), () => freshMessageKey), nonEmpty)

export const freshOwner = freshName("owner")

/** Rows of one part, told apart by their text. */
export const rows = (
  topic: string,
  part: number,
  texts: ReadonlyArray<string>
): Effect.Effect<readonly [OutboxRow, ...Array<OutboxRow>]> =>
  Effect.map(
    Effect.forEach(texts, (text) =>
      Effect.map(freshMessageKey, (messageKey): OutboxRow => ({
        part,
        messageKey,
        topic,
        key: null,
        headers: {},
        payload: encoder.encode(text)
      }))),
    nonEmpty
  )

export const append = (topic: string, part: number, texts: ReadonlyArray<string>) =>
  Effect.flatMap(rows(topic, part, texts), (rows) => MessageStore.use((store) => store.outbox.append(rows)))

/** All rows of one topic, as a relay would read them. */
export const stored = (
  topic: string
): Effect.Effect<ReadonlyArray<StoredRow>, MessageStoreError, MessageStore> =>
  MessageStore.use((store) => store.outbox.read({ parts: everyPart, limit: 100_000 })).pipe(
    Effect.map((rows) => rows.filter((row) => row.topic === topic))
  )

/** Sorted, for comparing as multisets. */
export const sorted = (texts: Iterable<string | null>): ReadonlyArray<string> => Array.from(texts, String).sort()

const decoder = new TextDecoder()

export const textOf = (row: OutboxRow): string | null => row.payload === null ? null : decoder.decode(row.payload)

export const storedTexts = (topic: string) => Effect.map(stored(topic), (rows) => rows.map(textOf))

/** Holds leases of parts until the scope closes; dies if somebody else holds one. */
export const holding = Effect.fnUntraced(function*(
  parts: ReadonlyArray<number>,
  ttl: Duration.Duration = Duration.seconds(60)
) {
  const store = yield* MessageStore
  const owner = yield* freshOwner
  yield* Effect.addFinalizer(() => Effect.orDie(store.leases.release(owner, parts)))
  const leases = yield* store.leases.hold({ owner, ttl, parts })
  if (leases.length !== parts.length) {
    return yield* Effect.die(new Error(`held ${leases.length} of ${parts.length} parts: somebody else uses this store`))
  }
  return { owner, leases }
})

/** Empties the outbox when the case ends, through the contract itself. */
export const cleanOutbox = Effect.gen(function*() {
  const store = yield* MessageStore
  yield* Effect.addFinalizer(() =>
    Effect.orDie(Effect.scoped(Effect.gen(function*() {
      const left = yield* store.outbox.read({ parts: everyPart, limit: 100_000 })
      if (left.length > 0) {
        const { leases, owner } = yield* holding(everyPart)
        yield* store.outbox.remove({ owner, leases, rows: nonEmpty(left) })
      }
    })))
  )
  return yield* freshName("suite")
})

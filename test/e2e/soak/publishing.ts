/** The load of a soak: events with keys, by `Publisher` and by `Outbox`, and what was acknowledged. */
import * as Outbox from "effect-events/Outbox"
import * as Publisher from "effect-events/Publisher"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Published } from "./account.ts"
import { Boxed, chance, Direct, type Item } from "./domain.ts"
import { makeRandom } from "./plan.ts"

/** Each writer owns keys of its own, so that "in order" has a meaning. */
const writers = 8
const keysPerWriter = 5

/** Publishes until `stopped`; each event is added to `published` once its fate is known. */
export const publish = (
  seed: number,
  published: Array<Published>,
  stopped: () => boolean,
  say: (sentence: string) => void
) => {
  const write = <R>(
    name: "direct" | "boxed",
    writer: number,
    send: (items: ReadonlyArray<Item>) => Effect.Effect<unknown, unknown, R>
  ) =>
    Effect.gen(function*() {
      const random = makeRandom(seed + 1_000 * writer + name.length)
      const counts = new Map<string, number>()
      while (!stopped()) {
        const batch = Array.from({ length: 1 + Math.floor(random() * 4) }, (): Item => {
          // The first key of each writer is hot.
          const key = `${name}-${writer}-${Math.floor(random() ** 2 * keysPerWriter)}`
          const n = counts.get(key) ?? 0
          counts.set(key, n + 1)
          return { key, n, poison: chance(seed, key, n) < 0.003 }
        })
        const startMillis = yield* Clock.currentTimeMillis
        const exit = yield* Effect.exit(send(batch))
        if (Exit.isFailure(exit)) say(`no answer for ${batch.length} events by ${name}: ${String(exit.cause)}`)
        for (const item of batch) {
          published.push({ topic: name, ...item, acked: Exit.isSuccess(exit), startMillis })
        }
        yield* Effect.sleep(50 + Math.floor(random() * 350))
      }
    })
  return Effect.forEach(
    Array.from({ length: writers }, (_, writer) => writer),
    (writer) =>
      Effect.all([
        write("direct", writer, (items) => Publisher.publishAll(Direct, items)),
        write("boxed", writer, (items) => Outbox.transaction(Outbox.publishAll(Boxed, items)))
      ], { concurrency: 2, discard: true }),
    { concurrency: "unbounded", discard: true }
  )
}

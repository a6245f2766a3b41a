/** A flow of events that lasts as long as something else goes on. */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { items, type ItemTopic, type Log, publishAll } from "./support.ts"

const round = 10
/** How far the publisher may be ahead of those who consume. */
const ahead = 200

/**
 * Runs an effect while events are published, at least so many and until it has
 * ended, no faster than they are consumed: so what it does happens amid them.
 * Returns how many there are.
 */
export const amidFlow = Effect.fnUntraced(function*<A, E, R>(
  options: {
    readonly topic: ItemTopic
    readonly keys: number
    readonly atLeast: number
    /** One entry per event. */
    readonly seen: Pick<Log<never>, "untilCount">
  },
  during: Effect.Effect<A, E, R>
) {
  const { atLeast, keys, seen, topic } = options
  const running = yield* Effect.forkScoped(
    Effect.andThen(seen.untilCount(atLeast / 4), during)
  )
  let count = 0
  while (count < atLeast || running.pollUnsafe() === undefined) {
    yield* publishAll(topic, items(round, keys, count))
    count += round
    const done = running.pollUnsafe()
    if (done !== undefined && Exit.isFailure(done)) break
    yield* seen.untilCount(count - ahead)
  }
  return { result: yield* Fiber.join(running), count }
})

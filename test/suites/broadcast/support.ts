/** What the cases of broadcast subscriptions share. */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { Broker } from "../../../src/Broker.ts"
import type * as Event from "../../../src/Event.ts"
import { anotherProcess, type Item, makeLog } from "../consumer/support.ts"

/** Runs an effect as in a process of its own, with a reader of its own. */
export const inAnotherProcess = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | Broker> =>
  Effect.flatMap(anotherProcess, (process) => Effect.provideService(effect, Broker, process))

/** Runs a stream in the background until the scope closes, and keeps what it gave. */
export const logged = Effect.fnUntraced(function*<E>(stream: Stream.Stream<Event.Event<Item>, E>) {
  const log = makeLog<Event.Event<Item>>()
  yield* Effect.forkScoped(Stream.runForEach(stream, log.add))
  return log
})

export const numbersOf = (events: ReadonlyArray<Event.Event<Item>>): ReadonlyArray<number> =>
  events.map(({ payload }) => payload.n)

/** The next `count` events of a subscription that nobody else runs. */
export const take = <E>(stream: Stream.Stream<Event.Event<Item>, E>, count: number) =>
  Effect.map(Stream.runCollect(Stream.take(stream, count)), numbersOf)

/** Shutdown: what a stop finishes, what it hands back, and what it never does. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Schedule from "effect/Schedule"
import * as Consumer from "../../../src/Consumer.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import { cases, type It } from "../features.ts"
import {
  ascending,
  blocking,
  type Call,
  callOf,
  deadLetters,
  freshGroup,
  freshPage,
  freshTopic,
  type FrontFeatures,
  items,
  Ledger,
  makeLog,
  member,
  numbers,
  publishAll,
  type Services,
  upTo
} from "./support.ts"

export const shutdown = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  check(
    "a stop during retries leaves no dead letter, and the next member gets the event",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* publishAll(topic, items(3, 1))
        const first = yield* member(group, [
          Consumer.idempotent(
            topic,
            (event) =>
              Effect.andThen(log.add(callOf(event)), event.payload.n === 1 ? Effect.fail("later") : Effect.void),
            {
              onFailure: { ...FailurePolicy.save(), retry: Schedule.spaced("1 hour") }
            }
          )
        ])
        yield* log.untilCount(2)
        yield* first.stop
        const again = makeLog<Call>()
        const second = yield* member(group, [
          Consumer.idempotent(topic, (event) => again.add(callOf(event)), { onFailure: FailurePolicy.save() })
        ])
        yield* again.untilCount(2)
        yield* second.stop
        assert.deepStrictEqual(numbers(again.all), [1, 2])
        assert.deepStrictEqual(again.all.map((call) => call.attempt), [1, 1])
        assert.deepStrictEqual(yield* deadLetters(topic, group), [])
      })
  )

  check("a handler that ends within the shutdown's time is finished and not run again", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const started = makeLog<Call>()
      const finished = makeLog<Call>()
      const release = Latch.makeUnsafe(false)
      yield* publishAll(topic, items(4, 4))
      const consume = Consumer.idempotent(topic, (event) =>
        started.add(callOf(event)).pipe(Effect.andThen(release.await), Effect.andThen(finished.add(callOf(event)))), {
        concurrency: 4,
        onFailure: blocking
      })
      const first = yield* member(group, [consume])
      yield* started.untilCount(4)
      const stopping = yield* Effect.forkScoped(first.stop)
      yield* Effect.yieldNow
      yield* release.open
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(ascending(numbers(finished.all)), upTo(4))
      yield* publishAll(topic, items(1, 1, 4))
      yield* member(group, [consume])
      yield* finished.untilCount(5)
      assert.deepStrictEqual(ascending(numbers(started.all)), upTo(5))
    }))

  for (const mode of ["idempotentBatch", "exactlyOnceBatch"] as const) {
    check(
      `a stop in the middle of a batch (${mode}) loses no event, leaves no dead letter, and undoes the batch`,
      () =>
        Effect.gen(function*() {
          const topic = yield* freshTopic(1)
          const group = yield* freshGroup
          const page = yield* freshPage
          const ledger = yield* Ledger
          const begun = makeLog<number>()
          const handled = makeLog<number>()
          yield* publishAll(topic, items(60, 20))
          const hanging = Consumer[mode](topic, (events) =>
            Effect.gen(function*() {
              yield* ledger.write(page, `hung ${events[0].payload.n}`)
              yield* begun.add(events.length)
              return yield* Effect.never
            }), { concurrency: 1 })
          const first = yield* member(group, [hanging], { shutdownTimeout: "100 millis" })
          yield* begun.untilCount(1)
          yield* first.stop
          const second = yield* member(group, [
            Consumer[mode](
              topic,
              (events) => Effect.forEach(events, (event) => handled.add(event.payload.n), { discard: true })
            )
          ])
          yield* handled.untilCount(60)
          yield* second.stop
          assert.deepStrictEqual(ascending(handled.all), upTo(60))
          assert.deepStrictEqual(yield* deadLetters(topic, group), [])
          if (mode === "exactlyOnceBatch") assert.deepStrictEqual(yield* ledger.read(page), [])
        })
    )
  }

  check(
    "a single event that hangs through the shutdown is interrupted, comes again, and is no dead letter",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const begun = makeLog<number>()
        const handled = makeLog<number>()
        const interrupted = makeLog<number>()
        yield* publishAll(topic, items(10, 10))
        const first = yield* member(group, [
          Consumer.idempotent(topic, (event) =>
            Effect.andThen(
              begun.add(event.payload.n),
              Effect.onInterrupt(Effect.never, () => interrupted.add(event.payload.n))
            ), { concurrency: 3 })
        ], { shutdownTimeout: "100 millis" })
        yield* begun.untilCount(3)
        yield* first.stop
        // The stop has waited for the finalizers of what it interrupted.
        assert.deepStrictEqual(ascending(interrupted.all), ascending(begun.all))
        const second = yield* member(group, [Consumer.idempotent(topic, (event) => handled.add(event.payload.n))])
        yield* handled.untilCount(10)
        yield* second.stop
        assert.deepStrictEqual(ascending(handled.all), upTo(10))
        assert.deepStrictEqual(yield* deadLetters(topic, group), [])
      })
  )
}

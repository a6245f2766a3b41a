/** What a handler finds around it: a scope and a cause of its own for each attempt. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Scope from "effect/Scope"
import * as Event from "../../../../src/Event.ts"
import * as Feed from "../../../support/scriptedFeed.ts"

const { each, engine, makeGate, pass, records, retries, saving } = Feed

/** Runs a handler over records of these keys, and returns what it logged when all is quiet. */
const logged = (
  handle: (event: Feed.Item, log: Array<string>) => Effect.Effect<unknown, unknown, Scope.Scope>,
  options: Parameters<typeof each>[1],
  ...keys: ReadonlyArray<string>
) =>
  Effect.gen(function*() {
    const log: Array<string> = []
    const { feed, letters } = yield* engine([each((event) => handle(event, log), options)])
    yield* feed.assign(0)
    yield* feed.deliver(0, records(...keys))
    yield* pass("10 seconds")
    return { log, letters, committed: () => feed.committed(0), feed }
  })

describe("the scope of an attempt", () => {
  it.effect("closes with its success before the next event of the key begins", () =>
    Effect.gen(function*() {
      const { log } = yield* logged(
        ({ payload: { n } }, log) =>
          Effect.gen(function*() {
            log.push(`start ${n}`)
            yield* Effect.addFinalizer((exit) =>
              Effect.andThen(Effect.sleep(10), Effect.sync(() => log.push(`close ${n} ${exit._tag}`)))
            )
          }),
        {},
        "a",
        "a"
      )
      assert.deepStrictEqual(log, ["start 0", "close 0 Success", "start 1", "close 1 Success"])
    }))

  it.effect("closes with its failure before the next attempt", () =>
    Effect.gen(function*() {
      let attempts = 0
      const { letters, log } = yield* logged(
        (_, log) =>
          Effect.gen(function*() {
            const attempt = ++attempts
            yield* Effect.addFinalizer((exit) => Effect.sync(() => log.push(`close ${attempt} ${exit._tag}`)))
            if (attempt === 1) return yield* Effect.fail("no")
          }),
        { policy: { ...saving, retry: retries(1) } },
        "a"
      )
      assert.deepStrictEqual(log, ["close 1 Failure", "close 2 Success"])
      assert.deepStrictEqual(letters, [])
    }))

  it.effect("closes when the attempt takes too long", () =>
    Effect.gen(function*() {
      const { letters, log } = yield* logged(
        (_, log) =>
          Effect.andThen(
            Effect.addFinalizer((exit) => Effect.sync(() => log.push(`close ${exit._tag}`))),
            Effect.never
          ),
        { policy: { ...saving, timeout: "1 second" } },
        "a"
      )
      assert.deepStrictEqual(log, ["close Failure"])
      assert.strictEqual(letters.length, 1)
    }))

  it.effect("holds fibers that were forked into it no longer than the attempt", () =>
    Effect.gen(function*() {
      const { log } = yield* logged(
        ({ payload: { n } }, log) =>
          Effect.andThen(
            Effect.forkScoped(Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push(`end ${n}`)))),
            Effect.sleep(1)
          ),
        {},
        "a",
        "b"
      )
      assert.deepStrictEqual(log.sort(), ["end 0", "end 1"])
    }))

  it.effect("runs a finalizer that comes after its end at once", () =>
    Effect.gen(function*() {
      const gate = makeGate()
      const { log } = yield* logged(
        (_, log) =>
          Effect.gen(function*() {
            const scope = yield* Effect.scope
            yield* Effect.forkDetach(Effect.andThen(
              gate.wait,
              Scope.addFinalizer(scope, Effect.sync(() => log.push("late")))
            ))
          }),
        {},
        "a"
      )
      assert.deepStrictEqual(log, [])
      yield* gate.open
      assert.deepStrictEqual(log, ["late"])
    }))
})

describe("the cause of what an attempt publishes", () => {
  it.effect("is the event of the attempt, also in fibers that it leaves behind, and not the next one", () =>
    Effect.gen(function*() {
      const gate = makeGate()
      const seen: Array<readonly [own: bigint, now: bigint | undefined, later: bigint | undefined]> = []
      const { feed } = yield* logged(
        (event) =>
          Effect.gen(function*() {
            const now = yield* Event.Current
            yield* Effect.forkDetach(Effect.gen(function*() {
              yield* gate.wait
              const later = yield* Event.Current
              seen.push([event.offset, now?.offset, later?.offset])
            }))
          }),
        {},
        "a",
        "b",
        "a"
      )
      yield* gate.open
      assert.deepStrictEqual(seen, [[0n, 0n, 0n], [1n, 1n, 1n], [2n, 2n, 2n]])
      assert.strictEqual(feed.committed(0), 3n)
    }))
})

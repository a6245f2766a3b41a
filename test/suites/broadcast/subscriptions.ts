/** Who sees which events, while subscriptions come and go. */
import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Broadcast from "../../../src/Broadcast.ts"
import type { Broker } from "../../../src/Broker.ts"
import * as Publisher from "../../../src/Publisher.ts"
import * as Topic from "../../../src/Topic.ts"
import { ascending, freshTopic, Item, items, publishAll, upTo } from "../consumer/support.ts"
import { cases, type It } from "../features.ts"
import type { BroadcastFeatures } from "./index.ts"
import { inAnotherProcess, logged, numbersOf, take } from "./support.ts"

/** A greeting that its schema looks up. */
class Greetings extends Context.Service<Greetings, { readonly greeting: string }>()("test/Greetings") {}

const Greeted = Schema.String.pipe(
  Schema.decodeTo(Schema.String, {
    decode: SchemaGetter.transformEffect((name: string) =>
      Greetings.use(({ greeting }) => Effect.as(Effect.yieldNow, `${greeting}, ${name}`))
    ),
    encode: SchemaGetter.passthrough()
  })
)

export const subscriptions = <R>(it: It<Broker | R>, features: BroadcastFeatures<R>): void => {
  const { check } = cases(it, features)

  check(
    "two instances with three subscriptions: all three see each event, and none sees what came before",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(3)
        yield* publishAll(topic, items(10, 10))
        const logs = [
          yield* logged(yield* Broadcast.subscribe(topic)),
          yield* logged(yield* Broadcast.subscribe(topic)),
          yield* logged(yield* inAnotherProcess(Broadcast.subscribe(topic)))
        ]
        yield* publishAll(topic, items(30, 10, 10))
        for (const log of logs) {
          yield* log.untilCount(30)
          assert.deepStrictEqual(ascending(numbersOf(log.all)), upTo(30).map((n) => 10 + n))
        }
      })
  )

  check(
    "what is published after subscribe has returned is seen, by the first and by each that joins later",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(3)
        for (const n of upTo(30)) {
          const subscription = yield* Broadcast.subscribe(topic)
          yield* publishAll(topic, items(1, 7, n))
          const seen = yield* Stream.runHead(Stream.filter(subscription, ({ payload }) => payload.n === n))
          assert.isTrue(seen._tag === "Some", `subscription ${n}`)
        }
      })
  )

  check("many at once: all are there when the first event comes", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const all = yield* Effect.forEach(upTo(50), () => Broadcast.subscribe(topic), { concurrency: "unbounded" })
      yield* publishAll(topic, items(3, 1))
      for (const subscription of all) assert.deepStrictEqual(yield* take(subscription, 3), [0, 1, 2])
    }))

  check(
    "a key gives its events only, a filter what it lets through, and neither gives everything, in order",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(3)
        const keyed = yield* Broadcast.subscribe(topic, { key: "key-3" })
        const both = yield* Broadcast.subscribe(topic, { key: "key-3", filter: ({ payload }) => payload.n > 50 })
        const filtered = yield* Broadcast.subscribe(topic, { filter: ({ payload }) => payload.n % 2 === 0 })
        const nobodys = yield* Broadcast.subscribe(topic, { key: "key-100" })
        const everything = yield* Broadcast.subscribe(topic)
        yield* publishAll(topic, items(100, 10))
        assert.deepStrictEqual(yield* take(keyed, 10), upTo(10).map((n) => 10 * n + 3))
        assert.deepStrictEqual(yield* take(both, 5), [53, 63, 73, 83, 93])
        assert.deepStrictEqual(ascending(yield* take(filtered, 50)), upTo(50).map((n) => 2 * n))
        assert.deepStrictEqual(ascending(yield* take(everything, 100)), upTo(100))
        assert.strictEqual((yield* nobodys.status).waiting, 0)
        for (const subscription of [keyed, both, filtered, everything]) {
          assert.deepStrictEqual(yield* subscription.status, { waiting: 0, lost: 0, undecodable: 0, restarts: 0 })
        }
      })
  )

  check(
    "100 subscriptions come and go while events flow: each sees its key, those who stay see everything once",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(3)
        const keys = 5
        const options = { buffer: 1_000_000 }
        const first = yield* logged(yield* Broadcast.subscribe(topic, options))
        let published = 0
        const publishSome = Effect.suspend(() => {
          const all = items(20, keys, published)
          published += all.length
          return Effect.as(publishAll(topic, all), all)
        })
        const flowing = yield* Effect.forkScoped(Effect.forever(publishSome))
        for (const n of upTo(100)) {
          const key = `key-${n % keys}`
          yield* Effect.scoped(Effect.gen(function*() {
            const subscription = yield* Broadcast.subscribe(topic, n % 2 === 0 ? { ...options, key } : options)
            const all = yield* publishSome
            const last = all.findLast((item) => item.key === key)!
            const seen = yield* Stream.runCollect(Stream.takeUntil(subscription, ({ payload }) => payload.n === last.n))
            const own = numbersOf(seen.filter((event) => event.key === key))
            assert.deepStrictEqual(own, ascending(own))
            assert.includeMembers([...own], all.filter((item) => item.key === key).map((item) => item.n))
            if (n % 2 === 0) assert.strictEqual(own.length, seen.length)
          }))
        }
        yield* Fiber.interrupt(flowing)
        yield* publishAll(topic, items(keys, keys, published))
        const atLeast = published
        yield* first.until(
          "the last of each key",
          (all) => new Set(all.filter(({ payload }) => payload.n >= atLeast).map(({ key }) => key)).size === keys
        )
        // The interrupted publisher may not have sent its last page.
        const seen = ascending(numbersOf(first.all))
        assert.strictEqual(new Set(seen).size, seen.length, "none twice")
        assert.deepStrictEqual(seen.slice(0, published - 20), upTo(published - 20))
      })
  )

  check("closing the scope ends the stream, also for who runs it elsewhere", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const scope = yield* Scope.make()
      const subscription = yield* Scope.provide(Broadcast.subscribe(topic), scope)
      const running = yield* Effect.forkScoped(Stream.runCollect(subscription))
      yield* publishAll(topic, items(1, 1))
      yield* Scope.close(scope, Exit.void)
      yield* Fiber.join(running)
      yield* publishAll(topic, items(1, 1, 1))
      assert.isAtMost((yield* Fiber.join(running)).length, 1)
    }))

  check("each topic has its own subscriptions", () =>
    Effect.gen(function*() {
      const [one, two] = [yield* freshTopic(1), yield* freshTopic(1)]
      const ofOne = yield* Broadcast.subscribe(one)
      const ofTwo = yield* Broadcast.subscribe(two)
      yield* publishAll(one, items(2, 1, 0))
      yield* publishAll(two, items(2, 1, 10))
      assert.deepStrictEqual(yield* take(ofOne, 2), [0, 1])
      assert.deepStrictEqual(yield* take(ofTwo, 2), [10, 11])
    }))

  check(
    "two schemas of one topic, one of which needs a service: each subscription decodes with its own",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const greeted = Topic.make(topic.name, { schema: Schema.Struct({ key: Greeted, n: Schema.Number }) })
        const plain = yield* Broadcast.subscribe(topic)
        const hello = yield* Effect.provideService(Broadcast.subscribe(greeted), Greetings, { greeting: "Hello" })
        yield* Publisher.publishAll(topic, [new Item({ key: "you", n: 1 }), new Item({ key: "me", n: 2 })])
        const keys = (yield* Stream.runCollect(Stream.take(hello, 2))).map(({ payload }) => payload.key)
        assert.deepStrictEqual(keys, ["Hello, you", "Hello, me"])
        assert.deepStrictEqual(yield* take(plain, 2), [1, 2])
      })
  )
}

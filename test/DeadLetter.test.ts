/** Dead letters whose topic is in the way: nothing is lost, and it is said. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Broker } from "../src/Broker.ts"
import * as Consumer from "../src/Consumer.ts"
import * as DeadLetter from "../src/DeadLetter.ts"
import * as FailurePolicy from "../src/FailurePolicy.ts"
import * as Envelope from "../src/internal/wire/envelope.ts"
import * as Memory from "../src/Layers/Memory.ts"
import * as Publisher from "../src/Publisher.ts"
import * as Topic from "../src/Topic.ts"
import { pass } from "./support/scriptedFeed.ts"

const Orders = Topic.make("orders", {
  schema: Schema.Struct({ n: Schema.Number, text: Schema.String }),
  key: ({ n }) => String(n),
  create: { partitions: 1 }
})

const letterTopic = "orders.billing.dead-letter"

const failing = (calls: Array<number>) =>
  Consumer.idempotent(
    Orders,
    ({ payload: { n } }) => Effect.andThen(Effect.sync(() => calls.push(n)), Effect.fail("no")),
    {
      onFailure: { ...FailurePolicy.save(), retry: Schedule.recurs(0) }
    }
  )

const letters = Stream.runCollect(DeadLetter.list(Orders, "billing"))

/** Keeps log lines. */
const makeLog = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ message }) => void lines.push(String(Array.isArray(message) ? message[0] : message)))
  return { lines, layer: Logger.layer([logger]) }
}

const onMemory = Effect.provide(Memory.layerBrokerWith({ autoCreate: false }))

describe("a dead-letter topic", () => {
  it.effect("that is deleted while its consumer runs is made anew, and its letters are written", () =>
    Effect.gen(function*() {
      const calls: Array<number> = []
      const log = makeLog()
      yield* Layer.build(Consumer.layer("billing", [failing(calls)])).pipe(Effect.provide(log.layer))
      const memory = yield* Memory.MemoryBroker
      yield* memory.deleteTopic(letterTopic)
      yield* Publisher.publish(Orders, { n: 1, text: "" })
      yield* pass("1 minute")
      const found = yield* letters
      assert.deepStrictEqual(found.map(({ key }) => key), ["1"])
      assert.include(log.lines, "The consumer failed and starts again")
    }).pipe(onMemory))

  it.effect("that cannot take a letter holds the key and no other, and says so again and again", () =>
    Effect.gen(function*() {
      const calls: Array<number> = []
      const log = makeLog()
      const broker = yield* Broker
      yield* broker.ensureTopics([
        { name: letterTopic, create: { partitions: 1, config: { "max.message.bytes": "10000" } } }
      ])
      yield* Layer.build(Consumer.layer("billing", [failing(calls)])).pipe(Effect.provide(log.layer))
      yield* Publisher.publish(Orders, { n: 1, text: "x".repeat(20_000) })
      yield* Publisher.publishAll(Orders, [{ n: 1, text: "" }, { n: 2, text: "" }])
      yield* pass("1 minute")
      assert.deepStrictEqual(calls, [1, 2])
      assert.deepStrictEqual((yield* letters).map(({ key }) => key), ["2"])
      const said = log.lines.filter((line) => line === "A dead letter could not be written: its key waits")
      assert.isAtLeast(said.length, 12)
      const memory = yield* Memory.MemoryBroker
      assert.isUndefined(yield* memory.committed("billing", { topic: "orders", partition: 0 }))
    }).pipe(onMemory))

  it.effect("that a handler of the group reads is left to that handler", () =>
    Effect.gen(function*() {
      const calls: Array<number> = []
      const seen: Array<string | null> = []
      const Letters = Topic.make(letterTopic, { schema: Orders.schema })
      yield* Layer.build(Consumer.layer("billing", [
        failing(calls),
        Consumer.idempotent(Letters, (event) => Effect.sync(() => seen.push(event.key)))
      ])).pipe(Effect.provide(makeLog().layer))
      yield* Publisher.publish(Orders, { n: 1, text: "" })
      yield* pass("1 second")
      assert.deepStrictEqual(seen, ["1"])
      yield* DeadLetter.replay(Orders, "billing", {})
      yield* pass("1 minute")
      assert.deepStrictEqual([calls, seen], [[1], ["1", "1"]])
    }).pipe(onMemory))
})

describe("a clean stop", () => {
  it.effect("commits what was applied above a letter that waits, and takes no time for it", () =>
    Effect.gen(function*() {
      const handler = (name: string, delay: "1 hour" | "1 second") => {
        let calls = 0
        return Consumer.idempotent(
          Orders,
          () => Effect.suspend(() => calls++ === 0 ? Effect.fail("no") : Effect.void),
          {
            name,
            onFailure: { ...FailurePolicy.retryLater({ delays: [delay] }), retry: Schedule.recurs(0) }
          }
        )
      }
      const memory = yield* Memory.MemoryBroker
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(Consumer.layer("billing", [handler("slow", "1 hour")]), scope).pipe(
        Effect.provide(makeLog().layer)
      )
      yield* Publisher.publish(Orders, { n: 1, text: "" })
      yield* pass("10 millis")
      yield* Scope.close(scope, Exit.void)
      const both = yield* Scope.make()
      yield* Layer.buildWithScope(
        Consumer.layer("billing", [handler("slow", "1 hour"), handler("quick", "1 second")]),
        both
      ).pipe(Effect.provide(makeLog().layer))
      yield* Publisher.publish(Orders, { n: 2, text: "" })
      // The quick one has come back and is marked: the slow ones lie below it.
      yield* pass("2 seconds")
      const before = yield* memory.records(letterTopic)
      const last = before.at(-1)!
      assert.strictEqual(Envelope.header(last.headers, "dl_marker"), "done")
      yield* Scope.close(both, Exit.void)
      const committed = yield* memory.committed("billing", { topic: letterTopic, partition: 0 })
      assert.strictEqual(committed, last.offset + 1n)
      const waiting = yield* letters
      assert.deepStrictEqual(waiting.map(({ handler, state }) => [handler, state]), [["slow", "waiting"], [
        "slow",
        "waiting"
      ]])
    }).pipe(onMemory))
})

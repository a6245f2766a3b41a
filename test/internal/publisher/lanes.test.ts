/** From messages to requests: one in flight per partition, in order, and nothing sent behind a failure. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as fc from "fast-check"
import {
  BrokerError,
  type BrokerErrorReason,
  type Producer,
  Refused,
  ResultUnknown,
  TooLarge,
  UnknownTopic
} from "../../../src/Broker.ts"
import * as Lanes from "../../../src/internal/publisher/lanes.ts"
import { partitionOf } from "../../../src/internal/wire/partitioner.ts"
import { pass, settle } from "../../support/scriptedFeed.ts"

type Send = Parameters<Producer["send"]>[0]

const fail = (reason: BrokerErrorReason) => Effect.fail(new BrokerError({ reason }))

const unknown = new ResultUnknown({ topic: "topic", partition: 0, detail: "test" })
const tooLarge = new TooLarge({ topic: "topic", bytes: 1, detail: "test" })

const textOf = (value: Uint8Array | null) => value === null ? null : Buffer.from(value).toString()

/** A producer that keeps what it is sent. `answer` says what becomes of a request; by default it is acknowledged. */
const scripted = Effect.fnUntraced(function*(options: {
  readonly partitions?: number
  readonly answer?: (send: Send, texts: ReadonlyArray<string | null>) => Effect.Effect<void, BrokerError>
  readonly partitionsOf?: (topic: string) => Effect.Effect<number, BrokerError>
} = {}) {
  const requests: Array<{ readonly partition: number; readonly texts: ReadonlyArray<string | null> }> = []
  const timeouts: Array<number> = []
  const logs = new Map<number, Array<string | null>>()
  const inFlight = new Map<number, number>()
  let mostInFlight = 0
  const producer: Producer = {
    partitions: options.partitionsOf ?? (() => Effect.succeed(options.partitions ?? 1)),
    send: (batch) =>
      Effect.suspend(() => {
        const { partition, records } = batch
        const texts = records.map(({ value }) => textOf(value))
        requests.push({ partition, texts })
        timeouts.push(Duration.toMillis(batch.timeout))
        inFlight.set(partition, (inFlight.get(partition) ?? 0) + 1)
        mostInFlight = Math.max(mostInFlight, inFlight.get(partition)!)
        return (options.answer?.(batch, texts) ?? Effect.void).pipe(
          Effect.map(() => {
            const log = logs.get(partition) ?? []
            logs.set(partition, log)
            return BigInt(log.push(...texts) - texts.length)
          }),
          Effect.ensuring(Effect.sync(() => inFlight.set(partition, inFlight.get(partition)! - 1)))
        )
      })
  }
  const lanes = yield* Lanes.make({ producer, address: "memory" })
  return {
    lanes,
    requests,
    timeouts,
    log: (partition = 0) => logs.get(partition) ?? [],
    mostInFlight: () => mostInFlight
  }
})

const message = (text: string, key: string | null = "key", topic = "topic", bytes = 10): Lanes.Message => ({
  topic,
  key,
  value: Buffer.from(text),
  headers: {},
  bytes
})

const minute = Duration.minutes(1)

/** Sends in the background, as a call of its own. */
const call = (lanes: Lanes.Lanes, messages: ReadonlyArray<Lanes.Message>, timeout = minute, most?: number) =>
  Effect.tap(Effect.forkChild(lanes.send(messages, timeout, most)), settle)

const summary = (outcomes: ReadonlyArray<Lanes.Outcome>) =>
  outcomes.map((outcome) =>
    Exit.match(outcome, {
      onSuccess: ({ offset }) => Number(offset),
      onFailure: (cause) => cause.reasons.map((reason) => reason._tag === "Fail" ? reason.error.reason._tag : "?")[0]
    })
  )

/** Requests that wait until the test lets the first of them go. */
const makeHeld = () => {
  const waiting: Array<Deferred.Deferred<void, BrokerError>> = []
  return {
    answer: () =>
      Effect.suspend(() => {
        const deferred = Deferred.makeUnsafe<void, BrokerError>()
        waiting.push(deferred)
        return Deferred.await(deferred)
      }),
    release: (reason?: BrokerErrorReason) =>
      Effect.suspend(() =>
        Deferred.done(waiting.shift()!, reason === undefined ? Exit.void : Exit.fail(new BrokerError({ reason })))
      ).pipe(Effect.andThen(settle))
  }
}

describe("requests", () => {
  it.effect("leave at once while a partition is idle, and tell where each message lies", () =>
    Effect.gen(function*() {
      const { lanes, requests } = yield* scripted()
      const outcomes = yield* lanes.send([message("a"), message("b")], minute)
      assert.deepStrictEqual(requests, [{ partition: 0, texts: ["a", "b"] }])
      assert.deepStrictEqual(outcomes.map(Exit.getSuccess).map((position) => position._tag), ["Some", "Some"])
      assert.deepStrictEqual(summary(outcomes), [0, 1])
      assert.deepStrictEqual(summary(yield* lanes.send([message("c")], minute)), [2])
    }))

  it.effect("of no messages are none", () =>
    Effect.gen(function*() {
      const { lanes, requests } = yield* scripted()
      assert.deepStrictEqual(yield* lanes.send([], minute), [])
      assert.deepStrictEqual(requests, [])
    }))

  it.effect("merge what gathers while one is in flight, in the order of the calls", () =>
    Effect.gen(function*() {
      const { answer, release } = makeHeld()
      const { lanes, requests } = yield* scripted({ answer })
      const calls = [yield* call(lanes, [message("a")])]
      for (const text of ["b", "c", "d"]) calls.push(yield* call(lanes, [message(text)]))
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a"]])
      yield* release()
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a"], ["b", "c", "d"]])
      yield* release()
      const outcomes = yield* Effect.forEach(calls, Fiber.join)
      assert.deepStrictEqual(outcomes.flatMap(summary), [0, 1, 2, 3])
    }))

  it.effect("of different partitions are in flight side by side, never two of one", () =>
    Effect.gen(function*() {
      const partitions = 4
      const { lanes, mostInFlight, requests } = yield* scripted({ partitions, answer: () => Effect.sleep(100) })
      const keys = Array.from({ length: 40 }, (_, i) => `key-${i}`)
      for (let round = 0; round < 3; round++) yield* call(lanes, keys.map((key) => message(key, key)))
      assert.strictEqual(requests.length, partitions)
      yield* pass(1_000)
      assert.strictEqual(mostInFlight(), 1)
      assert.strictEqual(requests.length, 2 * partitions)
      for (const { partition, texts } of requests) {
        for (const key of texts) assert.strictEqual(partitionOf(key!, partitions), partition)
      }
    }))

  it.effect("carry no more than 900,000 bytes, and a larger single message goes alone", () =>
    Effect.gen(function*() {
      const { lanes, requests } = yield* scripted()
      const sized = (text: string, bytes: number) => message(text, "key", "topic", bytes)
      yield* lanes.send(
        [
          sized("a", 400_000),
          sized("b", 400_000),
          sized("c", 400_000),
          sized("d", 2_000_000),
          sized("e", 899_936),
          sized("f", 1)
        ],
        minute
      )
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a", "b"], ["c"], ["d"], ["e"], ["f"]])
    }))

  it.effect("of messages without a key go to the partitions in turn, those of one call together", () =>
    Effect.gen(function*() {
      const { lanes, requests } = yield* scripted({ partitions: 3 })
      for (const call of ["a", "b", "c", "d"]) {
        yield* lanes.send([message(`${call}1`, null), message(`${call}2`, null)], minute)
      }
      assert.deepStrictEqual(requests, [
        { partition: 0, texts: ["a1", "a2"] },
        { partition: 1, texts: ["b1", "b2"] },
        { partition: 2, texts: ["c1", "c2"] },
        { partition: 0, texts: ["d1", "d2"] }
      ])
    }))

  it.effect("of a call that waits to hear how many partitions there are are not overtaken by those of a later one", () =>
    Effect.gen(function*() {
      const heard = Deferred.makeUnsafe<number>()
      let asked = 0
      const { lanes, log } = yield* scripted({
        partitionsOf: () => ++asked === 1 ? Deferred.await(heard) : Effect.succeed(1)
      })
      yield* call(lanes, [message("a")])
      yield* call(lanes, [message("b")])
      assert.deepStrictEqual(log(), [])
      yield* Deferred.succeed(heard, 1)
      yield* settle
      yield* call(lanes, [message("c")])
      assert.deepStrictEqual(log(), ["a", "b", "c"])
    }))

  it("keep the order of the calls for every key, however answers and sizes vary", () => {
    const calls = fc.array(
      fc.record({
        messages: fc.array(fc.tuple(fc.constantFrom("a", "b", "c", "d"), fc.integer({ min: 1, max: 500_000 })), {
          maxLength: 6
        }),
        pause: fc.nat(30)
      }),
      { minLength: 1, maxLength: 15 }
    )
    return fc.assert(
      fc.asyncProperty(calls, fc.array(fc.nat(50), { minLength: 1 }), (calls, delays) =>
        Effect.runPromise(
          Effect.gen(function*() {
            let n = 0
            const { lanes, log, mostInFlight } = yield* scripted({
              partitions: 2,
              answer: () => Effect.sleep(delays[n++ % delays.length]!)
            })
            const sent: Array<readonly [string, string]> = []
            const fibers: Array<Fiber.Fiber<Array<Lanes.Outcome>>> = []
            for (const { messages, pause } of calls) {
              const own = messages.map(([key, bytes], i) => message(`${key} ${sent.length + i}`, key, "topic", bytes))
              sent.push(...own.map(({ key, value }) => [String(key), textOf(value)!] as const))
              fibers.push(yield* call(lanes, own))
              yield* pass(pause)
            }
            yield* pass(60_000)
            const outcomes = (yield* Effect.forEach(fibers, Fiber.join)).flat()
            for (const key of ["a", "b", "c", "d"]) {
              assert.deepStrictEqual(
                log(partitionOf(key, 2)).filter((text) => text!.startsWith(`${key} `)),
                sent.filter(([of]) => of === key).map(([, text]) => text)
              )
            }
            // Each outcome names the place where its message lies.
            outcomes.forEach((outcome, i) => {
              if (Exit.isFailure(outcome)) return assert.fail("nothing failed")
              assert.strictEqual(log(outcome.value.partition)[Number(outcome.value.offset)], sent[i]![1])
            })
            assert.isAtMost(mostInFlight(), 1)
          }).pipe(Effect.scoped, Effect.provide(TestClock.layer()))
        )),
      { numRuns: 40 }
    )
  })
})

describe("failures", () => {
  it.effect("reach every message of the request, and no other", () =>
    Effect.gen(function*() {
      const { answer, release } = makeHeld()
      const { lanes } = yield* scripted({ answer })
      const first = yield* call(lanes, [message("a")])
      const second = yield* call(lanes, [message("b"), message("c")])
      const third = yield* call(lanes, [message("d")])
      yield* release()
      yield* release(unknown)
      assert.deepStrictEqual(summary(yield* Fiber.join(first)), [0])
      assert.deepStrictEqual(summary(yield* Fiber.join(second)), ["ResultUnknown", "ResultUnknown"])
      assert.deepStrictEqual(summary(yield* Fiber.join(third)), ["ResultUnknown"], "it went along")
      const fourth = yield* call(lanes, [message("e")])
      yield* release()
      assert.deepStrictEqual(summary(yield* Fiber.join(fourth)), [1])
    }))

  it.effect("of a piece keep the rest of its call from being sent; other calls go on", () =>
    Effect.gen(function*() {
      const { answer, release } = makeHeld()
      const { lanes, requests } = yield* scripted({ answer })
      const big = (text: string) => message(text, "key", "topic", 500_000)
      const first = yield* call(lanes, [big("a"), big("b"), big("c")])
      const second = yield* call(lanes, [message("d")])
      yield* release(unknown)
      assert.deepStrictEqual(summary(yield* Fiber.join(first)), ["ResultUnknown", "ResultUnknown", "ResultUnknown"])
      yield* release()
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a"], ["d"]])
      assert.deepStrictEqual(summary(yield* Fiber.join(second)), [0])
    }))

  it.effect("of one partition leave the others alone", () =>
    Effect.gen(function*() {
      const [one, other] = [0, 1].map((partition) =>
        Array.from({ length: 100 }, (_, i) => `key-${i}`).find((key) => partitionOf(key, 2) === partition)!
      )
      const { lanes } = yield* scripted({
        partitions: 2,
        answer: ({ partition }) => partition === 0 ? fail(unknown) : Effect.void
      })
      const outcomes = yield* lanes.send([message("a", one), message("b", other), message("c", one)], minute)
      assert.deepStrictEqual(summary(outcomes), ["ResultUnknown", 0, "ResultUnknown"])
    }))

  it.effect("of a topic that does not exist reach only its own messages", () =>
    Effect.gen(function*() {
      const { lanes, requests } = yield* scripted({
        partitionsOf: (topic) => topic === "topic" ? Effect.succeed(1) : fail(new UnknownTopic({ topic }))
      })
      const outcomes = yield* lanes.send(
        [message("a"), message("b", "key", "other"), message("c"), message("d", null, "other")],
        minute
      )
      assert.deepStrictEqual(summary(outcomes), [0, "UnknownTopic", 1, "UnknownTopic"])
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a", "c"]])
      assert.deepStrictEqual(summary(yield* lanes.send([message("b", "key", "other")], minute)), ["UnknownTopic"])
    }))

  it.effect("that are defects of the producer are outcomes too, and the lane goes on", () =>
    Effect.gen(function*() {
      let broken = true
      const { lanes } = yield* scripted({ answer: () => broken ? Effect.die("a bug") : Effect.void })
      const [outcome] = yield* lanes.send([message("a")], minute)
      assert.isTrue(Exit.isFailure(outcome!))
      broken = false
      assert.deepStrictEqual(summary(yield* lanes.send([message("b")], minute)), [0])
    }))
})

describe("a request that is too large", () => {
  const refusing = (refused: (texts: ReadonlyArray<string | null>) => boolean) => ({
    answer: (_: Send, texts: ReadonlyArray<string | null>) => refused(texts) ? fail(tooLarge) : Effect.void
  })

  it.effect("is halved until the oversize message fails alone; the others are sent in order", () =>
    Effect.gen(function*() {
      const { lanes, log } = yield* scripted(refusing((texts) => texts.includes("d")))
      const texts = [..."abcdefgh"]
      const outcomes = yield* lanes.send(texts.map((text) => message(text, text)), minute)
      assert.deepStrictEqual(summary(outcomes), [0, 1, 2, "TooLarge", 3, 4, 5, 6])
      assert.deepStrictEqual(log(), [..."abcefgh"])
    }))

  it.effect("that the broker refuses for one message fails for that one alone", () =>
    Effect.gen(function*() {
      const refused = new Refused({ operation: "send", detail: "test", cause: new Error("test") })
      const { lanes, log } = yield* scripted({
        answer: (_, texts) => texts.includes("d") ? fail(refused) : Effect.void
      })
      const texts = [..."abcdefgh"]
      const outcomes = yield* lanes.send(texts.map((text) => message(text, text)), minute)
      assert.deepStrictEqual(summary(outcomes), [0, 1, 2, "Refused", 3, 4, 5, 6])
      assert.deepStrictEqual(log(), [..."abcefgh"])
    }))

  it.effect("because of its number of messages is sent in pieces, and nothing fails", () =>
    Effect.gen(function*() {
      const { lanes, log } = yield* scripted(refusing((texts) => texts.length > 3))
      const texts = [..."abcdefghij"]
      const outcomes = yield* lanes.send(texts.map((text) => message(text)), minute)
      assert.deepStrictEqual(summary(outcomes), texts.map((_, i) => i))
      assert.deepStrictEqual(log(), texts)
    }))

  it.effect("with calls of several fibers fails only the call with the oversize message", () =>
    Effect.gen(function*() {
      const held = makeHeld()
      let first = true
      const { lanes } = yield* scripted({
        answer: (_, texts) => {
          if (texts.includes("big")) return fail(tooLarge)
          if (!first) return Effect.void
          first = false
          return held.answer()
        }
      })
      const calls = [yield* call(lanes, [message("a")])]
      for (const text of ["b", "big", "c"]) calls.push(yield* call(lanes, [message(text, text)]))
      yield* held.release()
      const outcomes = yield* Effect.forEach(calls, Fiber.join)
      assert.deepStrictEqual(outcomes.map(summary), [[0], [1], ["TooLarge"], [2]])
    }))

  // The relay deletes what was acknowledged and sends the rest again: what stands behind must not overtake it.
  it.effect("is not sent on behind a half that failed for another reason", () =>
    Effect.gen(function*() {
      let failures = 1
      const { lanes, log } = yield* scripted({
        answer: (_, texts) => texts.length > 2 ? fail(tooLarge) : failures-- > 0 ? fail(unknown) : Effect.void
      })
      const outcomes = yield* lanes.send([..."abcd"].map((text) => message(text)), minute)
      assert.deepStrictEqual(log(), [])
      assert.deepStrictEqual(summary(outcomes), ["ResultUnknown", "ResultUnknown", "ResultUnknown", "ResultUnknown"])
    }))

  it.effect("does not let later messages of the oversize one's key overtake it", () =>
    Effect.gen(function*() {
      const { lanes, log } = yield* scripted(refusing((texts) => texts.includes("b")))
      yield* lanes.send([message("a", "x"), message("b", "x"), message("c", "x"), message("d", "y")], minute)
      assert.deepStrictEqual(log(), ["a", "d"])
    }))
})

describe("time", () => {
  it.effect("that is left goes along with the request", () =>
    Effect.gen(function*() {
      const { answer, release } = makeHeld()
      const { lanes, timeouts } = yield* scripted({ answer })
      yield* call(lanes, [message("a")], Duration.seconds(60))
      yield* call(lanes, [message("b")], Duration.seconds(60))
      yield* pass(20_000)
      yield* release()
      assert.deepStrictEqual(timeouts, [60_000, 40_000])
    }))

  it.effect("that runs out while a message waits fails it as not sent, once its turn would have come", () =>
    Effect.gen(function*() {
      const { answer, release } = makeHeld()
      const { lanes, requests } = yield* scripted({ answer })
      yield* call(lanes, [message("a")])
      const waiting = yield* call(lanes, [message("b"), message("c")], Duration.seconds(5))
      const patient = yield* call(lanes, [message("d")])
      yield* pass(5_000)
      yield* release()
      assert.deepStrictEqual(summary(yield* Fiber.join(waiting)), ["Unreachable", "Unreachable"])
      yield* release()
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a"], ["d"]])
      assert.deepStrictEqual(summary(yield* Fiber.join(patient)), [1])
    }))

  // "Ends by `timeout`": the deadline is looked at only when the request in front has its answer.
  it.effect("that runs out while a message waits ends its call then, however long the request in front takes", () =>
    Effect.gen(function*() {
      const { answer } = makeHeld()
      const { lanes } = yield* scripted({ answer })
      yield* call(lanes, [message("a")], Duration.minutes(2))
      const waiting = yield* call(lanes, [message("b")], Duration.seconds(5))
      yield* pass(5_000)
      assert.isDefined(waiting.pollUnsafe())
    }))

  // A merged request takes the shortest patience of its calls.
  it.effect("of an impatient call is not that of the calls with which it shares a request", () =>
    Effect.gen(function*() {
      const held = makeHeld()
      let first = true
      const { lanes } = yield* scripted({
        answer: ({ timeout }) => {
          if (first) {
            first = false
            return held.answer()
          }
          // The broker answers after 10 s.
          return Duration.toSeconds(timeout) < 10 ? fail(unknown) : Effect.void
        }
      })
      yield* call(lanes, [message("a")], minute)
      const patient = yield* call(lanes, [message("b")], minute)
      yield* call(lanes, [message("c")], Duration.seconds(5))
      yield* held.release()
      assert.deepStrictEqual(summary(yield* Fiber.join(patient)), [1])
    }))
})

describe("memory", () => {
  const sized = (text: string, bytes: number) => message(text, "key", "topic", bytes)

  it.effect("is bounded: who finds the buffer full waits, and gets in in the order of the calls", () =>
    Effect.gen(function*() {
      const { answer, release } = makeHeld()
      const { lanes, requests } = yield* scripted({ answer })
      yield* call(lanes, [sized("a", 60)], minute, 100)
      yield* call(lanes, [sized("b", 60)], minute, 100)
      // It would fit, and must not overtake.
      const last = yield* call(lanes, [sized("c", 10)], minute, 100)
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a"]])
      yield* release()
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a"], ["b", "c"]])
      yield* release()
      assert.deepStrictEqual(summary(yield* Fiber.join(last)), [2])
    }))

  it.effect("lets a call that is larger than the buffer in when nothing else is there", () =>
    Effect.gen(function*() {
      const { answer, release } = makeHeld()
      const { lanes, requests } = yield* scripted({ answer })
      yield* call(lanes, [sized("a", 60)], minute, 100)
      yield* call(lanes, [sized("b", 200), sized("c", 200)], minute, 100)
      yield* call(lanes, [sized("d", 1)], minute, 100)
      yield* release()
      yield* release()
      yield* release()
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a"], ["b", "c"], ["d"]])
    }))

  it.effect("that does not come free in time fails the call as not sent, and says what it waited for", () =>
    Effect.gen(function*() {
      const { answer, release } = makeHeld()
      const { lanes, log } = yield* scripted({ answer })
      yield* call(lanes, [sized("a", 60)], minute, 100)
      const late = yield* call(lanes, [sized("b", 60)], Duration.seconds(5), 100)
      const next = yield* call(lanes, [sized("c", 40)], minute, 100)
      yield* pass(5_000)
      const [outcome] = yield* Fiber.join(late)
      assert.include(Exit.isFailure(outcome!) ? String(outcome.cause) : "", "room in the publisher's buffer")
      yield* release()
      yield* release()
      assert.deepStrictEqual(summary(yield* Fiber.join(next)), [1], "it fits now that the one in front is gone")
      assert.deepStrictEqual(log(), ["a", "c"])
    }))

  it.effect("that an interrupted call held, or would have held, goes to the others", () =>
    Effect.gen(function*() {
      const { answer } = makeHeld()
      const { lanes, requests } = yield* scripted({ partitions: 3, answer })
      const texts = () => requests.flatMap(({ texts }) => texts)
      const inPartition = (partition: number, text: string, bytes: number): Lanes.Message => ({
        ...message(text, null, "topic", bytes),
        partition
      })
      const holder = yield* call(lanes, [inPartition(0, "a", 60)], minute, 100)
      const waiting = yield* call(lanes, [inPartition(0, "b", 60)], minute, 100)
      yield* call(lanes, [inPartition(1, "c", 40)], minute, 100)
      yield* call(lanes, [inPartition(2, "d", 40)], minute, 100)
      assert.deepStrictEqual(texts(), ["a"])
      yield* Effect.andThen(Fiber.interrupt(waiting), settle)
      assert.deepStrictEqual(texts(), ["a", "c"])
      yield* Effect.andThen(Fiber.interrupt(holder), settle)
      assert.deepStrictEqual(texts(), ["a", "c", "d"])
    }))
})

describe("the end of the Layer", () => {
  it.effect("ends the calls that are open, and every later one at once", () =>
    Effect.gen(function*() {
      const { answer } = makeHeld()
      const scope = yield* Scope.make()
      const { lanes } = yield* Scope.provide(scripted({ answer }), scope)
      const sent = yield* call(lanes, [message("a")], minute, 10)
      const queued = yield* call(lanes, [message("b")])
      const waiting = yield* call(lanes, [message("c")], minute, 10)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(summary(yield* Fiber.join(sent)), ["ResultUnknown"])
      assert.deepStrictEqual(summary(yield* Fiber.join(queued)), ["Unreachable"])
      assert.deepStrictEqual(summary(yield* Fiber.join(waiting)), ["Unreachable"])
      assert.deepStrictEqual(summary(yield* lanes.send([message("d")], minute)), ["Unreachable"])
    }))

  it.effect("ends a call that waits to hear of its topic as not sent", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { lanes } = yield* Scope.provide(scripted({ partitionsOf: () => Effect.never }), scope)
      const waiting = yield* call(lanes, [message("a")])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(summary(yield* Fiber.join(waiting)), ["Unreachable"])
    }))
})

describe("interruption", () => {
  it.effect("before a message has left keeps it from leaving; those of others leave", () =>
    Effect.gen(function*() {
      const { answer, release } = makeHeld()
      const { lanes, requests } = yield* scripted({ answer })
      yield* call(lanes, [message("a")])
      const interrupted = yield* call(lanes, [message("b")])
      const other = yield* call(lanes, [message("c")])
      yield* Fiber.interrupt(interrupted)
      yield* release()
      yield* release()
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a"], ["c"]])
      assert.deepStrictEqual(summary(yield* Fiber.join(other)), [1])
    }))

  it.effect("while a message is on its way leaves the request alone, and its later pieces unsent", () =>
    Effect.gen(function*() {
      const { answer, release } = makeHeld()
      const { lanes, log, requests } = yield* scripted({ answer })
      const big = (text: string) => message(text, "key", "topic", 500_000)
      const interrupted = yield* call(lanes, [big("a"), big("b")])
      yield* Fiber.interrupt(interrupted)
      const other = yield* call(lanes, [message("c")])
      yield* release()
      assert.deepStrictEqual(log(), ["a"])
      yield* release()
      assert.deepStrictEqual(requests.map(({ texts }) => texts), [["a"], ["c"]])
      assert.deepStrictEqual(summary(yield* Fiber.join(other)), [1])
    }))
})

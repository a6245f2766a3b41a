/** Failures: what is tried again, what is given up on, and what a dead letter says. */
import { assert } from "@effect/vitest"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Consumer from "../../../src/Consumer.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import * as Publisher from "../../../src/Publisher.ts"
import { cases, type It } from "../features.ts"
import {
  blocking,
  type Call,
  callOf,
  deadLetters,
  freshGroup,
  freshTopic,
  type FrontFeatures,
  headerText,
  items,
  makeLog,
  member,
  numbers,
  publishAll,
  retries,
  savingAtOnce,
  type Services,
  text,
  upTo
} from "./support.ts"

class CardRefused extends Data.TaggedError("CardRefused")<{ readonly card: string }> {
  override get message() {
    return `card ${this.card} was refused`
  }
}
class AlreadyPaid extends Data.TaggedError("AlreadyPaid")<{}> {}
class Busy extends Data.TaggedError("Busy")<{}> {}

export const failures = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  check(
    "a dead letter is the record as it came, with who gave up, why, after how many attempts, and where it lay",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(3)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const { offset, partition } = yield* Publisher.publish(topic, { key: "ada", n: 1 }, {
          id: "order-1",
          headers: { tenant: "t-1" }
        })
        const running = yield* member(group, [
          Consumer.idempotent(
            topic,
            (event) => Effect.andThen(log.add(callOf(event)), Effect.fail(new CardRefused({ card: "4711" }))),
            {
              name: "charge",
              onFailure: { ...FailurePolicy.save(), retry: retries(2) }
            }
          )
        ])
        yield* log.untilCount(3)
        yield* running.stop
        const letters = yield* deadLetters(topic, group)
        assert.strictEqual(letters.length, 1)
        const letter = letters[0]!
        assert.strictEqual(letter.topic, `${topic.name}.${group}.dead-letter`)
        assert.strictEqual(letter.partition, partition)
        assert.strictEqual(text(letter.key), "ada")
        assert.deepStrictEqual(JSON.parse(text(letter.value)!), { key: "ada", n: 1 })
        const header = (name: string) => headerText(letter, name)
        assert.strictEqual(header("ce_id"), "order-1")
        assert.strictEqual(header("tenant"), "t-1")
        assert.strictEqual(header("dl_handler"), "charge")
        assert.strictEqual(header("dl_group"), group)
        assert.strictEqual(header("dl_error_tag"), "CardRefused")
        assert.strictEqual(header("dl_error_message"), "card 4711 was refused")
        assert.strictEqual(header("dl_attempts"), "3")
        assert.strictEqual(header("dl_original_topic"), topic.name)
        assert.strictEqual(header("dl_original_partition"), String(partition))
        assert.strictEqual(header("dl_original_offset"), String(offset))
        assert.match(header("dl_original_timestamp")!, /^\d+$/)
        assert.isAtMost(Date.parse(header("dl_first_failure")!), Date.parse(header("dl_last_failure")!))
        assert.deepStrictEqual(log.all.map((call) => call.attempt), [1, 2, 3])
      })
  )

  check(
    "a permanent failure is not tried again, an ignored one counts as done, others are retried",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const handle = (n: number, attempt: number): Effect.Effect<void, CardRefused | AlreadyPaid | Busy> =>
          n === 0
            ? Effect.fail(new CardRefused({ card: "1" }))
            : n === 1
            ? Effect.fail(new AlreadyPaid())
            : n === 2 && attempt < 3
            ? Effect.fail(new Busy())
            : Effect.void
        yield* publishAll(topic, items(4, 1))
        const running = yield* member(group, [
          Consumer.idempotent(
            topic,
            (event) => Effect.andThen(log.add(callOf(event)), handle(event.payload.n, event.attempt)),
            {
              onFailure: {
                ...FailurePolicy.save(),
                retry: retries(5),
                permanent: (error) => error._tag === "CardRefused",
                ignore: (error) => error._tag === "AlreadyPaid"
              }
            }
          )
        ])
        yield* log.untilCount(6)
        yield* running.stop
        assert.deepStrictEqual(numbers(log.all), [0, 1, 2, 2, 2, 3])
        const letters = yield* deadLetters(topic, group)
        assert.deepStrictEqual(
          letters.map((letter) => [headerText(letter, "dl_error_tag"), headerText(letter, "dl_attempts")]),
          [
            ["CardRefused", "1"]
          ]
        )
      })
  )

  check(
    "a defect is a failure of its event, saved at once, and not the end of the consumer",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* publishAll(topic, items(3, 3))
        const running = yield* member(group, [
          Consumer.idempotent(topic, (event) => {
            if (event.payload.n === 1) {
              return Effect.andThen(
                log.add(callOf(event)),
                Effect.sync(() => {
                  throw new TypeError("x is not a function")
                })
              )
            }
            return log.add(callOf(event))
          }, { onFailure: { ...FailurePolicy.save(), retry: retries(1) } })
        ])
        yield* log.untilCount(3)
        yield* publishAll(topic, items(1, 1, 3))
        yield* log.untilCount(4)
        yield* running.stop
        assert.sameMembers(Array.from(numbers(log.all)), [0, 1, 2, 3])
        const [letter, ...more] = yield* deadLetters(topic, group)
        assert.deepStrictEqual(more, [])
        assert.strictEqual(headerText(letter!, "dl_error_tag"), "TypeError")
        assert.strictEqual(headerText(letter!, "dl_error_message"), "x is not a function")
        assert.strictEqual(headerText(letter!, "dl_attempts"), "1")
      })
  )

  check("a handler that throws while it makes its effect fails its event only", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const log = makeLog<Call>()
      yield* publishAll(topic, items(3, 3))
      const running = yield* member(group, [
        Consumer.idempotent(topic, (event) => {
          if (event.payload.n === 1) throw new RangeError("thrown at once")
          return log.add(callOf(event))
        }, { onFailure: savingAtOnce })
      ])
      yield* log.untilCount(2)
      yield* publishAll(topic, items(1, 1, 3))
      yield* log.untilCount(3)
      yield* running.stop
      assert.sameMembers(Array.from(numbers(log.all)), [0, 2, 3])
      const letters = yield* deadLetters(topic, group)
      assert.deepStrictEqual(letters.map((letter) => headerText(letter, "dl_error_tag")), ["RangeError"])
    }))

  check(
    "a handler that interrupts itself fails its event only, and the consumer goes on",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* publishAll(topic, items(3, 3))
        const running = yield* member(group, [
          Consumer.idempotent(topic, (event) => event.payload.n === 1 ? Effect.interrupt : log.add(callOf(event)), {
            concurrency: 1,
            onFailure: savingAtOnce
          })
        ])
        yield* log.untilCount(2)
        yield* publishAll(topic, items(4, 4, 3))
        yield* log.untilCount(6)
        yield* running.stop
        assert.sameMembers(Array.from(numbers(log.all)), [0, 2, 3, 4, 5, 6])
        const letters = yield* deadLetters(topic, group)
        assert.deepStrictEqual(letters.map((letter) => JSON.parse(text(letter.value)!).n), [1])
      })
  )

  check(
    "of two handlers of one topic the one that fails gets a dead letter of its own, the other none",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* publishAll(topic, items(20, 10))
        const running = yield* member(group, [
          Consumer.idempotent(topic, (event) => log.add(callOf(event, "", "bill")), { name: "bill" }),
          Consumer.idempotent(topic, (event) =>
            Effect.andThen(
              log.add(callOf(event, "", "ship")),
              event.payload.n === 7 ? Effect.fail("no such address") : Effect.void
            ), { name: "ship", onFailure: savingAtOnce })
        ])
        yield* log.untilCount(40)
        yield* running.stop
        const letters = yield* deadLetters(topic, group)
        assert.deepStrictEqual(letters.map((letter) => headerText(letter, "dl_handler")), ["ship"])
        assert.strictEqual(letters.length, 1)
        assert.strictEqual(log.all.filter((call) => call.n === 7 && call.handler === "bill").length, 1)
      })
  )

  const dependency = (groups: "one group" | "two groups") =>
    Effect.gen(function*() {
      const [first, second] = [yield* freshTopic(1), yield* freshTopic(1)]
      const group = yield* freshGroup
      const other = groups === "one group" ? group : yield* freshGroup
      const log = makeLog<string>()
      const state = { secondWasRejected: false, firstSucceeded: false }
      const onFirst = Consumer.idempotent(first, () =>
        Effect.suspend(() => {
          if (!state.secondWasRejected) return Effect.fail("not before the second was rejected")
          state.firstSucceeded = true
          return log.add("first")
        }), { onFailure: blocking })
      const onSecond = Consumer.idempotent(second, () =>
        Effect.suspend(() => {
          if (state.firstSucceeded) return log.add("second")
          state.secondWasRejected = true
          return Effect.fail("not before the first succeeded")
        }), { onFailure: blocking })
      if (groups === "one group") yield* member(group, [onFirst, onSecond])
      else {
        yield* member(group, [onFirst])
        yield* member(other, [onSecond])
      }
      yield* publishAll(first, items(1, 1))
      yield* publishAll(second, items(1, 1))
      yield* log.untilCount(2)
      assert.deepStrictEqual(log.all, ["first", "second"])
    })

  for (const groups of ["one group", "two groups"] as const) {
    check(`two events that wait for each other's handlers both end under block, in ${groups}`, () => dependency(groups))
  }

  check("a handler that hangs is interrupted by its timeout, and its event is saved", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const log = makeLog<Call>()
      const interrupted = makeLog<number>()
      yield* publishAll(topic, items(2, 2))
      const running = yield* member(group, [
        Consumer.idempotent(topic, (event) =>
          event.payload.n === 0
            ? Effect.onInterrupt(Effect.never, () => interrupted.add(event.payload.n))
            : log.add(callOf(event)), { onFailure: { ...savingAtOnce, timeout: "50 millis" } })
      ])
      yield* log.untilCount(1)
      yield* interrupted.untilCount(1)
      yield* publishAll(topic, items(1, 1, 2))
      yield* log.untilCount(2)
      yield* running.stop
      const letters = yield* deadLetters(topic, group)
      assert.deepStrictEqual(letters.map((letter) => headerText(letter, "dl_error_tag")), ["HandlerTimeout"])
      assert.deepStrictEqual(interrupted.all, [0])
    }))

  check("an event that is discarded is skipped, and those behind it in its key are not", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const log = makeLog<Call>()
      yield* publishAll(topic, items(5, 1))
      const running = yield* member(group, [
        Consumer.idempotent(topic, (event) => event.payload.n === 2 ? Effect.fail("never") : log.add(callOf(event)), {
          onFailure: { ...FailurePolicy.discard(), retry: retries(1) }
        })
      ])
      yield* log.untilCount(4)
      yield* running.stop
      assert.deepStrictEqual(numbers(log.all), [0, 1, 3, 4])
      const again = makeLog<Call>()
      yield* publishAll(topic, items(1, 1, 5))
      yield* member(group, [Consumer.idempotent(topic, (event) => again.add(callOf(event)), { onFailure: blocking })])
      yield* again.untilCount(1)
      assert.deepStrictEqual(numbers(again.all), [5])
    }))

  check("while an event backs off its key waits, and the other keys go on", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const log = makeLog<Call>()
      let healed = false
      yield* publishAll(topic, items(40, 4))
      yield* member(group, [
        Consumer.idempotent(topic, (event) =>
          Effect.suspend(() =>
            event.key === "key-0" && !healed ? Effect.fail("not yet") : log.add(callOf(event))
          ), {
          concurrency: 2,
          onFailure: blocking
        })
      ])
      yield* log.untilCount(30)
      assert.isTrue(log.all.every((call) =>
        call.key !== "key-0"
      ))
      healed = true
      yield* log.untilCount(40)
      assert.deepStrictEqual(numbers(log.all.slice(30)), upTo(10).map((n) => n * 4))
    }))
}

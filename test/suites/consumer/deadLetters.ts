/** Dead letters: what is kept, what comes back to whom, and what becomes of it. */
import { assert } from "@effect/vitest"
import * as Data from "effect/Data"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { Broker, BrokerError, NotAllowed } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import * as DeadLetter from "../../../src/DeadLetter.ts"
import type * as Event from "../../../src/Event.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import * as Publisher from "../../../src/Publisher.ts"
import { sendRecords } from "../broker/support.ts"
import { askUntil, cases, type It } from "../features.ts"
import {
  ascending,
  blocking,
  type Call,
  callOf,
  freshGroup,
  freshPage,
  freshTopic,
  type FrontFeatures,
  type Item,
  items,
  type ItemTopic,
  Ledger,
  makeLog,
  member,
  numbers,
  publishAll,
  retries,
  savingAtOnce,
  type Services,
  upTo,
  withoutCommits
} from "./support.ts"

class NoMoney extends Data.TaggedError("NoMoney")<{}> {}
class NoAddress extends Data.TaggedError("NoAddress")<{}> {}

/** Gives up at the first failure, and comes back after these delays. */
const later = (...delays: ReadonlyArray<FailurePolicy.FailurePolicy<unknown>["timeout"]>) => ({
  ...FailurePolicy.retryLater({ delays }),
  retry: retries(0)
})

export const deadLetters = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  const lettersOf = (topic: ItemTopic, group: string, filter?: DeadLetter.Filter) =>
    Stream.runCollect(DeadLetter.list(topic, group, filter))

  /** Waits until the open letters satisfy a test, and returns them. */
  const untilLetters = (
    topic: ItemTopic,
    group: string,
    what: string,
    test: (letters: ReadonlyArray<DeadLetter.Letter>) => boolean
  ) => askUntil(features, what, lettersOf(topic, group), test)

  /** A handler that keeps its calls, and fails for as long as `broken` says so. */
  const breakable = (topic: ItemTopic, name: string, policy: FailurePolicy.FailurePolicy<unknown> = savingAtOnce) => {
    const calls = makeLog<Call>()
    const state: { broken: (n: number) => boolean } = { broken: () => true }
    const consumer = Consumer.idempotent(topic, (event) =>
      Effect.andThen(
        calls.add(callOf(event, "", name)),
        Effect.suspend(() => state.broken(event.payload.n) ? Effect.fail(new NoMoney()) : Effect.void)
      ), { name, onFailure: policy })
    return { calls, consumer, state }
  }

  check(
    "a replayed letter goes to its handler and no other, as the event that it was, and then is gone",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const group = yield* freshGroup
        const bill = breakable(topic, "bill")
        const ship = breakable(topic, "ship")
        ship.state.broken = () => false
        const events = makeLog<Event.Event<Item>>()
        const audit = Consumer.idempotent(topic, events.add, { name: "audit" })
        yield* member(group, [bill.consumer, ship.consumer, audit])
        yield* Publisher.publish(topic, { key: "ada", n: 1 }, { id: "order-1", headers: { tenant: "t-1" } })
        const [letter] = yield* untilLetters(topic, group, "a letter", (all) => all.length === 1)
        assert.strictEqual(letter!.state, "saved")
        assert.strictEqual(letter!.handler, "bill")
        assert.strictEqual(letter!.messageId, "order-1")
        assert.deepStrictEqual([letter!.error.tag, letter!.attempts, letter!.rounds, letter!.replays], [
          "NoMoney",
          1,
          0,
          0
        ])
        bill.state.broken = () => false
        assert.deepStrictEqual(yield* DeadLetter.replay(topic, group, { id: letter!.id }), {
          replayed: 1,
          underWay: 0,
          refused: 0
        })
        yield* bill.calls.untilCount(2)
        yield* untilLetters(topic, group, "no letter", (all) => all.length === 0)
        const [first, again] = bill.calls.all
        assert.deepStrictEqual(again, first)
        assert.strictEqual(ship.calls.all.length, 1)
        const [event] = events.all
        assert.strictEqual(events.all.length, 1)
        const decoded = yield* DeadLetter.decode(topic, letter!)
        assert.deepStrictEqual(decoded.payload, event!.payload)
        assert.deepStrictEqual(
          [decoded.id, decoded.key, decoded.partition, decoded.offset, decoded.type],
          [event!.id, event!.key, event!.partition, event!.offset, event!.type]
        )
        assert.isTrue(DateTime.Equivalence(decoded.time, event!.time))
        assert.sameMembers(Object.keys(letter!.headers), Object.keys(event!.headers))
      })
  )

  check(
    "a letter that fails again stays one letter, which counts its rounds, replays and attempts",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const { calls, consumer, state } = breakable(topic, "bill", { ...savingAtOnce, retry: retries(1) })
        yield* member(group, [consumer])
        yield* publishAll(topic, items(1, 1))
        const [first] = yield* untilLetters(topic, group, "a letter", (all) => all.length === 1)
        yield* DeadLetter.replay(topic, group, {})
        const [second, ...more] = yield* untilLetters(topic, group, "it failed again", (all) => all[0]?.rounds === 1)
        assert.deepStrictEqual(more, [])
        assert.strictEqual(second!.id, first!.id)
        assert.deepStrictEqual([second!.state, second!.replays, second!.attempts], ["saved", 1, 4])
        assert.deepStrictEqual(second!.firstFailure, first!.firstFailure)
        assert.deepStrictEqual([second!.offset, second!.time], [first!.offset, first!.time])
        assert.strictEqual(calls.all.length, 4)
        state.broken = () => false
        yield* DeadLetter.replay(topic, group, {})
        yield* untilLetters(topic, group, "no letter", (all) => all.length === 0)
        assert.strictEqual(calls.all.length, 5)
      })
  )

  check("a letter is replayed once at a time, and twenty times at most, unless forced", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const { calls, consumer } = breakable(topic, "bill")
      const running = yield* member(group, [consumer])
      yield* publishAll(topic, items(1, 1))
      yield* untilLetters(topic, group, "a letter", (all) => all.length === 1)
      yield* running.stop
      const replay = (force: boolean) => DeadLetter.replay(topic, group, {}, { force })
      assert.deepStrictEqual(yield* replay(false), { replayed: 1, underWay: 0, refused: 0 })
      assert.deepStrictEqual(yield* replay(false), { replayed: 0, underWay: 1, refused: 0 })
      for (let n = 1; n < DeadLetter.maxReplays; n++) yield* replay(true)
      const [letter] = yield* lettersOf(topic, group)
      assert.deepStrictEqual([letter!.state, letter!.replays], ["replaying", DeadLetter.maxReplays])
      // Nineteen of the twenty ask for the letter that the first has brought back already.
      yield* member(group, [consumer])
      yield* untilLetters(topic, group, "failed again", (all) => all[0]?.state === "saved")
      assert.strictEqual(calls.all.length, 2)
      assert.deepStrictEqual(yield* replay(false), { replayed: 0, underWay: 0, refused: 1 })
      assert.deepStrictEqual(yield* replay(true), { replayed: 1, underWay: 0, refused: 0 })
      yield* calls.untilCount(3)
    }))

  check(
    "a replayed letter that exactly-once has applied already is recognised, and is done",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const page = yield* freshPage
        const ledger = yield* Ledger
        const runs = makeLog<number>()
        let broken = true
        const consumer = Consumer.exactlyOnce(topic, (event) =>
          Effect.gen(function*() {
            yield* runs.add(event.payload.n)
            yield* ledger.write(page, String(event.payload.n))
            if (broken) return yield* new NoMoney()
          }), { onFailure: savingAtOnce })
        yield* publishAll(topic, items(1, 1))
        const running = yield* member(group, [consumer])
        yield* untilLetters(topic, group, "a letter", (all) => all.length === 1)
        assert.deepStrictEqual(yield* ledger.read(page), [])
        yield* running.stop
        broken = false
        yield* DeadLetter.replay(topic, group, {})
        // The same once more from outside, as after a crash between the handler's commit and the marker.
        const partition = 0
        const letterTopic = `${topic.name}.${group}.dead-letter`
        const chunks = yield* Broker.use((broker) => Stream.runCollect(broker.read(letterTopic)))
        const copy = chunks.flatMap(({ records }) => records).at(-1)!
        const again = yield* member(group, [consumer])
        yield* untilLetters(topic, group, "no letter", (all) => all.length === 0)
        yield* sendRecords(letterTopic, partition, [copy])
        yield* untilLetters(topic, group, "still none", (all) => all.length === 0)
        yield* again.stop
        assert.deepStrictEqual(runs.all, [0, 0])
        assert.deepStrictEqual(yield* ledger.read(page), ["0"])
      })
  )

  check("a dropped letter is listed no more, and a replay does not find it", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const { calls, consumer } = breakable(topic, "bill")
      yield* member(group, [consumer])
      yield* publishAll(topic, items(3, 3))
      const letters = yield* untilLetters(topic, group, "three letters", (all) => all.length === 3)
      const { id } = letters[1]!
      assert.strictEqual(yield* DeadLetter.drop(topic, group, { id }), 1)
      assert.strictEqual(yield* DeadLetter.drop(topic, group, { id }), 0)
      assert.deepStrictEqual((yield* lettersOf(topic, group)).map((letter) => letter.id), [
        letters[0]!.id,
        letters[2]!.id
      ])
      const error = yield* Effect.flip(DeadLetter.show(topic, group, id))
      assert.strictEqual(error._tag, "LetterNotFound")
      assert.strictEqual((yield* DeadLetter.show(topic, group, letters[2]!.id)).key, letters[2]!.key)
      assert.strictEqual((yield* DeadLetter.replay(topic, group, { id })).replayed, 0)
      assert.strictEqual(yield* DeadLetter.drop(topic.name, group, {}), 2)
      assert.deepStrictEqual(yield* lettersOf(topic, group), [])
      assert.strictEqual(calls.all.length, 3)
    }))

  check("letters are found by handler, error, key, id, state and time", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const group = yield* freshGroup
      const fail = (name: string, error: NoMoney | NoAddress, policy: FailurePolicy.FailurePolicy<unknown>) =>
        Consumer.idempotent(topic, () => Effect.fail(error), { name, onFailure: policy })
      const before = yield* DateTime.now
      yield* member(group, [
        fail("bill", new NoMoney(), savingAtOnce),
        fail("ship", new NoAddress(), later("1 hour"))
      ])
      yield* publishAll(topic, items(4, 2))
      const all = yield* untilLetters(topic, group, "eight letters", (all) => all.length === 8)
      const after = DateTime.add(yield* DateTime.now, { milliseconds: 1 })
      const count = (filter: DeadLetter.Filter) => Effect.map(lettersOf(topic, group, filter), (found) => found.length)
      assert.strictEqual(yield* count({ handler: "bill" }), 4)
      assert.strictEqual(yield* count({ errorTag: "NoAddress" }), 4)
      assert.strictEqual(yield* count({ key: "key-1" }), 4)
      assert.strictEqual(yield* count({ key: null }), 0)
      assert.strictEqual(yield* count({ state: "waiting" }), 4)
      assert.strictEqual(yield* count({ state: "waiting", handler: "bill" }), 0)
      assert.strictEqual(yield* count({ id: all[3]!.id }), 1)
      assert.strictEqual(yield* count({ id: [all[3]!.id, all[5]!.id, "no such"] }), 2)
      assert.strictEqual(yield* count({ from: before, to: after }), 8)
      assert.strictEqual(yield* count({ to: before }), 0)
      assert.strictEqual(yield* count({ from: after }), 0)
    }))

  check("a letter with a long delay does not hold back one that is due earlier", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const slow = breakable(topic, "slow", later("1 hour"))
      const quick = breakable(topic, "quick", later("100 millis", "1 hour"))
      yield* member(group, [slow.consumer, quick.consumer])
      yield* publishAll(topic, items(20, 5))
      yield* quick.calls.untilCount(40)
      assert.strictEqual(slow.calls.all.length, 20)
      assert.deepStrictEqual(ascending(numbers(quick.calls.all)), upTo(20).flatMap((n) => [n, n]))
      const letters = yield* untilLetters(
        topic,
        group,
        "all wait",
        (all) => all.filter(({ rounds }) => rounds === 1).length === 20
      )
      assert.deepStrictEqual([letters.length, letters.every(({ state }) => state === "waiting")], [40, true])
      for (const { due, handler, lastFailure, rounds } of letters) {
        assert.strictEqual(rounds, handler === "slow" ? 0 : 1)
        assert.isAtLeast(due!.epochMilliseconds - lastFailure.epochMilliseconds, 3_600_000)
      }
    }))

  check(
    "what waits survives its member, comes back when it is due, and after the last delay stays",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const delays = ["200 millis", "300 millis"] as const
        const { calls, consumer } = breakable(topic, "bill", later(...delays))
        const first = yield* member(group, [consumer])
        yield* publishAll(topic, items(2, 2))
        yield* calls.untilCount(2)
        yield* first.stop
        const second = yield* member(group, [consumer])
        yield* calls.untilCount(4)
        yield* second.stop
        yield* member(group, [consumer])
        const letters = yield* untilLetters(
          topic,
          group,
          "both are saved",
          (all) => all.length === 2 && all.every(({ state }) => state === "saved")
        )
        assert.strictEqual(calls.all.length, 6)
        assert.deepStrictEqual(letters.map(({ attempts, rounds }) => [attempts, rounds]), [[3, 2], [3, 2]])
      })
  )

  check(
    "what came back once and was applied is not applied again after a clean stop, whatever waits below it",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const slow = breakable(topic, "slow", later("1 hour"))
        const quick = breakable(topic, "quick", later("50 millis"))
        // The first attempt at each fails, and what comes back succeeds.
        quick.state.broken = (n) => n < 5 && quick.calls.all.filter((call) => call.n === n).length === 1
        const first = yield* member(group, [slow.consumer, quick.consumer])
        yield* publishAll(topic, items(5, 5))
        yield* quick.calls.untilCount(10)
        yield* untilLetters(
          topic,
          group,
          "only the slow wait",
          (all) => all.length === 5 && all.every(({ handler }) => handler === "slow")
        )
        yield* first.stop
        const counts = [slow.calls.all.length, quick.calls.all.length]
        yield* member(group, [slow.consumer, quick.consumer])
        // Behind everything that could come again.
        yield* publishAll(topic, items(1, 1, 5))
        yield* DeadLetter.replay(topic, group, { handler: "slow", key: "key-0" })
        yield* slow.calls.until("it was replayed", (all) => all.slice(counts[0]).some(({ n }) => n === 0))
        yield* quick.calls.until("the last", (all) => all.some(({ n }) => n === 5))
        assert.deepStrictEqual(ascending(numbers(quick.calls.all.slice(counts[1]))), [5])
      })
  )

  check(
    "a waiting letter can be dropped, or replayed before it is due",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const { calls, consumer, state } = breakable(topic, "bill", later("1 hour"))
        yield* member(group, [consumer])
        yield* publishAll(topic, items(2, 2))
        const letters = yield* untilLetters(topic, group, "two wait", (all) => all.length === 2)
        state.broken = () => false
        yield* DeadLetter.drop(topic, group, { id: letters[0]!.id })
        yield* DeadLetter.replay(topic, group, { id: letters[1]!.id })
        yield* calls.untilCount(3)
        yield* untilLetters(topic, group, "none is left", (all) => all.length === 0)
        assert.deepStrictEqual(ascending(numbers(calls.all.slice(0, 2))), [0, 1])
        assert.strictEqual(calls.all[2]!.key, letters[1]!.key)
      })
  )

  check("what no retry can mend is saved at once under retryLater", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const handle = ({ payload: { n } }: Event.Event<Item>): Effect.Effect<void, NoMoney | NoAddress> =>
        n === 0 ? Effect.fail(new NoMoney()) : n === 1 ? Effect.die(new TypeError("x")) : Effect.fail(new NoAddress())
      yield* member(group, [
        Consumer.idempotent(topic, handle, {
          onFailure: { ...later("1 hour"), permanent: (error) => error._tag === "NoMoney" }
        })
      ])
      yield* publishAll(topic, items(3, 3))
      const undecodable = { key: "x", value: new TextEncoder().encode("no item"), headers: { ce_id: "bad" } }
      yield* sendRecords(topic.name, 0, [undecodable])
      const letters = yield* untilLetters(topic, group, "four letters", (all) => all.length === 4)
      assert.sameDeepMembers(letters.map(({ error, state }) => [error.tag, state]), [
        ["NoMoney", "saved"],
        ["TypeError", "saved"],
        ["NoAddress", "waiting"],
        ["Undecodable", "saved"]
      ])
      const bad = letters.find(({ messageId }) => messageId === "bad")!
      assert.strictEqual((yield* Effect.flip(DeadLetter.decode(topic, bad)))._tag, "Undecodable")
    }))

  check("a crash between the letter and the commit leaves one letter", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const { calls, consumer } = breakable(topic, "bill")
      yield* publishAll(topic, items(3, 3))
      const crashed = yield* member(group, [consumer], { change: withoutCommits })
      yield* untilLetters(topic, group, "three letters", (all) => all.length === 3)
      yield* crashed.stop
      yield* member(group, [consumer])
      yield* calls.untilCount(6)
      const count = Broker.use((broker) =>
        Stream.runFold(
          broker.read(`${topic.name}.${group}.dead-letter`),
          () => 0,
          (n, { records }) => n + records.length
        )
      )
      yield* askUntil(features, "each was written twice", count, (n) => n === 6)
      const letters = yield* lettersOf(topic, group)
      assert.strictEqual(letters.length, 3)
      assert.isTrue(letters.every(({ rounds, state }) => rounds === 0 && state === "saved"))
      assert.strictEqual(yield* DeadLetter.drop(topic, group, {}), 3)
      assert.deepStrictEqual(yield* lettersOf(topic, group), [])
    }))

  check("a letter whose handler is gone stays, and is there for one that comes back", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const old = breakable(topic, "old")
      const first = yield* member(group, [old.consumer])
      yield* publishAll(topic, items(1, 1))
      yield* untilLetters(topic, group, "a letter", (all) => all.length === 1)
      yield* first.stop
      const young = breakable(topic, "young")
      young.state.broken = () => false
      const second = yield* member(group, [young.consumer])
      yield* DeadLetter.replay(topic, group, {})
      yield* publishAll(topic, items(1, 1, 1))
      yield* young.calls.until("the next event", (all) => all.some(({ n }) => n === 1))
      yield* second.stop
      assert.isTrue(young.calls.all.every(({ n }) => n === 1))
      old.state.broken = () => false
      yield* member(group, [old.consumer])
      assert.strictEqual((yield* DeadLetter.replay(topic, group, {}, { force: true })).replayed, 1)
      yield* untilLetters(topic, group, "no letter", (all) => all.length === 0)
      assert.deepStrictEqual(numbers(old.calls.all), [0, 0])
    }))

  check("batches and group commit take letters, too", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const page = yield* freshPage
      const ledger = yield* Ledger
      let broken = true
      const one = (event: Event.Event<Item>) =>
        broken && event.payload.n % 10 === 3
          ? Effect.fail(new NoMoney())
          : ledger.write(page, String(event.payload.n))
      yield* member(group, [
        Consumer.exactlyOnceBatch(topic, (events) => Effect.forEach(events, one, { discard: true }), {
          name: "batch",
          concurrency: 1,
          onFailure: savingAtOnce
        }),
        Consumer.exactlyOnce(topic, one, { name: "group", concurrency: 1, onFailure: later("1 hour") })
      ])
      yield* publishAll(topic, items(30, 30))
      yield* untilLetters(topic, group, "three letters each", (all) => all.length === 6)
      broken = false
      assert.strictEqual((yield* DeadLetter.replay(topic, group, {})).replayed, 6)
      yield* untilLetters(topic, group, "no letter", (all) => all.length === 0)
      yield* askUntil(features, "all are applied", ledger.read(page), (lines) => lines.length === 60)
      assert.deepStrictEqual(
        ascending((yield* ledger.read(page)).map(Number)),
        upTo(30).flatMap((n) => [n, n])
      )
    }))

  // Scenario 21.
  const afterwards = (policy: FailurePolicy.FailurePolicy<unknown>) =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const { calls, consumer, state } = breakable(topic, "bill", policy)
      state.broken = (n) => n === 0
      yield* publishAll(topic, items(3, 3))
      const first = yield* member(group, [consumer])
      yield* calls.until("all were tried", (all) => new Set(numbers(all)).size === 3)
      yield* first.stop
      const before = calls.all.length
      state.broken = () => false
      yield* member(group, [consumer])
      yield* publishAll(topic, items(1, 1, 3))
      yield* calls.until("the last", (all) => all.slice(before).some(({ n }) => n === 3))
      return { topic, group, calls, before }
    })

  check("a second instance sees of an event that always failed what its policy promises", () =>
    Effect.gen(function*() {
      const discarded = yield* afterwards({ ...FailurePolicy.discard(), retry: retries(0) })
      assert.deepStrictEqual(numbers(discarded.calls.all.slice(discarded.before)), [3])
      const blocked = yield* afterwards({ ...blocking, retry: retries(0) })
      yield* blocked.calls.until("the blocked one", (all) => all.slice(blocked.before).some(({ n }) => n === 0))
      const saved = yield* afterwards(savingAtOnce)
      assert.deepStrictEqual(numbers(saved.calls.all.slice(saved.before)), [3])
      assert.strictEqual((yield* lettersOf(saved.topic, saved.group)).length, 1)
      const waiting = yield* afterwards(later("100 millis", "100 millis", "100 millis"))
      yield* untilLetters(waiting.topic, waiting.group, "applied", (all) => all.length === 0)
      assert.include(numbers(waiting.calls.all.slice(waiting.before)), 0)
    }))

  // Scenario 22.
  const dependency = (groups: "one group" | "two groups") =>
    Effect.gen(function*() {
      const [first, second] = [yield* freshTopic(1), yield* freshTopic(1)]
      const group = yield* freshGroup
      const other = groups === "one group" ? group : yield* freshGroup
      const log = makeLog<string>()
      const state = { secondWasRejected: false, firstSucceeded: false }
      const onFailure = later(...upTo(50).map(() => "200 millis" as const))
      const onFirst = Consumer.idempotent(first, () =>
        Effect.suspend(() => {
          if (!state.secondWasRejected) return Effect.fail("not before the second was rejected")
          state.firstSucceeded = true
          return log.add("first")
        }), { onFailure })
      const onSecond = Consumer.idempotent(second, () =>
        Effect.suspend(() => {
          if (state.firstSucceeded) return log.add("second")
          state.secondWasRejected = true
          return Effect.fail("not before the first succeeded")
        }), { onFailure })
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
    check(
      `two events that wait for each other's handlers both end under retryLater, in ${groups}`,
      () => dependency(groups)
    )
  }

  check(
    "the dead-letter topic lasts as long as its source, 7 days at least, and takes larger records",
    () =>
      Effect.gen(function*() {
        const broker = yield* Broker
        for (
          const [retention, expected] of [["1000000", "604800000"], ["999999999999", "999999999999"], ["-1", "-1"]]
        ) {
          const topic = yield* freshTopic(3)
          const { name } = topic
          const source = `${name}-settings`
          yield* broker.ensureTopics([{
            name: source,
            create: {
              partitions: 2,
              config: { "cleanup.policy": "compact", "retention.ms": retention!, "max.message.bytes": "2000000" }
            }
          }])
          const group = yield* freshGroup
          yield* Effect.scoped(member(group, [Consumer.idempotent({ ...topic, name: source }, () => Effect.void)]))
          const { config, partitions } = yield* broker.describe(`${source}.${group}.dead-letter`)
          assert.strictEqual(partitions, 2)
          assert.strictEqual(config["cleanup.policy"], "delete")
          assert.strictEqual(config["retention.ms"], expected)
          assert.strictEqual(config["max.message.bytes"], String(2_000_000 + 65_536))
        }
      })
  )

  check(
    "a consumer that may not write its dead letters does not start, and says what to grant",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const broker = yield* Broker
        const refused = Broker.of({
          ...broker,
          mayWrite: (topic) =>
            Effect.fail(new BrokerError({ reason: new NotAllowed({ right: "Write", topic, cause: undefined }) }))
        })
        const error = yield* Consumer.idempotent(topic, () => Effect.void).pipe(
          Consumer.inGroup(group),
          Effect.provideService(Broker, refused),
          Effect.flip
        )
        assert.strictEqual(error._tag, "ConsumerError")
        assert.strictEqual(error.reason._tag, "BrokerError")
        assert.include(error.message, `the right Write on topic "${topic.name}.${group}.dead-letter"`)
      })
  )

  check("listing the letters of a group that keeps none fails with the topic's name", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const error = yield* Effect.flip(lettersOf(topic, "nobody"))
      assert.strictEqual(error.reason._tag, "UnknownTopic")
      assert.include(error.message, `${topic.name}.nobody.dead-letter`)
    }))

  check(
    "delays out of range are a typed error at start, and broadcast has no dead letters",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        for (
          const consumer of [
            Consumer.idempotent(topic, () => Effect.void, { onFailure: FailurePolicy.retryLater({ delays: [] }) }),
            Consumer.idempotent(topic, () => Effect.void, { onFailure: FailurePolicy.retryLater({ delays: [-1] }) }),
            Consumer.idempotent(topic, () => Effect.void, {
              onFailure: FailurePolicy.retryLater({ delays: ["4 days"] })
            })
          ]
        ) {
          const error = yield* Effect.flip(Consumer.inGroup(group)(consumer))
          assert.strictEqual(error.reason._tag, "InvalidOption")
        }
        const broadcast = Consumer.broadcast(topic, () => Effect.void, { onFailure: FailurePolicy.retryLater() })
        assert.strictEqual((yield* Effect.flip(Consumer.all([broadcast]))).reason._tag, "InvalidOption")
      })
  )
}

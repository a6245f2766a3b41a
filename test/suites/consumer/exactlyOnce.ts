/** Exactly once: the handler's writes, its events and the mark that it is done commit together. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { Broker } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import * as FailurePolicy from "../../../src/FailurePolicy.ts"
import * as Outbox from "../../../src/Outbox.ts"
import * as Publisher from "../../../src/Publisher.ts"
import { cases, type It } from "../features.ts"
import {
  alphabetical,
  ascending,
  blocking,
  type Call,
  callOf,
  deadLetters,
  freshGroup,
  freshPage,
  freshTopic,
  type FrontFeatures,
  Item,
  items,
  type ItemTopic,
  keyFor,
  Ledger,
  makeLog,
  markNumber,
  member,
  partitionsOf,
  publishAll,
  publishMarks,
  recordsOf,
  relayed,
  retries,
  savingAtOnce,
  type Services,
  text,
  upTo,
  withoutCommits
} from "./support.ts"

export const exactlyOnce = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  /**
   * A consumer that writes each event's number on a page. Partition ordering:
   * when a mark is handled, so is everything before it in its partition.
   */
  const writing = (topic: ItemTopic, page: string, marks: ReturnType<typeof makeLog<Call>>, name = topic.name) =>
    Consumer.exactlyOnce(topic, (event) =>
      Effect.gen(function*() {
        const ledger = yield* Ledger
        if (event.payload.n <= markNumber) return yield* marks.add(callOf(event))
        yield* ledger.write(page, String(event.payload.n))
      }), { ordering: "partition", onFailure: blocking, name })

  const untilMarked = (topic: ItemTopic, marks: ReturnType<typeof makeLog<Call>>, times = 1) =>
    Effect.andThen(publishMarks(topic), marks.untilCount(partitionsOf(topic) * times))

  const pageOf = (page: string) => Ledger.use((ledger) => ledger.read(page))

  check("a message that is published twice has one effect, one copy after the other", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const [group, page] = [yield* freshGroup, yield* freshPage]
      const marks = makeLog<Call>()
      yield* member(group, [writing(topic, page, marks)])
      for (const n of upTo(20)) {
        yield* Publisher.publish(topic, { key: "k", n }, { id: `message-${n}` })
        yield* Publisher.publish(topic, { key: "k", n }, { id: `message-${n}` })
      }
      yield* untilMarked(topic, marks)
      assert.deepStrictEqual(yield* pageOf(page), upTo(20).map(String))
    }))

  check("a message that two instances handle at the same time has one effect", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(2)
      const [group, page] = [yield* freshGroup, yield* freshPage]
      const marks = makeLog<Call>()
      yield* member(group, [writing(topic, page, marks)])
      yield* member(group, [writing(topic, page, marks)])
      // The two copies lie in two partitions, and so with two members.
      const [left, right] = [keyFor(0, 2), keyFor(1, 2)]
      yield* Effect.forEach(upTo(50), (n) =>
        Effect.all([
          Publisher.publish(topic, { key: left, n }, { id: `message-${n}` }),
          Publisher.publish(topic, { key: right, n }, { id: `message-${n}` })
        ], { concurrency: 2 }), { concurrency: 10, discard: true })
      yield* untilMarked(topic, marks)
      assert.deepStrictEqual(alphabetical(yield* pageOf(page)), alphabetical(upTo(50).map(String)))
    }))

  check("the same id from another source is another message", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const [group, page] = [yield* freshGroup, yield* freshPage]
      const marks = makeLog<Call>()
      const elsewhere = Broker.of({ ...(yield* Broker), source: "/elsewhere" })
      yield* member(group, [writing(topic, page, marks)])
      const publish = (n: number) => Publisher.publish(topic, { key: "k", n }, { id: "order-1" })
      yield* publish(1)
      yield* Effect.provideService(publish(2), Broker, elsewhere)
      yield* publish(3)
      yield* Effect.provideService(publish(4), Broker, elsewhere)
      yield* untilMarked(topic, marks)
      assert.deepStrictEqual(yield* pageOf(page), ["1", "2"])
    }))

  check(
    "what a failing attempt wrote and published is gone; the attempt that succeeds counts once",
    () =>
      Effect.gen(function*() {
        const [topic, out] = [yield* freshTopic(1), yield* freshTopic(1)]
        const [group, page] = [yield* freshGroup, yield* freshPage]
        const ledger = yield* Ledger
        const found = makeLog<readonly [attempt: number, before: ReadonlyArray<string>]>()
        const running = yield* member(group, [
          Consumer.exactlyOnce(topic, (event) =>
            Effect.gen(function*() {
              yield* found.add([event.attempt, yield* ledger.read(page)])
              // Once before the write and once after it: the order in the transaction does not matter.
              yield* Outbox.publish(out, { key: "k", n: event.attempt * 10 })
              yield* ledger.write(page, `attempt ${event.attempt}`)
              yield* Outbox.publish(out, { key: "k", n: event.attempt * 10 + 1 })
              if (event.attempt < 3) return yield* Effect.fail("after the write")
            }), { onFailure: { ...FailurePolicy.save(), retry: retries(5) } })
        ])
        yield* publishAll(topic, items(1, 1))
        yield* found.untilCount(3)
        yield* running.stop
        assert.deepStrictEqual(found.all, [[1, []], [2, []], [3, []]])
        assert.deepStrictEqual(yield* pageOf(page), ["attempt 3"])
        yield* relayed
        const sent = yield* recordsOf(out.name, 1)
        assert.deepStrictEqual(sent.map((record) => JSON.parse(text(record.value)!).n), [30, 31])
      })
  )

  check("an event that is given up on has no effect but its dead letter", () =>
    Effect.gen(function*() {
      const [topic, out] = [yield* freshTopic(1), yield* freshTopic(1)]
      const [group, page] = [yield* freshGroup, yield* freshPage]
      const ledger = yield* Ledger
      const log = makeLog<number>()
      const running = yield* member(group, [
        Consumer.exactlyOnce(topic, (event) =>
          Effect.gen(function*() {
            yield* ledger.write(page, String(event.payload.n))
            yield* Outbox.publish(out, event.payload)
            yield* log.add(event.payload.n)
            if (event.payload.n === 1) return yield* Effect.fail("no")
          }), { onFailure: savingAtOnce })
      ])
      yield* publishAll(topic, items(3, 1))
      yield* log.untilCount(3)
      yield* running.stop
      yield* relayed
      assert.deepStrictEqual(yield* pageOf(page), ["0", "2"])
      const sent = yield* recordsOf(out.name, 1)
      assert.deepStrictEqual(sent.map((record) => JSON.parse(text(record.value)!).n), [0, 2])
      assert.strictEqual((yield* deadLetters(topic, group)).length, 1)
    }))

  check(
    "events whose offsets were never committed come again after a restart and are recognised, all of them",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(3)
        const [group, page] = [yield* freshGroup, yield* freshPage]
        const [marks, again] = [makeLog<Call>(), makeLog<Call>()]
        const killed = yield* member(group, [writing(topic, page, marks)], { change: withoutCommits })
        yield* publishAll(topic, items(200, 20))
        yield* untilMarked(topic, marks)
        yield* killed.stop
        const seen = makeLog<number>()
        // An idempotent handler beside it in the group sees what is delivered again.
        yield* member(group, [
          writing(topic, page, again),
          Consumer.idempotent(topic, (event) => seen.add(event.payload.n), { name: "witness", onFailure: blocking })
        ])
        // The marks of the first run were applied as well, and are skipped like the rest.
        yield* publishMarks(topic, markNumber - 1)
        yield* again.untilCount(3)
        yield* seen.until("everything again", (all) => all.length >= 206)
        assert.isTrue(again.all.every((call) => call.n === markNumber - 1))
        assert.strictEqual(seen.all.filter((n) => n >= 0).length, 200)
        assert.deepStrictEqual(alphabetical(yield* pageOf(page)), alphabetical(upTo(200).map(String)))
      })
  )

  check(
    "members that come, go and die uncommitted while events flow: each event is applied exactly once, in key order",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(6)
        const [group, page] = [yield* freshGroup, yield* freshPage]
        const marks = makeLog<Call>()
        const ledger = yield* Ledger
        const seen = makeLog<number>()
        const consumers = [
          writing(topic, page, marks),
          Consumer.idempotent(topic, (event) => seen.add(event.payload.n), { name: "witness", onFailure: blocking })
        ]
        const staying = yield* member(group, consumers)
        const publishing = yield* Effect.forkScoped(
          Effect.forEach(upTo(30), (round) => publishAll(topic, items(20, 24, round * 20)), { discard: true })
        )
        for (const [round, change] of [withoutCommits, undefined, withoutCommits].entries()) {
          const passing = yield* member(group, consumers, change === undefined ? {} : { change })
          const before = seen.all.length
          yield* publishAll(topic, items(60, 24, 600 + 60 * round))
          yield* seen.untilCount(before + 50)
          yield* passing.stop
        }
        yield* Fiber.join(publishing)
        yield* publishMarks(topic)
        yield* marks.until(
          "a mark from each partition",
          (all) => new Set(all.map(({ partition }) => partition)).size === 6
        )
        yield* staying.stop
        const lines = (yield* ledger.read(page)).map(Number)
        assert.deepStrictEqual(ascending(lines), upTo(780))
        for (const key of upTo(24)) {
          const own = lines.filter((n) => n < 600 && n % 24 === key)
          assert.deepStrictEqual(own, ascending(own))
        }
      })
  )

  check(
    "two groups with two handlers each, on one database, do not suppress one another",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const groups = [yield* freshGroup, yield* freshGroup]
        const page = yield* freshPage
        const marks = makeLog<Call>()
        for (const group of groups) {
          yield* member(group, [
            writing(topic, `${page}-${group}-bill`, marks, "bill"),
            writing(topic, `${page}-${group}-ship`, marks, "ship")
          ])
        }
        yield* publishAll(topic, items(30, 10))
        yield* untilMarked(topic, marks, 4)
        for (const group of groups) {
          for (const handler of ["bill", "ship"]) {
            assert.deepStrictEqual(
              alphabetical(yield* pageOf(`${page}-${group}-${handler}`)),
              alphabetical(upTo(30).map(String))
            )
          }
        }
      })
  )

  check(
    "a batch that holds a message twice applies it once, and one that holds it again later does not apply it",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const [group, page] = [yield* freshGroup, yield* freshPage]
        const ledger = yield* Ledger
        const log = makeLog<ReadonlyArray<number>>()
        for (const n of [...upTo(40), ...upTo(40)]) {
          yield* Publisher.publish(topic, new Item({ key: `key-${n}`, n }), { id: `message-${n}` })
        }
        yield* Publisher.publish(topic, new Item({ key: "key-0", n: 100 }))
        const running = yield* member(group, [
          Consumer.exactlyOnceBatch(topic, (events) =>
            Effect.gen(function*() {
              for (const event of events) yield* ledger.write(page, String(event.payload.n))
              yield* log.add(events.map((event) => event.payload.n))
            }), { concurrency: 1, ordering: "partition", onFailure: blocking, batch: { maxSize: 60 } })
        ])
        yield* log.until("the last event", (all) => all.flat().includes(100))
        yield* running.stop
        assert.deepStrictEqual(yield* pageOf(page), [...upTo(40), 100].map(String))
      })
  )

  check(
    "a savepoint of the handler that fails and is caught takes its own writes and events only",
    () =>
      Effect.gen(function*() {
        const [topic, out] = [yield* freshTopic(1), yield* freshTopic(1)]
        const [group, page] = [yield* freshGroup, yield* freshPage]
        const ledger = yield* Ledger
        const log = makeLog<number>()
        const running = yield* member(group, [
          Consumer.exactlyOnce(topic, () =>
            Effect.gen(function*() {
              yield* ledger.write(page, "outer")
              yield* Outbox.publish(out, { key: "k", n: 1 })
              yield* Effect.gen(function*() {
                yield* ledger.write(page, "inner")
                yield* Outbox.publish(out, { key: "k", n: 2 })
                return yield* Effect.fail("no")
              }).pipe(Outbox.transaction, Effect.catch(() => Effect.void))
              yield* Outbox.publish(out, { key: "k", n: 3 })
              yield* log.add(1)
            }), { onFailure: blocking })
        ])
        yield* publishAll(topic, items(1, 1))
        yield* log.untilCount(1)
        yield* running.stop
        yield* relayed
        assert.deepStrictEqual(yield* pageOf(page), ["outer"])
        const sent = yield* recordsOf(out.name, 1)
        assert.deepStrictEqual(sent.map((record) => JSON.parse(text(record.value)!).n), [1, 3])
      })
  )
}

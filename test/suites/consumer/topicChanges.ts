/** Topics that change under a running consumer: more partitions, more topics, deleted and created again. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Broker } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import { record, sendRecords } from "../broker/support.ts"
import { askUntil, cases, type It } from "../features.ts"
import { Outside } from "./outside.ts"
import {
  ascending,
  type Call,
  callOf,
  created,
  freshGroup,
  freshPage,
  freshTopic,
  type FrontFeatures,
  type Item,
  items,
  type ItemTopic,
  itemTopic,
  keyFor,
  Ledger,
  makeLog,
  member,
  numbers,
  publishAll,
  savingAtOnce,
  type Services,
  upTo
} from "./support.ts"

export const topicChanges = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  /** Sends items to one partition, whatever their keys, as another program does. */
  const sendTo = (topic: string, partition: number, all: ReadonlyArray<Item>) =>
    Effect.forEach(
      all,
      (item) => sendRecords(topic, partition, [record(JSON.stringify({ key: item.key, n: item.n }), item.key)]),
      {
        discard: true
      }
    )

  const logging = (topic: ItemTopic, log: ReturnType<typeof makeLog<Call>>, as = "") =>
    Consumer.idempotent(topic, (event) => log.add(callOf(event, as)), { onFailure: savingAtOnce })

  /** Waits until the broker has forgotten a topic, and creates it. */
  const recreated = (topic: ItemTopic) =>
    askUntil(features, "the topic exists again", Effect.exit(created(topic)), (exit) => exit._tag === "Success")

  check(
    "partitions that are added while a consumer runs are read from their start, each event once",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const outside = yield* Outside
        const log = makeLog<Call>()
        yield* publishAll(topic, items(10, 10))
        yield* member(group, [logging(topic, log)])
        yield* log.untilCount(10)
        yield* outside.addPartitions(topic.name, 3)
        for (const partition of upTo(3)) yield* sendTo(topic.name, partition, items(10, 10, 10 + partition * 10))
        yield* log.untilCount(40)
        for (const partition of upTo(3)) yield* sendTo(topic.name, partition, items(1, 1, 40 + partition))
        yield* log.untilCount(43)
        assert.deepStrictEqual(ascending(numbers(log.all)), upTo(43))
      })
  )

  check(
    "a rolling deploy that adds a topic: every partition is read by a member that wants it",
    () =>
      Effect.gen(function*() {
        const [old, added] = [yield* freshTopic(3), yield* freshTopic(3)]
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const before = [yield* member(group, [logging(old, log, "a")]), yield* member(group, [logging(old, log, "b")])]
        const publish = (from: number) =>
          Effect.andThen(publishAll(old, items(30, 30, from)), publishAll(added, items(30, 30, from + 30)))
        yield* publish(0)
        yield* log.untilCount(30)
        // One member is new, two are old: nobody else may get the new topic.
        yield* member(group, [logging(old, log, "c"), logging(added, log, "c")])
        yield* publish(60)
        yield* log.untilCount(120)
        yield* before[0]!.stop
        yield* member(group, [logging(old, log, "d"), logging(added, log, "d")])
        yield* before[1]!.stop
        yield* publish(120)
        yield* log.untilCount(180)
        assert.deepStrictEqual(ascending(numbers(log.all)), upTo(180))
        const readers = new Set(log.all.filter((call) => call.topic === added.name).map((call) => call.member))
        assert.isFalse(readers.has("a") || readers.has("b"))
      })
  )

  check(
    "a topic that is deleted and created again while its consumer runs is read from its new start",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const group = yield* freshGroup
        const outside = yield* Outside
        const log = makeLog<Call>()
        yield* publishAll(topic, items(20, 10))
        yield* member(group, [logging(topic, log)])
        yield* log.untilCount(20)
        yield* outside.deleteTopic(topic.name)
        yield* recreated(topic)
        yield* publishAll(topic, items(10, 10, 20))
        yield* log.untilCount(30)
        assert.deepStrictEqual(ascending(numbers(log.all)), upTo(30))
      })
  )

  check(
    features.topicsApart === false
      ? "of two topics one is replaced at once: of the other nothing is missed, and what was not committed comes again"
      : "of two topics one is replaced at once: of the other nothing comes again, also what was not committed yet",
    () =>
      Effect.gen(function*() {
        const [kept, replaced] = [yield* freshTopic(2), yield* freshTopic(2)]
        const group = yield* freshGroup
        const outside = yield* Outside
        const log = makeLog<Call>()
        yield* publishAll(replaced, items(10, 10))
        yield* member(group, [logging(kept, log), logging(replaced, log)])
        yield* log.untilCount(10)
        yield* publishAll(kept, items(10, 10, 10))
        yield* log.untilCount(20)
        yield* outside.deleteTopic(replaced.name)
        yield* recreated(replaced)
        yield* publishAll(replaced, items(10, 10, 20))
        // Whenever the replacement is noticed, some of these are not committed.
        let next = 30
        const flowing = Effect.andThen(
          Effect.uninterruptible(Effect.suspend(() => publishAll(kept, items(1, 1, next++)))),
          Effect.sleep("20 millis")
        )
        yield* Effect.raceFirst(
          Effect.forever(flowing),
          log.until("what the new topic holds", (all) => numbers(all).includes(29))
        )
        yield* publishAll(kept, items(1, 1, next))
        yield* log.until("the last one", (all) => numbers(all).includes(next))
        const isKept = (n: number) => n < 20 || n >= 30
        const handled = numbers(log.all).filter(isKept)
        assert.deepStrictEqual(
          ascending(features.topicsApart === false ? Array.from(new Set(handled)) : handled),
          upTo(next + 1).filter(isKept)
        )
      })
  )

  check(
    "of two topics one is deleted and created again: the other goes on, and of the new one nothing is missed",
    () =>
      Effect.gen(function*() {
        const [kept, deleted] = [yield* freshTopic(2), yield* freshTopic(2)]
        const group = yield* freshGroup
        const outside = yield* Outside
        const log = makeLog<Call>()
        yield* member(group, [logging(kept, log), logging(deleted, log)])
        yield* publishAll(kept, items(10, 10))
        yield* publishAll(deleted, items(10, 10, 10))
        yield* log.untilCount(20)
        yield* outside.deleteTopic(deleted.name)
        yield* publishAll(kept, items(10, 10, 20))
        yield* log.untilCount(30)
        yield* recreated(deleted)
        yield* publishAll(deleted, items(10, 10, 30))
        yield* publishAll(kept, items(10, 10, 40))
        yield* log.untilCount(50)
        assert.deepStrictEqual(ascending(numbers(log.all)), upTo(50))
      })
  )
}

/** What the inbox makes of offsets that begin again. */
export const topicIdentity = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  check(
    "a topic is deleted and created again: no new record without an id is taken for an old one",
    () =>
      Effect.gen(function*() {
        const outside = yield* Outside
        const topic = itemTopic((yield* freshTopic(1)).name, 1)
        const [group, page] = [yield* freshGroup, yield* freshPage]
        const ledger = yield* Ledger
        const log = makeLog<number>()
        const key = keyFor(0, 1)
        const consume = Consumer.exactlyOnce(
          topic,
          (event) => Effect.andThen(ledger.write(page, String(event.payload.n)), log.add(event.payload.n)),
          {
            ordering: "partition",
            onFailure: savingAtOnce
          }
        )
        const send = (from: number) =>
          Effect.forEach(
            upTo(10),
            (n) => sendRecords(topic.name, 0, [record(JSON.stringify({ key, n: from + n }), key)]),
            { discard: true }
          )
        yield* send(0)
        const first = yield* member(group, [consume])
        yield* log.untilCount(10)
        yield* first.stop
        yield* outside.deleteTopic(topic.name)
        yield* askUntil(
          features,
          "the topic exists again",
          Effect.exit(Broker.use((broker) => broker.ensureTopics([topic]))),
          (exit) => exit._tag === "Success"
        )
        yield* send(10)
        const second = yield* member(group, [consume])
        yield* log.untilCount(20)
        yield* second.stop
        assert.deepStrictEqual(yield* ledger.read(page), upTo(20).map(String))
      })
  )
}

/** The relay: what is sent, in which order, and what outages and other relays change about it. */
import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import { Broker, BrokerError, Unreachable } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import { partitionOf, partOf } from "../../../src/internal/wire/partitioner.ts"
import { MessageStore, MessageStoreError, parts, StoreUnreachable } from "../../../src/MessageStore.ts"
import * as Outbox from "../../../src/Outbox.ts"
import * as Publisher from "../../../src/Publisher.ts"
import {
  alphabetical,
  blocking,
  type Call,
  callOf,
  created,
  freshGroup,
  freshPage,
  freshTopic,
  type FrontFeatures,
  headerText,
  Item,
  items,
  type ItemTopic,
  itemTopic,
  Ledger,
  makeLog,
  markNumber,
  member,
  numbers,
  partitionsOf,
  publishMarks,
  recordsOf,
  relay,
  relayed,
  type Services,
  upTo
} from "../consumer/support.ts"
import { askUntil, cases, freshName, type It } from "../features.ts"

export const relaying = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  const logging = (topic: ItemTopic, log: ReturnType<typeof makeLog<Call>>) =>
    Consumer.idempotent(topic, (event) => log.add(callOf(event)), { ordering: "partition", onFailure: blocking })

  const commit = (topic: ItemTopic, item: Item) =>
    Effect.gen(function*() {
      yield* Ledger.use((ledger) => ledger.write("relaying", String(item.n)))
      return yield* Outbox.publish(topic, item)
    }).pipe(Outbox.transaction)

  check("a committed event is sent by the relay that runs, without being asked", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic()
      const group = yield* freshGroup
      const log = makeLog<Call>()
      yield* member(group, [logging(topic, log)])
      yield* relay()
      const ids: Array<string> = []
      for (const n of upTo(5)) {
        ids.push(yield* commit(topic, new Item({ key: "k", n })))
        yield* log.untilCount(n + 1)
      }
      assert.deepStrictEqual(log.all.map((call) => call.id), ids)
    }))

  check("relays that come and go send each key's events in commit order, each once", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(4)
      const keys = 12
      const perKey = 25
      const first = yield* relay({ batchSize: 20 })
      const writing = yield* Effect.forkScoped(
        Effect.forEach(upTo(keys), (key) =>
          Effect.forEach(upTo(perKey), (n) =>
            commit(topic, new Item({ key: `key-${key}`, n })), { discard: true }), {
          concurrency: 6,
          discard: true
        })
      )
      const second = yield* relay({ batchSize: 20 })
      const third = yield* relay({ batchSize: 20 })
      yield* first.stop
      yield* Fiber.join(writing)
      yield* second.stop
      yield* third.stop
      yield* relayed
      const records = yield* recordsOf(topic.name, 4)
      const found = records.map((record) =>
        JSON.parse(Buffer.from(record.value!).toString()) as Item
      )
      for (const key of upTo(keys)) {
        assert.deepStrictEqual(numbers(found.filter((item) => item.key === `key-${key}`)), upTo(perKey), `key-${key}`)
      }
      assert.strictEqual(records.length, keys * perKey)
    }))

  check(
    "a relay that stops hands its parts over at once: the next one does not wait for the lease",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* member(group, [logging(topic, log)])
        for (const n of upTo(3)) {
          // A lease of an hour: whoever had to wait for its end would never see the event.
          const running = yield* relay({ lease: "1 hour" })
          yield* commit(topic, new Item({ key: "k", n }))
          yield* log.untilCount(n + 1)
          yield* running.stop
        }
        assert.deepStrictEqual(numbers(log.all), upTo(3))
      })
  )

  check(
    "a relay that starts beside another gets its share at once, and what another gives back as well",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(4)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* member(group, [logging(topic, log)])
        // Leases of an hour, renewed every twenty minutes: whoever had to wait for that would never see the events.
        const first = yield* relay({ lease: "1 hour" })
        const second = yield* relay({ lease: "1 hour" })
        const shared = (...shares: ReadonlyArray<number>) =>
          askUntil(features, `shares of ${shares.join(" and ")}`, Outbox.state, (state) => {
            const owners = state.parts.map(({ owner }) => owner)
            const found = Array.from(new Set(owners), (one) => owners.filter((owner) => owner === one).length)
            return !owners.includes(undefined) && found.length === shares.length && found.every((n) => n === shares[0])
          })
        yield* shared(parts / 2, parts / 2)
        const publish = (from: number) =>
          Outbox.publishAll(topic, upTo(100).map((n) => new Item({ key: `key-${n}`, n: from + n }))).pipe(
            Outbox.transaction
          )
        yield* publish(0)
        yield* log.untilCount(100)
        yield* first.stop
        yield* shared(parts)
        yield* publish(100)
        yield* log.untilCount(200)
        const third = yield* relay({ lease: "1 hour" })
        yield* shared(parts / 2, parts / 2)
        yield* publish(200)
        yield* log.untilCount(300)
        yield* Effect.all([second.stop, third.stop])
        assert.strictEqual(new Set(numbers(log.all)).size, 300)
        assert.lengthOf(log.all, 300)
      })
  )

  check(
    "a relay that is stopped while it waits for an acknowledgement finishes that batch: it is sent once",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const sending = yield* Deferred.make<void>()
        const release = Latch.makeUnsafe(false)
        const stopped = yield* relay({
          changeBroker: (broker) =>
            Broker.of({
              ...broker,
              producer: Effect.map(broker.producer, (producer) => ({
                ...producer,
                send: (batch) =>
                  Effect.tap(
                    producer.send(batch),
                    () => Effect.andThen(Deferred.succeed(sending, undefined), release.await)
                  )
              }))
            })
        })
        const ids = yield* Outbox.publishAll(topic, items(20, 10)).pipe(Outbox.transaction)
        yield* Deferred.await(sending)
        const stopping = yield* Effect.forkChild(stopped.stop)
        yield* Effect.yieldNow
        yield* release.open
        yield* Fiber.join(stopping)
        yield* relayed
        const records = yield* recordsOf(topic.name, 2)
        assert.deepStrictEqual(alphabetical(records.map((record) => headerText(record, "ce_id")!)), alphabetical(ids))
      })
  )

  check(
    "a relay that ends between acknowledgement and delete: sent again, same ids, once more at most, applied once",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const [group, page] = [yield* freshGroup, yield* freshPage]
        const marks = makeLog<Call>()
        yield* member(group, [
          Consumer.exactlyOnce(topic, (event) =>
            event.payload.n === markNumber
              ? marks.add(callOf(event))
              : Ledger.use((ledger) => ledger.write(page, String(event.payload.n))), {
            ordering: "partition",
            onFailure: blocking
          })
        ])
        const ids = yield* Outbox.publishAll(topic, items(40, 10)).pipe(Outbox.transaction)
        const acknowledged = yield* Deferred.make<void>()
        let ended = false
        const killed = yield* relay({
          changeStore: (store) =>
            MessageStore.of({
              ...store,
              outbox: {
                ...store.outbox,
                read: (options) => ended ? Effect.succeed([]) : store.outbox.read(options),
                remove: () =>
                  Effect.suspend(() => {
                    ended = true
                    Deferred.doneUnsafe(acknowledged, Effect.void)
                    return Effect.fail(
                      new MessageStoreError({
                        reason: new StoreUnreachable({
                          operation: "delete",
                          detail: "killed",
                          cause: new Error("killed")
                        })
                      })
                    )
                  })
              }
            })
        })
        yield* Deferred.await(acknowledged)
        yield* killed.stop
        yield* relayed
        yield* publishMarks(topic)
        yield* marks.untilCount(partitionsOf(topic))
        const lines = yield* Ledger.use((ledger) => ledger.read(page))
        assert.deepStrictEqual(alphabetical(lines), alphabetical(upTo(40).map(String)))
        const sent = (yield* recordsOf(topic.name, 2)).map((record) => headerText(record, "ce_id")!)
        assert.deepStrictEqual(alphabetical(sent.filter((id) => ids.includes(id))), alphabetical([...ids, ...ids]))
        assert.strictEqual(sent.length, 2 * ids.length + partitionsOf(topic))
      })
  )

  check(
    "while the broker is away transactions go on, and afterwards everything leaves in order, once",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        let away = true
        let refused = 0
        const reached = yield* Deferred.make<void>()
        yield* relay({
          changeBroker: (broker) =>
            Broker.of({
              ...broker,
              producer: Effect.map(broker.producer, (producer) => ({
                ...producer,
                send: (batch) =>
                  Effect.suspend(() => {
                    if (!away) return producer.send(batch)
                    if (++refused === 2) Deferred.doneUnsafe(reached, Effect.void)
                    return Effect.fail(
                      new BrokerError({
                        reason: new Unreachable({ address: broker.address, tried: "sending", cause: new Error("away") })
                      })
                    )
                  })
              }))
            })
        })
        for (const n of upTo(30)) yield* commit(topic, new Item({ key: "k", n }))
        yield* Deferred.await(reached)
        for (const n of upTo(30)) yield* commit(topic, new Item({ key: "k", n: 30 + n }))
        away = false
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* member(group, [logging(topic, log)])
        yield* log.untilCount(60)
        yield* Publisher.publish(topic, { key: "k", n: markNumber })
        yield* log.untilCount(61)
        assert.deepStrictEqual(numbers(log.all), [...upTo(60), markNumber])
      })
  )

  check(
    "while one key's events wait for their acknowledgement others are sent, and its later ones wait for them",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(16)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* member(group, [logging(topic, log)])
        const sending = yield* Deferred.make<void>()
        const release = Latch.makeUnsafe(false)
        const slow = partitionOf("slow", 16)
        yield* relay({
          changeBroker: (broker) =>
            Broker.of({
              ...broker,
              producer: Effect.map(broker.producer, (producer) => ({
                ...producer,
                send: (batch) => {
                  if (batch.partition !== slow) return producer.send(batch)
                  Deferred.doneUnsafe(sending, Effect.void)
                  return Effect.andThen(release.await, producer.send(batch))
                }
              }))
            })
        })
        yield* commit(topic, new Item({ key: "slow", n: 0 }))
        yield* Deferred.await(sending)
        const others = upTo(40).map((n) => new Item({ key: `key-${n}`, n })).filter(({ key }) =>
          partitionOf(key, 16) !== slow &&
          partOf(topic.name, key, parts) !== partOf(topic.name, "slow", parts)
        )
        yield* commit(topic, new Item({ key: "slow", n: 1 }))
        yield* Effect.forEach(others, (item) => commit(topic, item))
        yield* log.untilCount(others.length)
        assert.isEmpty(log.all.filter(({ key }) => key === "slow"))
        yield* release.open
        yield* log.untilCount(others.length + 2)
        yield* relayed
        assert.deepStrictEqual(numbers(log.all.filter(({ key }) => key === "slow")), [0, 1])
      })
  )

  check("events for a topic that does not exist wait, and keep no other topic waiting", () =>
    Effect.gen(function*() {
      const missing = itemTopic(yield* freshName("missing"), 1)
      const topic = yield* freshTopic(2)
      const group = yield* freshGroup
      const log = makeLog<Call>()
      yield* member(group, [logging(topic, log)])
      yield* relay()
      yield* Effect.gen(function*() {
        yield* Outbox.publishAll(missing, items(3, 1))
        yield* Outbox.publishAll(topic, items(20, 10))
      }).pipe(Outbox.transaction)
      yield* log.untilCount(20)
      yield* commit(topic, new Item({ key: "k", n: 20 }))
      yield* log.untilCount(21)
      yield* created(missing)
      const late = makeLog<Call>()
      yield* member(yield* freshGroup, [logging(missing, late)])
      yield* late.untilCount(3)
      assert.deepStrictEqual(numbers(late.all), [0, 1, 2])
      assert.deepStrictEqual(alphabetical(log.all.map(({ n }) => String(n))), alphabetical(upTo(21).map(String)))
    }))
}

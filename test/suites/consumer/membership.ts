/** Membership: what members that come, go and fall silent cost, counted event by event. */
import { assert } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import { Broker } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import type * as Event from "../../../src/Event.ts"
import { partitionOf } from "../../../src/internal/wire/partitioner.ts"
import { askUntil, cases, type It } from "../features.ts"
import { amidFlow } from "./flow.ts"
import { Outside } from "./outside.ts"
import {
  ascending,
  type Call,
  callOf,
  deadLetters,
  freshGroup,
  freshTopic,
  type FrontFeatures,
  type Item,
  items,
  type ItemTopic,
  makeLog,
  markNumber,
  member,
  numbers,
  partitionsOf,
  publishAll,
  publishMarks,
  retries,
  savingAtOnce,
  type Services,
  upTo
} from "./support.ts"

/** A broker whose rebalances leave this much time to finish what runs. */
const drainingWithin = (within: Duration.Input) => (broker: Broker["Service"]): Broker["Service"] =>
  Broker.of({
    ...broker,
    subscribe: (options) =>
      broker.subscribe({
        ...options,
        onSignal: (signal) =>
          options.onSignal(
            signal._tag === "Revoked" ? { ...signal, within: Duration.fromInputUnsafe(within) } : signal
          )
      })
  })

/** A broker that tells when partitions are lost, before the engine hears of it. */
const telling = (lost: Deferred.Deferred<void>) => (broker: Broker["Service"]): Broker["Service"] =>
  Broker.of({
    ...broker,
    subscribe: (options) =>
      broker.subscribe({
        ...options,
        onSignal: (signal) =>
          signal._tag === "Lost"
            ? Effect.andThen(Deferred.succeed(lost, undefined), options.onSignal(signal))
            : options.onSignal(signal)
      })
  })

/** All numbers that are no marks, sorted. */
const events = (calls: ReadonlyArray<Call>) => ascending(numbers(calls).filter((n) => n !== markNumber))

export const membership = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  /**
   * Waits until so many different events were handled, and then for a mark from
   * each partition: what would come twice has had the time to come.
   */
  const untilSettled = (topic: ItemTopic, log: ReturnType<typeof makeLog<Call>>, count: number) =>
    log.until(`${count} different events`, (calls) => new Set(events(calls)).size >= count).pipe(
      Effect.andThen(publishMarks(topic)),
      Effect.andThen(
        log.until(
          "a mark from each partition",
          (calls) => calls.filter(({ n }) => n === markNumber).length >= partitionsOf(topic)
        )
      )
    )

  check(
    "10 members that open and close at once: the events that flow meanwhile all arrive, each once",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(6)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const consume = Consumer.idempotent(topic, (event) => log.add(callOf(event)), { onFailure: savingAtOnce })
        // Half of them leave as soon as they have come, the others when all have.
        const come = Effect.forEach(upTo(10), (index) =>
          Effect.tap(member(group, [consume]), ({ stop }) => index % 2 === 0 ? stop : Effect.void), {
          concurrency: "unbounded"
        })
        const comeAndGo = Effect.flatMap(come, (members) =>
          Effect.forEach(members, ({ stop }) =>
            stop, { concurrency: "unbounded", discard: true }))
        yield* member(group, [consume])
        const { count } = yield* amidFlow({ topic, keys: 50, atLeast: 600, seen: log }, comeAndGo)
        yield* untilSettled(topic, log, count)
        assert.deepStrictEqual(events(log.all), upTo(count))
      })
  )

  check(
    "a member that joins while events flow: no event runs twice, also not on partitions that stay",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(4)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        const consume = (as: string) =>
          Consumer.idempotent(topic, (event) => Effect.andThen(Effect.yieldNow, log.add(callOf(event, as))), {
            concurrency: 4,
            onFailure: savingAtOnce
          })
        yield* member(group, [consume("a")])
        const { count } = yield* amidFlow({ topic, keys: 40, atLeast: 400, seen: log }, member(group, [consume("b")]))
        yield* untilSettled(topic, log, count)
        assert.deepStrictEqual(events(log.all), upTo(count))
        yield* publishAll(topic, items(200, 40, count))
        yield* untilSettled(topic, log, count + 200)
        assert.deepStrictEqual(events(log.all), upTo(count + 200))
        const late = log.all.filter(({ n }) => n >= count)
        const ownedBy = (as: string) =>
          new Set(late.filter((call) => call.member === as).map(({ partition }) => partition)).size
        assert.deepStrictEqual([ownedBy("a"), ownedBy("b")], [2, 2])
      })
  )

  check(
    "handlers that outlive the drain are interrupted and run again, once, nothing else does, and none is a dead letter",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(2)
        const group = yield* freshGroup
        const started = makeLog<Call>()
        const finished = makeLog<Call>()
        const interrupted = makeLog<number>()
        const release = Latch.makeUnsafe(false)
        // Of 40 keys two hang, the last two of the partition that goes to the second member.
        const hanging = items(40, 40).filter(({ key }) => partitionOf(key, 2) === 1).slice(-2).map(({ n }) => n)
        const consume = Consumer.idempotent(
          topic,
          (event) =>
            Effect.gen(function*() {
              yield* started.add(callOf(event))
              if (hanging.includes(event.payload.n)) yield* release.await
              yield* finished.add(callOf(event))
            }).pipe(Effect.onInterrupt(() => interrupted.add(event.payload.n))),
          { onFailure: { ...savingAtOnce, retry: retries(3) } }
        )
        const change = drainingWithin("200 millis")
        yield* member(group, [consume], { change })
        yield* publishAll(topic, items(40, 40))
        yield* started.untilCount(40)
        yield* finished.untilCount(38)
        yield* member(group, [consume], { change })
        yield* started.untilCount(42)
        assert.deepStrictEqual(ascending(interrupted.all), hanging)
        yield* release.open
        yield* finished.untilCount(40)
        yield* untilSettled(topic, finished, 40)
        assert.deepStrictEqual(events(finished.all), upTo(40))
        assert.deepStrictEqual(events(started.all), ascending([...upTo(40), ...hanging]))
        assert.isTrue(started.all.every(({ attempt }) => attempt === 1))
        assert.deepStrictEqual(yield* deadLetters(topic, group), [])
      })
  )

  check(
    "a partition that is lost while handlers run: they are interrupted, a result that comes late moves nothing, " +
      "and what was not committed comes again, once",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const at = { topic: topic.name, partition: 0 }
        const outside = yield* Outside
        const started = makeLog<Call>()
        const [lost, late] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const finished = makeLog<Call>()
        let hung = false
        const handle = (event: Event.Event<Item>) =>
          Effect.andThen(started.add(callOf(event)), finished.add(callOf(event)))
        const consume = Consumer.idempotent(topic, (event) => {
          if (event.payload.n !== 3 || hung) return handle(event)
          hung = true
          // It does not let itself be interrupted, and succeeds, but too late.
          return Effect.uninterruptible(Effect.andThen(Deferred.await(late), handle(event)))
        }, { onFailure: savingAtOnce })
        yield* member(group, [consume], { change: telling(lost) })
        yield* publishAll(topic, items(10, 10))
        yield* finished.untilCount(9)
        yield* askUntil(features, "0 to 2 are committed", outside.committed(group, at), (offset) => offset === 3n)
        yield* outside.expire(group)
        yield* Deferred.await(lost)
        yield* Deferred.succeed(late, undefined)
        yield* finished.until("3 to 9 again", (calls) => calls.filter(({ n }) => n === 9).length === 2)
        yield* untilSettled(topic, finished, 10)
        yield* askUntil(features, "all is committed", outside.committed(group, at), (offset) => offset === 11n)
        assert.deepStrictEqual(events(finished.all), ascending([...upTo(10), ...upTo(7).map((n) => n + 3)]))
        assert.isTrue(started.all.every(({ attempt }) => attempt === 1))
        assert.deepStrictEqual(yield* deadLetters(topic, group), [])
      })
  )

  if (features.sessionMillis !== undefined) {
    const { sessionMillis } = features
    check(
      "a handler that outlives the session timeout keeps its membership, and its event is handled once",
      () =>
        Effect.gen(function*() {
          const topic = yield* freshTopic(2)
          const group = yield* freshGroup
          const log = makeLog<Call>()
          const consume = (as: string) =>
            Consumer.idempotent(
              topic,
              (event) =>
                Effect.andThen(
                  log.add(callOf(event, as)),
                  event.payload.n < 2 ? Effect.sleep(sessionMillis + 2_000) : Effect.void
                ),
              { onFailure: savingAtOnce }
            )
          yield* member(group, [consume("a")])
          yield* publishAll(topic, items(2, 2))
          yield* log.untilCount(2)
          // Whoever joins makes the group look at its members, and waits for what runs.
          yield* member(group, [consume("b")])
          yield* untilSettled(topic, log, 2)
          assert.deepStrictEqual(events(log.all), [0, 1])
          assert.deepStrictEqual(log.all.filter(({ n }) => n >= 0).map((call) => call.member), ["a", "a"])
          assert.deepStrictEqual(log.all.filter(({ n }) => n === markNumber).length, 2)
        })
    )
  }
}

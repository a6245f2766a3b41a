/**
 * Starts consumers: checks what was defined, makes sure of topics and tables,
 * turns definitions into handlers, and joins the group once for all of them.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import { Broker, type BrokerError, type ProducerRecord, type TopicRequirement } from "../../Broker.ts"
import type * as Event from "../../Event.ts"
import { isMessageStoreError, MessageStore, type MessageStoreError } from "../../MessageStore.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Shared from "../publisher/shared.ts"
import * as DeadLetter from "../wire/deadLetter.ts"
import { check, ConsumerError, type Definition, DuplicateHandler } from "./definition.ts"
import * as ExactlyOnce from "./exactlyOnce.ts"
import * as Group from "./group.ts"
import type { Apply, Handler } from "./handler.ts"
import * as Idempotent from "./idempotent.ts"
import * as Pulls from "./pulls.ts"
import * as Worker from "./worker.ts"

/**
 * Settings of a set of consumers that start together.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * How long running handlers may go on when the consumer stops, before they
   * are interrupted and waited for another 5 s. Default: 20 seconds, below the
   * 30 after which Kubernetes kills.
   */
  readonly shutdownTimeout?: Duration.Input | undefined
  /**
   * How long `exactlyOnce` handlers recognise a message that comes again.
   * Every event costs a row of about 100 bytes for so long. Default: 7 days.
   */
  readonly inboxRetention?: Duration.Input | undefined
}

/** What stands for the group in the logs of broadcast consumers, which have none. */
const broadcastGroup = "(broadcast)"

const consumerError = (reason: BrokerError | MessageStoreError) => new ConsumerError({ reason })

/** Consumers that have started; `failed` ends only when one of them cannot go on. */
export interface Started {
  readonly failed: Effect.Effect<never, ConsumerError>
}

export const start = Effect.fnUntraced(function*(
  definitions: ReadonlyArray<Definition>,
  group: string,
  options: Options | undefined
): Effect.fn.Return<Started, ConsumerError, Broker | Scope.Scope> {
  const broker = yield* Broker
  const wrong = check(definitions, group)
  if (wrong !== undefined) return yield* wrong
  const grouped = definitions.filter((definition) => definition.mode !== "broadcast")
  const broadcast = definitions.filter((definition) => definition.mode === "broadcast")
  yield* register(broker, group, grouped)
  yield* Effect.mapError(broker.ensureTopics(requirements(grouped, group, broadcast)), consumerError)
  const shutdownTimeout = Duration.fromInputUnsafe(options?.shutdownTimeout ?? "20 seconds")
  const writeDeadLetter = deadLetters(broker)
  const handlers = yield* Effect.forEach(grouped, (definition) => handlerOf(definition, group))
  const listeners = yield* Effect.forEach(broadcast, (definition) => handlerOf(definition, group))
  yield* prune(grouped, Duration.fromInputUnsafe(options?.inboxRetention ?? "7 days"))
  const running: Array<Effect.Effect<never, BrokerError>> = []
  if (Arr.isArrayNonEmpty(handlers)) {
    const started = yield* Effect.mapError(
      Group.make({
        group,
        readers: (finished) =>
          Effect.forEach(handlers, (handler) => Worker.make({ group, handler, writeDeadLetter, finished })),
        feed: (onSignal) => broker.subscribe({ group, topics: topicsOf(handlers), onSignal }),
        shutdownTimeout
      }),
      consumerError
    )
    running.push(started.failed)
  }
  if (Arr.isArrayNonEmpty(listeners)) {
    const started = yield* Effect.mapError(
      Group.make({
        group: broadcastGroup,
        readers: (finished) =>
          Effect.forEach(
            listeners,
            (handler) => Worker.make({ group: broadcastGroup, handler, writeDeadLetter, finished })
          ),
        feed: (onSignal) => broker.tail({ topics: topicsOf(listeners), onSignal }),
        shutdownTimeout
      }),
      consumerError
    )
    running.push(started.failed)
  }
  return { failed: Effect.mapError(Effect.raceAllFirst(running), consumerError) }
})

/**
 * Starts an open stream of one topic: `take` waits for committable events.
 * Nothing is waited for when it stops, since whoever would commit is gone.
 */
export const startStream = Effect.fnUntraced(function*(
  definition: Definition,
  group: string
): Effect.fn.Return<Started & Pulls.Pulls, ConsumerError, Broker | Scope.Scope> {
  const broker = yield* Broker
  const wrong = check([definition], group)
  if (wrong !== undefined) return yield* wrong
  yield* register(broker, group, [definition])
  yield* Effect.mapError(broker.ensureTopics(requirements([definition], group, [])), consumerError)
  const handler = yield* handlerOf(definition, group)
  const pulls = Deferred.makeUnsafe<Pulls.Pulls>()
  const { failed } = yield* Effect.mapError(
    Group.make({
      group,
      readers: (finished) =>
        Effect.gen(function*() {
          const made = yield* Pulls.make({ group, handler, writeDeadLetter: deadLetters(broker), finished })
          yield* Deferred.succeed(pulls, made)
          return [made.reader]
        }),
      feed: (onSignal) => broker.subscribe({ group, topics: [handler.topic.name], onSignal }),
      shutdownTimeout: Duration.zero
    }),
    consumerError
  )
  return { ...yield* Deferred.await(pulls), failed: Effect.mapError(failed, consumerError) }
})

const topicsOf = (handlers: ReadonlyArray<Handler>): Array<string> =>
  Array.from(new Set(handlers.map((handler) => handler.topic.name)))

// --- one topic, one group, one process: once ---

const registries = new WeakMap<Broker["Service"], Set<string>>()

const register = (broker: Broker["Service"], group: string, definitions: ReadonlyArray<Definition>) =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const registry = registries.get(broker) ?? new Set<string>()
      registries.set(broker, registry)
      const topics = Array.from(new Set(definitions.map((definition) => definition.topic.name)))
      const taken = topics.find((topic) => registry.has(`${group}\u0000${topic}`))
      if (taken !== undefined) {
        return Effect.fail(
          new ConsumerError({
            reason: new DuplicateHandler({
              group,
              topic: taken,
              detail:
                `"${taken}" is consumed in group "${group}" by this process already, so each would see a part of it. ` +
                `Give both consumers to one Consumer.layer or Consumer.all.`
            })
          })
        )
      }
      const ids = topics.map((topic) => `${group}\u0000${topic}`)
      for (const id of ids) registry.add(id)
      return Effect.succeed({ registry, ids })
    }),
    ({ ids, registry }) =>
      Effect.sync(() => {
        for (const id of ids) registry.delete(id)
      })
  )

// --- topics ---

const requirements = (
  grouped: ReadonlyArray<Definition>,
  group: string,
  broadcast: ReadonlyArray<Definition>
): Array<TopicRequirement> => {
  const byName = new Map<string, TopicRequirement>()
  for (const { topic } of [...grouped, ...broadcast]) {
    const known = byName.get(topic.name)
    byName.set(topic.name, { name: topic.name, create: known?.create ?? topic.create })
  }
  for (const { policy, topic } of grouped) {
    // `block` and `discard` write no dead letters.
    if (policy.exhausted !== "save") continue
    const name = DeadLetter.topicName(topic.name, group)
    byName.set(name, { name, create: topic.create ?? {} })
  }
  return Array.from(byName.values())
}

const deadLetterTimeout = Duration.seconds(30)

const deadLetters = (broker: Broker["Service"]) => (topic: string, record: ProducerRecord) =>
  Effect.flatMap(Shared.lanes(broker), (lanes) =>
    Effect.flatMap(
      lanes.send([{ ...record, topic, bytes: record.value === null ? 0 : record.value.length }], deadLetterTimeout),
      ([outcome]) => Effect.asVoid(outcome!)
    ))

// --- inbox ---

const pruneEvery = Duration.hours(1)

// Each instance prunes; what another has pruned costs nothing. The first time
// comes soon, so that short-lived processes do it, too.
const prune = Effect.fnUntraced(function*(definitions: ReadonlyArray<Definition>, retention: Duration.Duration) {
  if (!definitions.some(({ mode }) => mode === "exactlyOnce")) return
  const store = Context.getUnsafe(yield* Effect.context<never>(), MessageStore)
  yield* Effect.forkScoped(
    store.inbox.prune(retention).pipe(
      Effect.ignore({ log: "Warn", message: "Old inbox marks could not be pruned" }),
      Effect.delay("1 minute"),
      Effect.repeat(Schedule.jittered(Schedule.spaced(pruneEvery)))
    )
  )
})

// --- handlers ---

const handlerOf = Effect.fnUntraced(function*(definition: Definition, group: string) {
  const { batch, concurrency, handle, mode, name, ordering, policy, topic } = definition
  const slots = typeof concurrency === "number" ? Semaphore.makeUnsafe(concurrency) : concurrency
  const one = (event: Event.Event<unknown>) => handle([event])
  const plain: Apply = batch === undefined ? Idempotent.each(one) : Idempotent.batch(handle)
  const handler: Handler = {
    name,
    topic,
    ordering,
    policy,
    slots,
    batch,
    apply: plain,
    grouped: undefined,
    isOutage: () => false
  }
  if (mode !== "exactlyOnce") return handler
  // The consumer's type asks for the store; who casts that away gets a defect and never a weaker guarantee.
  const store = Context.getUnsafe(yield* Effect.context<never>(), MessageStore)
  const consumer = yield* Effect.mapError(store.inbox.consumer(group, name), consumerError)
  const once = ExactlyOnce.make(store, consumer, (events) => skipped(events, group, name))
  const transactional: Handler = {
    ...handler,
    apply: once(plain),
    grouped: definition.group === undefined ? undefined : {
      limits: definition.group,
      apply: (events, began) => once(ExactlyOnce.oneByOne(store, one, began))(events)
    },
    isOutage: (error) => isMessageStoreError(error) && !store.isConflict(error)
  }
  return transactional
})

const skipped = (events: ReadonlyArray<Event.Event<unknown>>, group: string, handler: string) =>
  Effect.forEach(
    events,
    ({ id, offset, partition, topic }) =>
      EngineEvent.log({ _tag: "Duplicate", topic, partition, offset, group, handler, messageId: id }),
    { discard: true }
  )

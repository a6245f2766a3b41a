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
import * as SqlClient from "effect/sql/SqlClient"
import { Broker, type BrokerError, type TopicRequirement } from "../../Broker.ts"
import type * as Event from "../../Event.ts"
import { MessageStore, type MessageStoreError } from "../../MessageStore.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Metrics from "../metrics.ts"
import * as DeadLetter from "../wire/deadLetter.ts"
import { shortKey } from "../wire/envelope.ts"
import { check, ConsumerError, type Definition, DuplicateHandler, OtherDatabase } from "./definition.ts"
import * as Group from "./group.ts"
import type { Handler } from "./handler.ts"
import * as LetterBox from "./letters/letterBox.ts"
import * as Letters from "./letters/letters.ts"
import * as Pulls from "./pulls.ts"
import * as ExactlyOnce from "./run/exactlyOnce.ts"
import * as Idempotent from "./run/idempotent.ts"
import * as Worker from "./run/worker.ts"
import * as Settings from "./settings.ts"

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
  options: Settings.Options | undefined
): Effect.fn.Return<Started, ConsumerError, Broker | Scope.Scope> {
  const broker = yield* Broker
  const wrong = check(definitions, group) ?? Settings.check(options, group, definitions)
  if (wrong !== undefined) return yield* wrong
  const limits = yield* Settings.limits(options)
  const grouped = definitions.filter((definition) => definition.mode !== "broadcast")
  const broadcast = definitions.filter((definition) => definition.mode === "broadcast")
  yield* register(broker, group, grouped)
  const sources = leaving(grouped)
  yield* ensureTopics(broker, definitions, sources, group)
  const shutdownTimeout = Duration.fromInputUnsafe(options?.shutdownTimeout ?? "20 seconds")
  const stuckAfter = Duration.fromInputUnsafe(options?.stuckAfter ?? "6 minutes")
  const writeDeadLetter = LetterBox.writer(broker)
  const handlers = yield* Effect.forEach(grouped, (definition) => handlerOf(definition, group, limits))
  const listeners = yield* Effect.forEach(broadcast, (definition) => handlerOf(definition, group, limits))
  yield* prune(grouped, Settings.inboxRetention(options))
  const running: Array<Effect.Effect<never, BrokerError>> = []
  if (Arr.isArrayNonEmpty(handlers)) {
    const letters = yield* Letters.make({ group, sources: comingBack(grouped, sources, group), write: writeDeadLetter })
    const { applied } = letters
    const started = yield* Effect.mapError(
      Group.make({
        group,
        letters,
        readers: (finished, trusted) =>
          Effect.forEach(
            handlers,
            (handler) => Worker.make({ group, handler, writeDeadLetter, applied, finished, trusted })
          ),
        feed: (onSignal) => broker.subscribe({ group, topics: [...topicsOf(handlers), ...letters.topics], onSignal }),
        shutdownTimeout,
        stuckAfter
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
        shutdownTimeout,
        stuckAfter
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
  yield* ensureTopics(broker, [definition], [definition.topic.name], group)
  const handler = yield* handlerOf(definition, group, [])
  const pulls = Deferred.makeUnsafe<Pulls.Pulls>()
  const { failed } = yield* Effect.mapError(
    Group.make({
      group,
      readers: (finished, trusted) =>
        Effect.gen(function*() {
          const writeDeadLetter = LetterBox.writer(broker)
          const made = yield* Pulls.make({ group, handler, writeDeadLetter, finished, trusted })
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

const requirements = (definitions: ReadonlyArray<Definition>): Array<TopicRequirement> => {
  const byName = new Map<string, TopicRequirement>()
  for (const { topic } of definitions) {
    const known = byName.get(topic.name)
    byName.set(topic.name, { name: topic.name, create: known?.create ?? topic.create })
  }
  return Array.from(byName.values())
}

/** The topics of which this group keeps dead letters: `block` and `discard` leave none. */
const leaving = (grouped: ReadonlyArray<Definition>): Array<string> => {
  const sources = grouped.filter(({ policy }) => policy.exhausted === "save" || policy.exhausted === "retryLater")
  return Array.from(new Set(sources.map(({ topic }) => topic.name)))
}

/** Those whose letters come back. A dead-letter topic that has a handler of its own is that handler's. */
const comingBack = (grouped: ReadonlyArray<Definition>, sources: ReadonlyArray<string>, group: string) =>
  sources.filter((source) => grouped.every(({ topic }) => topic.name !== DeadLetter.topicName(source, group)))

const ensureTopics = Effect.fnUntraced(function*(
  broker: Broker["Service"],
  definitions: ReadonlyArray<Definition>,
  sources: ReadonlyArray<string>,
  group: string
) {
  const boxes = new Set(sources.map((source) => DeadLetter.topicName(source, group)))
  yield* broker.ensureTopics(requirements(definitions.filter(({ topic }) => !boxes.has(topic.name))))
  yield* Effect.forEach(sources, (source) => LetterBox.ensure(broker, source, group), { discard: true })
}, Effect.mapError(consumerError))

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

const handlerOf = Effect.fnUntraced(function*(
  definition: Definition,
  group: string,
  limits: ReadonlyArray<Semaphore.Semaphore>
) {
  const { batch, concurrency, handle, mode, name, ordering, policy, topic } = definition
  const slots = typeof concurrency === "number" ? Semaphore.makeUnsafe(concurrency) : concurrency
  const one = (event: Event.Event<unknown>) => handle([event])
  const plain = batch === undefined ? Idempotent.each(one) : Idempotent.batch(handle)
  const handler: Handler = {
    name,
    topic,
    ordering,
    policy,
    // One that stands for several limits is taken once, else a worker would wait for itself.
    slots: Array.from(new Set([slots, ...limits])),
    batch,
    ...plain,
    rollsBack: false,
    grouped: undefined,
    isOutage: () => false
  }
  if (mode !== "exactlyOnce") return handler
  // The consumer's type asks for the store; who casts that away gets a defect and never a weaker guarantee.
  const context = yield* Effect.context<never>()
  const store = Context.getUnsafe(context, MessageStore)
  const client = Context.getOrUndefined(context, SqlClient.SqlClient)
  if (client !== undefined && !store.joins(client)) {
    return yield* new ConsumerError({ reason: new OtherDatabase({ handler: name, dialect: store.dialect }) })
  }
  const consumer = yield* Effect.mapError(store.inbox.consumer(group, name), consumerError)
  const longest = Duration.fromInputUnsafe(policy.timeout)
  const once = ExactlyOnce.make(store, consumer, longest, (events) => skipped(events, group, name))
  const transactional: Handler = {
    ...handler,
    apply: once.retrying(plain.apply),
    direct: undefined,
    rollsBack: true,
    grouped: definition.group === undefined ? undefined : {
      limits: definition.group,
      // A race that is lost halves the group instead.
      apply: (events, began) => once.transaction(ExactlyOnce.oneByOne(store, one, began))(events)
    },
    isOutage: store.isOutage
  }
  return transactional
})

const skipped = (events: ReadonlyArray<Event.Event<unknown>>, group: string, handler: string) =>
  Effect.andThen(
    Metrics.countDuplicates({ group, topic: events[0]!.topic, handler }, events.length),
    Effect.forEach(
      events,
      ({ id, key, offset, partition, topic }) =>
        EngineEvent.log({
          _tag: "Duplicate",
          topic,
          partition,
          offset,
          key: key === null ? null : shortKey(key),
          group,
          handler,
          messageId: id
        }),
      { discard: true }
    )
  )

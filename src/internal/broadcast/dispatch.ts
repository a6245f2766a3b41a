/**
 * From the records of one topic to the buffers of its subscribers.
 *
 * A record is decoded once per schema, and only if somebody wants it: its key
 * is looked up first. The walk over a chunk is one fiber's loop without an
 * effect per record, unless a schema needs effects to decode.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import type * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { ConsumerRecord } from "../../Broker.ts"
import type * as Event from "../../Event.ts"
import type * as Topic from "../../Topic.ts"
import * as Decode from "../consumer/run/decode.ts"
import * as EngineEvent from "../engineEvent.ts"
import * as Envelope from "../wire/envelope.ts"
import { Audience } from "./audience.ts"
import type { Subscriber, Taken } from "./subscriber.ts"

/** Subscribers whose topics have the same schema and codec: they share what is decoded. */
interface Readers {
  readonly topic: Topic.Any
  readonly decode: Decode.Decode
  readonly audience: Audience<Subscriber>
}

export interface Dispatch {
  readonly add: (topic: Topic.Any, subscriber: Subscriber) => Effect.Effect<void>
  readonly remove: (subscriber: Subscriber) => Effect.Effect<void>
  readonly records: (partition: number, records: ReadonlyArray<ConsumerRecord>) => Effect.Effect<void>
  /** Shows each subscriber something; those who end are forgotten. */
  readonly each: (f: (subscriber: Subscriber) => Taken) => Effect.Effect<void>
  readonly size: () => number
}

/** Records of a chunk after which subscribers get a turn: the least burst that a buffer has to hold. */
const turn = 64
/** Records that do not decode are told of at once, and then at most so often. */
const undecodableEveryMillis = 60_000
/** A schema's issue quotes the payload: no more of it than shows what is wrong. */
const maxReason = 300

export const make = (topic: string, clock: Clock.Clock): Dispatch => {
  let groups: ReadonlyArray<Readers> = []
  const of = new Map<Subscriber, Readers>()
  const said: Array<EngineEvent.EngineEvent> = []

  // --- what there is to tell, at transitions ---

  const losing = new Set<Subscriber>()
  let lostSince = 0
  let undecodable = 0
  let undecodableToldAt = -Infinity

  const lost = (subscriber: Subscriber) => {
    lostSince++
    if (subscriber.losing) return
    subscriber.losing = true
    losing.add(subscriber)
    if (losing.size === 1) said.push({ _tag: "SubscribersTooSlow", topic, buffer: subscriber.settings.buffer })
  }

  const caughtUp = (subscriber: Subscriber) => {
    if (!losing.delete(subscriber)) return
    subscriber.losing = false
    if (losing.size > 0) return
    said.push({ _tag: "SubscribersCaughtUp", topic, lost: lostSince })
    lostSince = 0
  }

  const didNotDecode = (partition: number, record: ConsumerRecord, cause: Cause.Cause<unknown>) => {
    undecodable++
    const now = clock.currentTimeMillisUnsafe()
    if (now - undecodableToldAt < undecodableEveryMillis) return
    undecodableToldAt = now
    const error = Cause.squash(cause)
    const reason = (error instanceof Error ? error.message : String(error)).slice(0, maxReason)
    said.push({ _tag: "BroadcastUndecodable", topic, partition, offset: record.offset, records: undecodable, reason })
    undecodable = 0
  }

  const tell = Effect.suspend(() =>
    said.length === 0 ? Effect.void : Effect.forEach(said.splice(0), EngineEvent.log, { discard: true })
  )

  // --- who is there ---

  const forget = (subscriber: Subscriber) => {
    const readers = of.get(subscriber)
    if (readers === undefined) return
    of.delete(subscriber)
    readers.audience.remove(subscriber, subscriber.settings.key)
    if (readers.audience.isEmpty) groups = groups.filter((other) => other !== readers)
    caughtUp(subscriber)
  }

  const readersOf = (topic: Topic.Any): Readers => {
    const known = groups.find((readers) =>
      readers.topic === topic || (readers.topic.schema === topic.schema && readers.topic.codec === topic.codec)
    )
    if (known !== undefined) return known
    const readers: Readers = { topic, decode: Decode.make(topic), audience: new Audience() }
    groups = [...groups, readers]
    return readers
  }

  // --- one record ---

  const take = (subscriber: Subscriber, event: Event.Event<unknown>) => {
    const taken = subscriber.offer(event)
    if (taken === "Full") lost(subscriber)
    else if (taken === "Ended") forget(subscriber)
    else if (subscriber.losing && subscriber.waiting <= subscriber.settings.buffer / 2) caughtUp(subscriber)
  }

  const deliver = (
    { audience }: Readers,
    following: ReadonlySet<Subscriber>,
    partition: number,
    record: ConsumerRecord,
    decoded: Exit.Exit<Event.Event<unknown>, unknown>
  ) => {
    if (Exit.isSuccess(decoded)) {
      for (const subscriber of following) take(subscriber, decoded.value)
      for (const subscriber of audience.everything) take(subscriber, decoded.value)
      return
    }
    for (const subscriber of following) subscriber.undecodable++
    for (const subscriber of audience.everything) subscriber.undecodable++
    didNotDecode(partition, record, decoded.cause)
  }

  const decodeOf = ({ decode }: Readers, partition: number, record: ConsumerRecord) => {
    try {
      return decode(partition, record, 1)
    } catch (defect) {
      return Exit.die(defect)
    }
  }

  const records = Effect.fnUntraced(function*(partition: number, chunk: ReadonlyArray<ConsumerRecord>) {
    let delivered = 0
    for (const record of chunk) {
      let keyText: string | undefined
      for (const readers of groups) {
        const { audience } = readers
        const following = audience.hasKeys && record.key !== null
          ? audience.following(keyText ??= Envelope.asText(record.key))
          : nobody
        if (following.size === 0 && audience.everything.size === 0) continue
        const decoding = decodeOf(readers, partition, record)
        const decoded = Exit.isExit(decoding)
          ? decoding
          : yield* Effect.exit(Effect.provideContext(decoding, servicesOf(following, audience)))
        deliver(readers, following, partition, record, decoded as Exit.Exit<Event.Event<unknown>, unknown>)
        if (++delivered % turn === 0) yield* Effect.yieldNow
      }
    }
    yield* tell
  })

  return {
    records,
    add: (topic, subscriber) =>
      Effect.sync(() => {
        const readers = readersOf(topic)
        of.set(subscriber, readers)
        readers.audience.add(subscriber, subscriber.settings.key)
      }),
    remove: (subscriber) => Effect.andThen(Effect.sync(() => forget(subscriber)), tell),
    each: (f) =>
      Effect.andThen(
        Effect.sync(() => {
          for (const subscriber of of.keys()) if (f(subscriber) === "Ended") forget(subscriber)
        }),
        tell
      ),
    size: () => of.size
  }
}

const nobody: ReadonlySet<never> = new Set<never>()

/** Services to decode with: those of somebody who wants the event, and so still lives. */
const servicesOf = (following: ReadonlySet<Subscriber>, audience: Audience<Subscriber>): Context.Context<never> => {
  for (const subscriber of following) return subscriber.context
  for (const subscriber of audience.everything) return subscriber.context
  return Context.empty()
}

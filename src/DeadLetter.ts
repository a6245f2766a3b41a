/**
 * Dead letters: what handlers gave up on, and what is to become of it.
 *
 * Under `FailurePolicy.save` and `FailurePolicy.retryLater` such an event lies
 * in the topic `<topic>.<group>.dead-letter`, with the reason. It stays until
 * the topic's retention ends (that of the source, at least 7 days), and until
 * then it can be looked at, given to its handler once more, or dropped.
 *
 * Nothing is changed in place: `replay` and `drop` append a marker with the
 * letter's id, and the group, which reads its own dead-letter topics, acts on
 * it. So they work from any program that may write the topic, also while the
 * consumers are down.
 *
 * @since 0.1.0
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { Broker, type BrokerError, type ConsumerRecord, type Headers } from "./Broker.ts"
import type * as Event from "./Event.ts"
import * as LetterBox from "./internal/consumer/letters/letterBox.ts"
import * as Decode from "./internal/consumer/run/decode.ts"
import { Fold, type State } from "./internal/deadLetter/fold.ts"
import * as Wire from "./internal/wire/deadLetter.ts"
import * as Envelope from "./internal/wire/envelope.ts"
import type * as Topic from "./Topic.ts"

/**
 * An event that a handler gave up on.
 *
 * **Details**
 *
 * - `state`: `"saved"` lies there; `"waiting"` comes back by itself at `due`
 *   (`retryLater`); `"replaying"` was asked for and not yet applied.
 * - `topic`, `partition`, `offset`, `time`: where and when the event lay first.
 * - `key`, `headers`, `value`: the record as it came; `decode` reads it.
 * - `attempts`: of all rounds together; `rounds`: how often it came back and
 *   failed again; `replays`: how many of these were asked for.
 * - `trace`: the `traceparent` that the event carries.
 *
 * @category models
 * @since 0.1.0
 */
export interface Letter {
  /** The same for every copy: it derives from group, handler and message id. */
  readonly id: string
  readonly state: State
  readonly group: string
  readonly handler: string
  readonly messageId: string
  readonly error: { readonly tag: string; readonly message: string }
  readonly attempts: number
  readonly rounds: number
  readonly replays: number
  readonly firstFailure: DateTime.Utc
  readonly lastFailure: DateTime.Utc
  readonly due: DateTime.Utc | undefined
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  readonly time: DateTime.Utc
  readonly trace: string | undefined
  readonly key: string | null
  readonly headers: Headers
  readonly value: Uint8Array | null
}

/**
 * Which letters are meant: those that satisfy every condition that is given.
 *
 * @category options
 * @since 0.1.0
 */
export interface Filter {
  /** One letter, or several. */
  readonly id?: string | ReadonlyArray<string> | undefined
  readonly handler?: string | undefined
  readonly errorTag?: string | undefined
  /** `null`: events without a key. */
  readonly key?: string | null | undefined
  readonly state?: State | undefined
  /** Last failed at this time or later. */
  readonly from?: DateTime.DateTime | undefined
  /** Last failed before this time. */
  readonly to?: DateTime.DateTime | undefined
}

/**
 * There is no open letter of this id: it was applied or dropped, or the topic's
 * retention has ended.
 *
 * @category errors
 * @since 0.1.0
 */
export class LetterNotFound extends Schema.TaggedError<LetterNotFound>("effect-events/DeadLetter/LetterNotFound")(
  "LetterNotFound",
  { id: Schema.String, topic: Schema.String }
) {
  override get message() {
    return `No open letter "${this.id}" lies in "${this.topic}". It was applied, dropped or has expired; list shows what is open.`
  }
}

/** A letter, and what is needed to write a marker of it. */
interface Found {
  readonly letter: Letter
  readonly head: Wire.Head
  readonly at: number
  readonly raw: ConsumerRecord
}

const nameOf = (source: Topic.Any | string): string => typeof source === "string" ? source : source.name

const timeOf = (text: string | undefined, otherwise: number): DateTime.Utc =>
  Option.match(text === undefined ? Option.none() : DateTime.make(text), {
    onNone: () => DateTime.makeUnsafe(otherwise),
    onSome: DateTime.toUtc
  })

const letterOf = (source: string, state: State, head: Wire.Head, at: number, raw: ConsumerRecord): Letter => {
  const { attempts, firstFailure, partition, record, topic } = Wire.restore(head, at, raw)
  const text = (name: string) => Envelope.header(raw.headers, name)
  return {
    id: head.id,
    state,
    group: head.group,
    handler: head.handler,
    messageId: Envelope.read(source, partition, record).id,
    error: { tag: text(Wire.names.errorTag) ?? "", message: text(Wire.names.errorMessage) ?? "" },
    attempts,
    rounds: head.round,
    replays: head.replays,
    firstFailure: timeOf(firstFailure, raw.timestamp),
    lastFailure: timeOf(text(Wire.names.lastFailure), raw.timestamp),
    due: head.due === undefined ? undefined : DateTime.makeUnsafe(head.due),
    topic: topic ?? source,
    partition,
    offset: record.offset,
    time: DateTime.makeUnsafe(record.timestamp),
    trace: Envelope.header(record.headers, Envelope.traceparent),
    key: record.key === null ? null : Envelope.asText(record.key),
    headers: record.headers,
    value: record.value
  }
}

const satisfies = ({ errorTag, from, handler, id, key, state, to }: Filter) => ({ letter }: Found): boolean =>
  (id === undefined || (typeof id === "string" ? id === letter.id : id.includes(letter.id))) &&
  (handler === undefined || handler === letter.handler) &&
  (errorTag === undefined || errorTag === letter.error.tag) &&
  (key === undefined || key === letter.key) &&
  (state === undefined || state === letter.state) &&
  (from === undefined || letter.lastFailure.epochMilliseconds >= from.epochMilliseconds) &&
  (to === undefined || letter.lastFailure.epochMilliseconds < to.epochMilliseconds)

// Read twice: first to know which copy of a letter is its last, then to give
// those, so that no value is kept meanwhile.
const find = (
  source: Topic.Any | string,
  group: string,
  filter: Filter
): Stream.Stream<Found, BrokerError, Broker> =>
  Stream.unwrap(Effect.gen(function*() {
    const broker = yield* Broker
    const topic = Wire.topicName(nameOf(source), group)
    const fold = new Fold(topic, group)
    yield* Stream.runForEach(broker.read(topic), ({ partition, records }) =>
      Effect.sync(() => {
        for (const record of records) fold.add(partition, record)
      }))
    return broker.read(topic).pipe(
      Stream.map(({ partition, records }) =>
        records.flatMap((raw): Array<Found> => {
          const found = fold.find(partition, raw)
          if (found === undefined) return []
          const { head, state } = found
          return [{ letter: letterOf(nameOf(source), state, head, partition, raw), head, at: partition, raw }]
        }).filter(satisfies(filter))
      ),
      Stream.flattenIterable
    )
  }))

/**
 * The open letters of a topic and group, each once.
 *
 * **Details**
 *
 * Those that were applied or dropped are left out. The topic is read twice,
 * from its beginning to where it ends now; memory follows the number of open
 * letters and not their size. Fails with reason `UnknownTopic` if the group
 * keeps no dead letters of that topic.
 *
 * **Example** (What failed, by error)
 *
 * ```ts
 * import { Effect, Stream } from "effect"
 * import { DeadLetter } from "effect-events"
 *
 * const failed = DeadLetter.list("orders.placed", "billing", { handler: "issue-invoice" }).pipe(
 *   Stream.runForEach((letter) => Effect.log(letter.id, letter.error.tag, letter.attempts))
 * )
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const list = (
  source: Topic.Any | string,
  group: string,
  filter: Filter = {}
): Stream.Stream<Letter, BrokerError, Broker> => Stream.map(find(source, group, filter), ({ letter }) => letter)

/**
 * One open letter.
 *
 * @category accessors
 * @since 0.1.0
 */
export const show = (
  source: Topic.Any | string,
  group: string,
  id: string
): Effect.Effect<Letter, LetterNotFound | BrokerError, Broker> =>
  Effect.flatMap(
    Stream.runHead(list(source, group, { id })),
    Option.match({
      onNone: () => Effect.fail(new LetterNotFound({ id, topic: Wire.topicName(nameOf(source), group) })),
      onSome: Effect.succeed
    })
  )

/**
 * The event of a letter, as its handler would get it. Fails with `Undecodable`
 * if it is not what the topic's schema describes, which may be why it is dead.
 *
 * **Example** (A letter and its payload)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { DeadLetter, Topic } from "effect-events"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 *
 * const orderOf = (id: string) =>
 *   Effect.gen(function*() {
 *     const letter = yield* DeadLetter.show(Orders, "billing", id)
 *     const event = yield* DeadLetter.decode(Orders, letter)
 *     return event.payload.orderId
 *   })
 * ```
 *
 * @category accessors
 * @since 0.1.0
 */
export const decode = <S extends Schema.Constraint>(
  topic: Topic.Topic<S>,
  letter: Letter
): Effect.Effect<Event.Event<S["Type"]>, Decode.Undecodable, S["DecodingServices"]> => {
  const { headers, key, offset, partition, time, value } = letter
  const record: ConsumerRecord = {
    key: key === null ? null : Buffer.from(key),
    value,
    headers,
    offset,
    timestamp: time.epochMilliseconds
  }
  // A service that the schema's decoding needs is taken from whoever runs this.
  return Decode.make(topic)(partition, record, 1)
}

/**
 * How often a letter may be replayed unless `force` is given: a loop that
 * replays what fails again ends by itself.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxReplays = 20

/**
 * What `replay` did.
 *
 * @category models
 * @since 0.1.0
 */
export interface Replayed {
  /** Letters that their handlers get once more. */
  readonly replayed: number
  /** Letters left alone, since an earlier replay of them is under way. */
  readonly underWay: number
  /** Letters left alone, since they have been replayed `maxReplays` times. */
  readonly refused: number
}

/** Letters whose markers are written at the same time. */
const together = 64

/**
 * Gives letters to their handlers once more, and to no others.
 *
 * **Details**
 *
 * Returns when that is written down; the handlers run in the members of the
 * group, now or when they are started. The event is what it was first, with
 * its id, place and time. A message that `exactlyOnce` has applied meanwhile
 * is recognised and skipped. One that fails again by its policy is the same
 * letter as before, with one round more.
 *
 * A replay keeps no order with other events of its key, and may run beside
 * them. It reaches consumers of the forms with a handler, not those of
 * `Consumer.stream`. If its handler no longer exists, the letter stays.
 *
 * **Example** (After a fix)
 *
 * ```ts
 * import { DeadLetter } from "effect-events"
 *
 * const again = DeadLetter.replay("orders.placed", "billing", { errorTag: "TypeError" })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const replay = (
  source: Topic.Any | string,
  group: string,
  filter: Filter,
  options?: {
    /** Also letters that are being replayed, or have been `maxReplays` times. Default: no. */
    readonly force?: boolean | undefined
  }
): Effect.Effect<Replayed, BrokerError, Broker> =>
  Effect.gen(function*() {
    const write = LetterBox.writer(yield* Broker)
    const force = options?.force ?? false
    const count = { replayed: 0, underWay: 0, refused: 0 }
    const topic = Wire.topicName(nameOf(source), group)
    yield* Stream.runDrain(Stream.mapEffect(
      find(source, group, filter),
      ({ at, head, letter, raw }) => {
        const outcome = force || (letter.state !== "replaying" && letter.replays < maxReplays)
          ? "replayed"
          : letter.state === "replaying"
          ? "underWay"
          : "refused"
        const counted = Effect.sync(() => void count[outcome]++)
        return outcome === "replayed" ? Effect.andThen(write(topic, Wire.replay(raw, head), at), counted) : counted
      },
      { concurrency: together }
    ))
    return count
  })

/**
 * Drops letters: they are listed no more, and do not come back. Returns how
 * many. What runs already is not interrupted, and if it fails it is a letter
 * again.
 *
 * **Example** (Dropping one letter)
 *
 * ```ts
 * import { DeadLetter } from "effect-events"
 *
 * const forget = (id: string) => DeadLetter.drop("orders.placed", "billing", { id })
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const drop = (
  source: Topic.Any | string,
  group: string,
  filter: Filter
): Effect.Effect<number, BrokerError, Broker> =>
  Effect.gen(function*() {
    const write = LetterBox.writer(yield* Broker)
    const topic = Wire.topicName(nameOf(source), group)
    const dropped = Stream.mapEffect(
      find(source, group, filter),
      ({ at, head, raw }) => write(topic, Wire.marker("drop", head, raw.key), at),
      { concurrency: together }
    )
    return yield* Stream.runCount(dropped)
  })

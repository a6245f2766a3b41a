/** Bad input: handlers and records that misbehave in every way that we could think of. */
import { assert } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import * as Consumer from "../../../src/Consumer.ts"
import * as Event from "../../../src/Event.ts"
import * as Publisher from "../../../src/Publisher.ts"
import * as Topic from "../../../src/Topic.ts"
import { record, sendRecords } from "../broker/support.ts"
import { cases, freshName, type It } from "../features.ts"
import {
  ascending,
  type Call,
  callOf,
  created,
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
  recordsOf,
  savingAtOnce,
  type Services,
  text,
  upTo
} from "./support.ts"

/** What a handler may throw, and what the dead letter says of it. */
const thrown: ReadonlyArray<readonly [name: string, value: unknown, tag: string]> = [
  ["text", "only text", "string"],
  ["undefined", undefined, "undefined"],
  ["null", null, "object"],
  ["a number", 42, "number"],
  ["a symbol", Symbol("no error"), "symbol"],
  ["a function", () => "no error", "function"],
  ["an object", { code: 7 }, "object"],
  ["an object with a tag", { _tag: "Tagged" }, "Tagged"]
]

class Tenants extends Context.Service<Tenants, {
  readonly nameOf: (id: number) => Effect.Effect<string, string>
}>()("effect-events/test/Tenants") {}

export const badInput = (it: It<Services>, features: FrontFeatures): void => {
  const { check } = cases(it, features)

  /** The middle one of three events of one key meets `misbehave`; returns its dead letters once the last one is handled. */
  const misbehaving = Effect.fnUntraced(function*(
    misbehave: Effect.Effect<void>,
    policy: typeof savingAtOnce = savingAtOnce
  ) {
    const topic = yield* freshTopic(1)
    const group = yield* freshGroup
    const log = makeLog<Call>()
    yield* publishAll(topic, items(3, 1))
    const running = yield* member(group, [
      Consumer.idempotent(topic, (event) => event.payload.n === 1 ? misbehave : log.add(callOf(event)), {
        onFailure: policy
      })
    ])
    yield* log.untilCount(2)
    yield* running.stop
    assert.deepStrictEqual(numbers(log.all), [0, 2])
    const letters = yield* deadLetters(topic, group)
    assert.deepStrictEqual(letters.map((letter) => JSON.parse(text(letter.value)!).n), [1])
    return letters[0]!
  })

  const throwing = (value: unknown) =>
    Effect.sync(() => {
      throw value
    })

  for (const [name, value, tag] of thrown) {
    check(
      `a handler that throws ${name} fails its event only, and the dead letter says what it was`,
      () =>
        Effect.gen(function*() {
          const letter = yield* misbehaving(throwing(value))
          assert.strictEqual(headerText(letter, "dl_error_tag"), tag)
        })
    )
  }

  check("a handler whose finalizer throws fails its event only", () =>
    misbehaving(
      Effect.addFinalizer(() => throwing(new TypeError("in a finalizer"))).pipe(Effect.scoped, Effect.asVoid)
    ).pipe(Effect.map((letter) => assert.strictEqual(headerText(letter, "dl_error_tag"), "TypeError"))))

  check(
    "a handler that never ends and throws when it is interrupted fails its event only",
    () =>
      Effect.gen(function*() {
        const letter = yield* misbehaving(
          Effect.ensuring(Effect.never, throwing(new TypeError("while it is interrupted"))),
          { ...savingAtOnce, timeout: "50 millis" }
        )
        assert.strictEqual(headerText(letter, "dl_error_tag"), "HandlerTimeout")
      })
  )

  check(
    "a handler that fails while a scope that it was given closes fails its event only",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* publishAll(topic, items(3, 1))
        const running = yield* member(group, [
          Consumer.idempotent(topic, (event) =>
            event.payload.n === 1
              ? Effect.addFinalizer(() => throwing("in the handler's own scope"))
              : log.add(callOf(event)), { onFailure: savingAtOnce })
        ])
        yield* log.untilCount(2)
        yield* running.stop
        assert.deepStrictEqual(numbers(log.all), [0, 2])
        assert.strictEqual((yield* deadLetters(topic, group)).length, 1)
      })
  )

  check(
    "a schema whose decoding needs a service gets the one of the program, and its failures are the record's",
    () =>
      Effect.gen(function*() {
        const Tenant = Schema.Number.pipe(Schema.decodeTo(
          Schema.String,
          SchemaTransformation.transformEffect({
            decode: (id: number) =>
              Effect.flatMap(Tenants, ({ nameOf }) => nameOf(id)).pipe(
                Effect.mapError((message) => new SchemaIssue.InvalidValue({ message }))
              ),
            encode: (name: string) => Effect.succeed(name.length)
          })
        ))
        const topic = yield* created(
          Topic.make(yield* freshName("front"), {
            schema: Schema.Struct({ tenant: Tenant }),
            create: { partitions: 1 }
          })
        )
        const group = yield* freshGroup
        const log = makeLog<string>()
        for (const tenant of [1, 2, 3]) {
          yield* sendRecords(topic.name, 0, [record(JSON.stringify({ tenant }), "k")])
        }
        const tenants = Tenants.of({
          // Not at once: the decoding is an effect like any other.
          nameOf: (id) =>
            Effect.andThen(Effect.yieldNow, id === 2 ? Effect.fail("unknown tenant") : Effect.succeed(`t${id}`))
        })
        const running = yield* Effect.provideService(
          member(group, [
            Consumer.idempotent(topic, (event) => log.add(event.payload.tenant), { onFailure: savingAtOnce })
          ]),
          Tenants,
          tenants
        )
        yield* log.untilCount(2)
        yield* running.stop
        assert.deepStrictEqual(log.all, ["t1", "t3"])
        const letters = yield* recordsOf(`${topic.name}.${group}.dead-letter`, 1)
        assert.deepStrictEqual(letters.map((letter) => headerText(letter, "dl_error_tag")), ["Undecodable"])
        assert.include(headerText(letters[0]!, "dl_error_message")!, "unknown tenant")
      })
  )

  check(
    "a record of 8 MB arrives whole, between small ones and in order, where topic and broker allow it",
    () =>
      Effect.gen(function*() {
        const maxBytes = 9_000_000
        const topic = yield* created(Topic.make(yield* freshName("front"), {
          schema: Schema.Struct({ n: Schema.Number, text: Schema.String }),
          key: () => "k",
          maxBytes,
          create: { partitions: 1, config: { "max.message.bytes": String(maxBytes) } }
        }))
        const group = yield* freshGroup
        const log = makeLog<{ readonly n: number; readonly text: string }>()
        const large = "0123456789abcdef".repeat(500_000)
        for (const n of upTo(3)) yield* Publisher.publish(topic, { n, text: n === 1 ? large : "small" })
        yield* member(group, [
          Consumer.idempotent(topic, (event) => log.add(event.payload), { onFailure: savingAtOnce })
        ])
        yield* log.until("three", (all) => all.length >= 3)
        assert.deepStrictEqual(numbers(log.all), [0, 1, 2])
        assert.isTrue(log.all[1]!.text === large, "the payload has changed")
      })
  )

  check("an event with 5,000 headers arrives with all of them", () =>
    Effect.gen(function*() {
      const topic = yield* freshTopic(1)
      const group = yield* freshGroup
      const headers = Object.fromEntries(upTo(5_000).map((n) => [`header-${n}`, `value-${n}`]))
      const log = makeLog<number>()
      yield* Publisher.publish(topic, { key: "k", n: 1 }, { headers })
      yield* member(group, [
        Consumer.idempotent(
          topic,
          (event) =>
            log.add(Object.entries(headers).filter(([name, value]) => Event.header(event, name) === value).length),
          { onFailure: savingAtOnce }
        )
      ])
      yield* log.untilCount(1)
      assert.deepStrictEqual(log.all, [5_000])
    }))

  check(
    "a null value where the schema wants an object is a dead letter that is a tombstone, and the rest goes on",
    () =>
      Effect.gen(function*() {
        const topic = yield* freshTopic(1)
        const group = yield* freshGroup
        const log = makeLog<Call>()
        yield* publishAll(topic, items(1, 1))
        yield* sendRecords(topic.name, 0, [record(null, "key-0")])
        // The value "null" is no tombstone, and no object either.
        yield* sendRecords(topic.name, 0, [record("null", "key-0")])
        yield* publishAll(topic, items(1, 1, 1))
        const running = yield* member(group, [
          Consumer.idempotent(topic, (event) => log.add(callOf(event)), { onFailure: savingAtOnce })
        ])
        yield* log.untilCount(2)
        yield* running.stop
        assert.deepStrictEqual(ascending(numbers(log.all)), [0, 1])
        const letters = yield* deadLetters(topic, group)
        assert.deepStrictEqual(letters.map((letter) => [text(letter.value), headerText(letter, "dl_error_tag")]), [
          [null, "Undecodable"],
          ["null", "Undecodable"]
        ])
      })
  )
}

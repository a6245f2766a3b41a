/** Members over both clients in one group, as in a rolling deploy from one to the other. */
import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Broker, type Subscription } from "../../../src/Broker.ts"
import * as KafkaJs from "../../../src/Layers/KafkaJs.ts"
import * as Platformatic from "../../../src/Layers/Platformatic.ts"
import * as Journal from "../../suites/broker/journal.ts"
import { sorted } from "../../suites/broker/support.ts"
import { isPlatformatic } from "../../support/kafkaClient.ts"
import { kafkaBrokers, requireOrSkip } from "../../support/services.ts"
import { freshName, newTopic, sendText, upTo } from "./support.ts"

const partitions = 6

const over = (layer: typeof KafkaJs.layer) =>
  Effect.map(
    Layer.build(layer({ brokers: kafkaBrokers!, heartbeatInterval: "500 millis", sessionTimeout: "6 seconds" })),
    Context.get(Broker)
  )

/** A member that commits all that it was given when partitions are revoked. */
const member = Effect.fnUntraced(function*(
  journal: Journal.Journal,
  broker: Broker["Service"],
  name: string,
  at: { readonly group: string; readonly topics: ReadonlyArray<string> }
) {
  const subscription = yield* Deferred.make<Subscription>()
  const joined = yield* journal.member(name, {
    ...at,
    hook: (signal) =>
      signal._tag === "Revoked"
        ? Deferred.await(subscription).pipe(
          Effect.flatMap((member) => member.commit(journal.positions(name))),
          Effect.orDie
        )
        : Effect.void
  }).pipe(Effect.provideService(Broker, broker))
  yield* Deferred.succeed(subscription, joined)
})

// Once: it has both clients in it.
describe.skipIf(isPlatformatic || requireOrSkip("kafka"))("members over both clients", () => {
  for (
    const [name, first, second] of [
      ["KafkaJs, then Platformatic", KafkaJs.layer, Platformatic.layer],
      ["Platformatic, then KafkaJs", Platformatic.layer, KafkaJs.layer]
    ] as const
  ) {
    it.live(`${name}: share a group while records flow, lose none and double none`, () =>
      Effect.gen(function*() {
        const [one, other] = [yield* over(first), yield* over(second)]
        const topic = yield* newTopic(one, partitions)
        const at = { group: yield* freshName("group"), topics: [topic] }
        const journal = yield* Journal.make
        const producer = yield* one.producer
        const sent: Array<string> = []
        const send = (round: number) =>
          Effect.forEach(upTo(partitions), (partition) => {
            const text = `v-${round}-${partition}`
            sent.push(text)
            return sendText(producer, topic, partition, text)
          }, { concurrency: "unbounded", discard: true })
        yield* member(journal, one, "a", at)
        yield* Effect.forkScoped(
          Effect.forEach(upTo(60), (round) => Effect.andThen(send(round), Effect.sleep("50 millis")))
        )
        yield* journal.until("a reads", () => journal.deliveries("a").length > 0)
        yield* member(journal, other, "b", at)
        yield* journal.until("three each", () => journal.held("a").length === 3 && journal.held("b").length === 3)
        yield* member(journal, first === KafkaJs.layer ? one : other, "c", at)
        yield* journal.until("two each", () => ["a", "b", "c"].every((name) => journal.held(name).length === 2))
        yield* journal.until("all", () => new Set(journal.texts()).size === 60 * partitions)
        assert.deepStrictEqual(sorted(journal.texts()), sorted(sent))
      }), 180_000)
  }
})

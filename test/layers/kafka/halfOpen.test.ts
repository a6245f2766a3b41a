/** Connections that stay open and carry nothing any more, seen by a whole program. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Consumer from "../../../src/Consumer.ts"
import { freshPrefix } from "../../suites/consumer/kafka.ts"
import {
  ascending,
  type Call,
  callOf,
  freshGroup,
  freshTopic,
  items,
  makeLog,
  member,
  numbers,
  publishAll,
  savingAtOnce,
  silent,
  upTo
} from "../../suites/consumer/support.ts"
import { KafkaLayer } from "../../support/kafkaClient.ts"
import { startProxy } from "../../support/proxy.ts"
import { kafkaBrokers, requireOrSkip } from "../../support/services.ts"

describe.skipIf(requireOrSkip("kafka"))("a program whose connections go silent", () => {
  it.live(
    "goes on over new ones: every event is published and handled, once, in the order of its key",
    () =>
      Effect.gen(function*() {
        const proxy = yield* startProxy(kafkaBrokers![0]!)
        const kafka = KafkaLayer.layer({
          brokers: [proxy.address],
          topicPrefix: yield* freshPrefix,
          requestTimeout: "3 seconds",
          // The membership outlives the silence.
          sessionTimeout: "45 seconds",
          heartbeatInterval: "1 second"
        })
        yield* Effect.gen(function*() {
          const topic = yield* freshTopic(3)
          const log = makeLog<Call>()
          const consume = Consumer.idempotent(topic, (event) => log.add(callOf(event)), { onFailure: savingAtOnce })
          yield* member(yield* freshGroup, [consume])
          const rounds = 4
          for (const round of upTo(rounds)) {
            if (round > 0) yield* proxy.freeze
            yield* publishAll(topic, items(50, 10, round * 50))
            yield* log.untilCount((round + 1) * 50)
          }
          assert.deepStrictEqual(ascending(numbers(log.all)), upTo(rounds * 50))
          for (const key of upTo(10)) {
            const own = numbers(log.all).filter((n) => n % 10 === key)
            assert.deepStrictEqual(own, ascending(own))
          }
        }).pipe(Effect.provide(kafka))
      }).pipe(Effect.scoped, Effect.provide(silent)),
    180_000
  )
})

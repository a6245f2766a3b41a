/** Where a group has left off is not told from before a commit that the coordinator has, but not confirmed. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Schedule from "effect/Schedule"
import { createRequire } from "node:module"
import { coordinatorMoved } from "../../../src/Layers/internal/kafka/failure.ts"
import * as CommittedOffsets from "../../../src/Layers/internal/kafkajs/committedOffsets.ts"
import * as Coordinator from "../../../src/Layers/internal/kafkajs/coordinator.ts"
import { attempt } from "../../../src/Layers/internal/kafkajs/errors.ts"
import type { Network, Node } from "../../../src/Layers/internal/kafkajs/internals.ts"
import { requireOrSkip } from "../../support/services.ts"
import { ownKafka } from "../kafka/cluster.ts"
import { commitAt, outside } from "../kafka/outside.ts"

const { parse } = createRequire(import.meta.url)("kafkajs/src/protocol/requests/offsetFetch/v4/response")
const at = { topic: "items", partition: 0 }
const request = { groupId: "group", topics: [{ topic: at.topic, partitions: [{ partition: at.partition }] }] }

describe.skipIf(requireOrSkip("kafka"))("a committed offset", () => {
  // A coordinator that has just taken over has commits of which it does not
  // know that they are confirmed. One whose followers are frozen, too.
  it.live(
    "that its coordinator has not seen confirmed is waited for, where KafkaJS is told an older one",
    () =>
      Effect.gen(function*() {
        const cluster = yield* ownKafka({ nodes: 3 })
        const kafka = outside(cluster.brokers)
        yield* kafka.createTopic(at.topic, 1)
        // The coordinators of a new cluster are still loading.
        yield* Effect.retry(Effect.sandbox(kafka.commit("group", at, 5n, "")), Schedule.spaced("100 millis"))
        const find = (network: Network) => Effect.promise(() => network.findGroupCoordinator({ groupId: "group" }))
        const [one, another, third] = yield* Effect.all([kafka.openNetwork, kafka.openNetwork, kafka.openNetwork])
        const [kafkaJs, committer] = [yield* find(one), yield* find(another)]
        yield* Coordinator.install(third, "group", { beforeJoin: Effect.void, onEvicted: () => {}, onReset: () => {} })
        const standIn = yield* find(third)
        const others = cluster.nodes.filter((node) => node.broker !== kafkaJs.brokerAddress)
        const ask = (node: Node) =>
          Effect.promise(() => node.offsetFetch(request).then(({ responses }) => responses[0]!.partitions[0]!.offset))
        const [theirs, ours] = [ask(kafkaJs), ask(standIn)]
        assert.deepStrictEqual([yield* theirs, yield* ours], ["5", "5"])

        const { committing, old, waiting } = yield* Effect.acquireUseRelease(
          Effect.sync(() => others.forEach((node) => node.pause())),
          () =>
            Effect.gen(function*() {
              const committing = yield* Effect.forkChild(Effect.promise(() => commitAt(committer, "group", at, 9n, "")))
              // The commit has reached the coordinator when an answer is held back.
              for (let round = 0; round < 20; round++) {
                const waiting = yield* Effect.forkChild(ours)
                const answer = yield* Effect.timeoutOption(Fiber.join(waiting), "1 second")
                if (answer._tag === "None") return { committing, waiting, old: yield* theirs }
              }
              return yield* Effect.die(new Error("no answer was held back"))
            }),
          () => Effect.sync(() => others.forEach((node) => node.resume()))
        )
        yield* Fiber.join(committing)
        assert.strictEqual(yield* Fiber.join(waiting), "9")
        // The trap: what KafkaJS begins with when it joins at such a moment.
        assert.strictEqual(old, "5")
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect("is asked for as KafkaJS does where a broker speaks nothing newer", () =>
    Effect.gen(function*() {
      const answer = { responses: [] }
      const node = {
        versions: { 9: { minVersion: 0, maxVersion: 6 } },
        offsetFetch: () => Promise.resolve(answer)
      } as unknown as Node
      assert.strictEqual(yield* Effect.promise(() => CommittedOffsets.fetch(node, request)), answer)
    }))

  it.live("that a coordinator is no longer asked for fails as KafkaJS would", () =>
    Effect.gen(function*() {
      const moved = Buffer.from([0, 0, 0, 0, 0, 1, 0, 16, 0])
      const node = {
        versions: { 9: { minVersion: 0, maxVersion: 9 } },
        lookupRequest: () => () => ({ response: { parse } }),
        offsetFetch() {
          const { response } = (this as unknown as Node).lookupRequest()()
          return response.decode(moved).then(response.parse)
        }
      } as unknown as Node
      const failure = yield* Effect.flip(attempt(() => CommittedOffsets.fetch(node, request)))
      assert.isTrue(coordinatorMoved(failure), failure.detail)
    }))
})

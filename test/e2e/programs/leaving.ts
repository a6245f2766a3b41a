/**
 * Many members leave, one after the other, while they find out that one of
 * three brokers is gone. Says `left` when all of them have.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { ownKafka } from "../../layers/kafka/cluster.ts"
import { connect, freshName, newTopic } from "../../layers/kafka/support.ts"
import { upTo } from "../../suites/consumer/support.ts"
import { say, silent } from "./services.ts"

const members = 60

Effect.gen(function*() {
  const cluster = yield* ownKafka({ nodes: 3 })
  const broker = yield* connect({ brokers: cluster.brokers, metadataMaxAge: "500 millis" })
  const topic = yield* newTopic(broker, 6)
  const scopes = yield* Effect.forEach(upTo(members), () =>
    Effect.gen(function*() {
      const scope = yield* Scope.fork(yield* Effect.scope)
      const group = yield* freshName("leaving")
      yield* broker.subscribe({ group, topics: [topic], onSignal: () => Effect.void }).pipe(Scope.provide(scope))
      return scope
    }), { concurrency: 10 })
  yield* say("ready", members)
  yield* Effect.promise(() => cluster.nodes[2]!.stop())
  yield* say("stopped", 1)
  yield* Effect.forEach(
    scopes,
    (scope, n) => Effect.andThen(Effect.sleep(n * 50), Scope.close(scope, Exit.void)),
    { concurrency: "unbounded", discard: true }
  )
  yield* say("left", members)
}).pipe(Effect.scoped, Effect.provide(silent), NodeRuntime.runMain)

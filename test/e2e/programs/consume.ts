/**
 * Applies events exactly once. With `hold` it announces `commit` where it
 * would commit its offsets to the broker, and goes no further: the database
 * has committed by then.
 */
import { Broker } from "effect-events/Broker"
import * as Consumer from "effect-events/Consumer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import { Items, kafka, launch, say, settings, store } from "./services.ts"

// Partition ordering: when an event is handled, so is all before it in its partition.
const apply = Consumer.exactlyOnce(Items, (event) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* say("apply", event.payload.n)
    yield* sql`insert into applied (n, message) values (${event.payload.n}, ${event.id})`
  }), { name: "apply", ordering: "partition" })

/** Sees every delivery, also of what was applied before. */
const witness = Consumer.idempotent(Items, (event) => say("see", event.payload.n), {
  name: "witness",
  ordering: "partition"
})

const broker = settings.hold
  ? Layer.effect(
    Broker,
    Broker.use((broker) =>
      Effect.succeed(Broker.of({
        ...broker,
        subscribe: (options) =>
          Effect.map(broker.subscribe(options), (subscription) => ({
            ...subscription,
            commit: (positions) => Effect.andThen(say("commit", positions.length), Effect.never)
          }))
      }))
    )
  ).pipe(Layer.provide(kafka(settings)))
  : kafka(settings)

Consumer.layer(settings.group, [apply, witness]).pipe(
  Layer.provide(broker),
  Layer.provide(store(settings)),
  launch
)

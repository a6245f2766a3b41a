/**
 * Handles each event for a while, keys beside each other: one handler exactly
 * once, into the database; the other says when it begins and ends.
 */
import * as Consumer from "effect-events/Consumer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import { Items, kafka, launch, say, settings, store } from "./services.ts"

const pause = Effect.sleep("30 millis")

const apply = Consumer.exactlyOnce(Items, (event) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`insert into applied (n, message) values (${event.payload.n}, ${event.id})`
    yield* pause
  }), { name: "apply" })

const witness = Consumer.idempotent(Items, (event) =>
  say("begin", event.payload.n).pipe(
    Effect.andThen(pause),
    Effect.andThen(say("end", event.payload.n))
  ), { name: "witness" })

Consumer.layer(settings.group, [apply, witness]).pipe(
  Layer.provide(kafka(settings)),
  Layer.provide(store(settings)),
  launch
)

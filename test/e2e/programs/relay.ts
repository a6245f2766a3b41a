/**
 * Relays the outbox in batches of 50. With `hold` it announces `acknowledged`
 * where it would delete the first batch, and goes no further: the broker has
 * those events by then.
 */
import { MessageStore } from "effect-events/MessageStore"
import * as Outbox from "effect-events/Outbox"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { kafka, launch, say, settings, store } from "./services.ts"

const held = Layer.effect(
  MessageStore,
  MessageStore.use((store) =>
    Effect.succeed(MessageStore.of({
      ...store,
      outbox: {
        ...store.outbox,
        remove: ({ rows }) => Effect.andThen(say("acknowledged", rows.length), Effect.never)
      }
    }))
  )
).pipe(Layer.provide(store(settings)))

Outbox.layerRelay({ batchSize: 50, lease: settings.leaseMillis ?? 3_000 }).pipe(
  Layer.provide(kafka(settings)),
  Layer.provide(settings.hold ? held : store(settings)),
  launch
)

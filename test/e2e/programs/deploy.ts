/** Reads `Items`, and as version 2 `Extras`, too; says what it has seen. */
import * as Consumer from "effect-events/Consumer"
import * as Layer from "effect/Layer"
import { Extras, Items, kafka, launch, say, settings } from "./services.ts"

const readItems = Consumer.idempotent(Items, (event) => say("item", event.payload.n))
const readExtras = Consumer.idempotent(Extras, (event) => say("extra", event.payload.n))

Consumer.layer(settings.group, settings.version === 2 ? [readItems, readExtras] : [readItems]).pipe(
  Layer.provide(kafka(settings)),
  launch
)

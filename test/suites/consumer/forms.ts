/** One handler as a consumer of each mode and form. */
import type * as Effect from "effect/Effect"
import type { Broker } from "../../../src/Broker.ts"
import * as Consumer from "../../../src/Consumer.ts"
import type { ConsumerGroup } from "../../../src/ConsumerGroup.ts"
import type * as Event from "../../../src/Event.ts"
import type { MessageStore } from "../../../src/MessageStore.ts"
import { type Item, type ItemTopic, type Ledger, savingAtOnce } from "./support.ts"

/** A handler of one event or several. */
export type Handle = (events: ReadonlyArray<Event.Event<Item>>) => Effect.Effect<unknown, unknown, Ledger>

/** Gives up at the first failure, unless it is told otherwise. */
export type Form = (
  topic: ItemTopic,
  handle: Handle,
  options?: Consumer.BatchOptions<unknown>
) => Consumer.Consumer<Broker | MessageStore | ConsumerGroup | Ledger>

const defaults = { onFailure: savingAtOnce }

export const idempotentForms: { readonly [name: string]: Form } = {
  idempotent: (topic, handle, options) =>
    Consumer.idempotent(topic, (event) => handle([event]), { ...defaults, ...options }),
  idempotentBatch: (topic, handle, options) => Consumer.idempotentBatch(topic, handle, { ...defaults, ...options })
}

export const exactlyOnceForms: { readonly [name: string]: Form } = {
  "exactlyOnce in groups": (topic, handle, options) =>
    Consumer.exactlyOnce(topic, (event) => handle([event]), { ...defaults, ...options }),
  "exactlyOnce one by one": (topic, handle, options) =>
    Consumer.exactlyOnce(topic, (event) => handle([event]), { ...defaults, ...options, commit: "event" }),
  exactlyOnceBatch: (topic, handle, options) => Consumer.exactlyOnceBatch(topic, handle, { ...defaults, ...options })
}

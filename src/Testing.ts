/**
 * Failpoints: named steps of a program at which a test makes something happen,
 * such as the end of the process.
 *
 * The steps of outbox and consumers lie at the seams between this library and
 * its store and broker. So they are wrapped around those two services by
 * `layerFailpoints`, and nothing of the library knows of them: where that Layer
 * is not provided they do not exist. `failpoint` adds steps of one's own.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Broker } from "./Broker.ts"
import { MessageStore } from "./MessageStore.ts"

/**
 * The steps that `layerFailpoints` knows, in the order in which an event comes
 * by them.
 *
 * - `insert`: events are in the outbox, and their transaction is open.
 * - `commit`: their transaction has committed.
 * - `read`: the relay has read rows.
 * - `produce`: records are about to be sent, by a relay or a publisher.
 * - `ack`: they were acknowledged; a relay has not deleted its rows.
 * - `delete`: the rows are deleted.
 * - `lease-renewal`: the relay has renewed its leases.
 * - `hand-over`: the relay has given parts back.
 * - `inbox-claim`: an exactly-once consumer has claimed messages, and its transaction is open.
 * - `store-commit`: that transaction has committed, and the broker knows nothing of it.
 * - `broker-commit`: positions were committed to the broker.
 * - `dead-letter-write`: dead letters were acknowledged; where they come from is not committed.
 * - `prune`: old marks were removed from the inbox.
 *
 * @category models
 * @since 0.1.0
 */
export type Step = typeof steps[number]

/**
 * All of `Step`.
 *
 * @category constants
 * @since 0.1.0
 */
export const steps = [
  "insert",
  "commit",
  "read",
  "produce",
  "ack",
  "delete",
  "lease-renewal",
  "hand-over",
  "inbox-claim",
  "store-commit",
  "broker-commit",
  "dead-letter-write",
  "prune"
] as const

/**
 * What happens at a step: nothing by default.
 *
 * @category models
 * @since 0.1.0
 */
export type Action = (step: string) => Effect.Effect<void>

const Failpoints = Context.Reference<Action | undefined>("effect-events/Testing/Failpoints", {
  defaultValue: () => undefined
})

/**
 * A step of one's own, for handlers and business functions. Without
 * `layerFailpoints` it is a look into the fiber's context and nothing else.
 *
 * **Example** (A handler that a test can end in the middle)
 *
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Consumer, Topic } from "effect-events"
 * import * as Testing from "effect-events/Testing"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 *
 * const Ship = Consumer.idempotent(Orders, (event) =>
 *   Effect.gen(function*() {
 *     yield* Effect.log("shipping", event.payload.orderId)
 *     yield* Testing.failpoint("shipped")
 *   }))
 * ```
 *
 * @category failpoints
 * @since 0.1.0
 */
export const failpoint = (step: string): Effect.Effect<void> =>
  Effect.withFiber((fiber) => fiber.getRef(Failpoints)?.(step) ?? Effect.void)

/** What has happened in a transaction. */
interface Inside {
  appended: boolean
  claimed: boolean
}

/** Of the outermost transaction that the fiber is in. */
const CurrentInside = Context.Reference<Inside | undefined>("effect-events/Testing/Inside", {
  defaultValue: () => undefined
})

const note = (change: (inside: Inside) => void) =>
  Effect.withFiber((fiber) => {
    const inside = fiber.getRef(CurrentInside)
    if (inside !== undefined) change(inside)
    return Effect.void
  })

const wrapStore = (
  store: MessageStore["Service"],
  at: (step: Step) => Effect.Effect<void>
): MessageStore["Service"] => {
  const { inbox, leases, outbox, transaction } = store
  const outermost = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.suspend(() => {
      const inside: Inside = { appended: false, claimed: false }
      return Effect.tap(transaction(Effect.provideService(effect, CurrentInside, inside)), () =>
        inside.claimed ? at("store-commit") : inside.appended ? at("commit") : Effect.void)
    })
  return {
    ...store,
    transaction: (effect) =>
      Effect.withFiber((fiber) => fiber.getRef(CurrentInside) === undefined ? outermost(effect) : transaction(effect)),
    outbox: {
      ...outbox,
      append: (rows) =>
        outbox.append(rows).pipe(
          Effect.tap(() => note((inside) => (inside.appended = true))),
          Effect.tap(() => at("insert"))
        ),
      read: (options) => Effect.tap(outbox.read(options), (rows) => rows.length > 0 ? at("read") : Effect.void),
      remove: (options) => Effect.tap(outbox.remove(options), () => at("delete")),
      sent: { ...outbox.sent, keep: (options) => Effect.tap(outbox.sent.keep(options), () => at("delete")) }
    },
    leases: {
      ...leases,
      hold: (options) => Effect.tap(leases.hold(options), () => at("lease-renewal")),
      release: (owner, parts) => Effect.tap(leases.release(owner, parts), () => at("hand-over"))
    },
    inbox: {
      ...inbox,
      claim: (consumer, keys, idleAtMost) =>
        inbox.claim(consumer, keys, idleAtMost).pipe(
          Effect.tap(() => note((inside) => (inside.claimed = true))),
          Effect.tap(() => at("inbox-claim"))
        ),
      prune: (retention) => Effect.tap(inbox.prune(retention), () => at("prune"))
    }
  }
}

const wrapBroker = (broker: Broker["Service"], at: (step: Step) => Effect.Effect<void>): Broker["Service"] => ({
  ...broker,
  producer: Effect.map(broker.producer, (producer) => ({
    ...producer,
    send: (batch) =>
      Effect.andThen(at("produce"), producer.send(batch)).pipe(
        Effect.tap(() => at(batch.topic.endsWith(".dead-letter") ? "dead-letter-write" : "ack"))
      )
  })),
  subscribe: (options) =>
    Effect.map(broker.subscribe(options), (subscription) => ({
      ...subscription,
      commit: (positions) => Effect.tap(subscription.commit(positions), () => at("broker-commit"))
    }))
})

/**
 * Broker and store of the context with a failpoint at each step: `action` runs
 * there, and what comes after the step waits for it. It also stands behind
 * every `failpoint` of what is built with this Layer.
 *
 * **When to use**
 *
 * For tests that end a process, or hold it, at a step, and look at what became
 * of its events. This library's own crash matrix is made so.
 *
 * **Gotchas**
 *
 * `action` runs on the way of every batch, and inside of open transactions at
 * `insert` and `inbox-claim`.
 *
 * **Example** (A process that dies between commit in the database and commit in the broker)
 *
 * ```ts
 * import { Effect } from "effect"
 * import * as Testing from "effect-events/Testing"
 *
 * const dying = Testing.layerFailpoints((step) =>
 *   step === "store-commit"
 *     ? Effect.sync(() => process.kill(process.pid, "SIGKILL"))
 *     : Effect.void
 * )
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerFailpoints = (
  action: Action
): Layer.Layer<Broker | MessageStore, never, Broker | MessageStore> =>
  Layer.effectContext(Effect.gen(function*() {
    const [broker, store] = [yield* Broker, yield* MessageStore]
    return Context.make(Broker, wrapBroker(broker, action)).pipe(
      Context.add(MessageStore, wrapStore(store, action)),
      Context.add(Failpoints, action)
    )
  }))

/**
 * A broker and a message store in memory, with the same semantics as the real
 * ones: the Layer for tests, and the shortest description of what the two
 * contracts mean.
 *
 * Nothing is kept beyond the Layer's scope, nothing polls, and the only clock
 * is Effect's: under `TestClock` everything works while time stands still.
 *
 * **Example** (A test of a publisher)
 *
 * ```ts
 * import { assert, it } from "@effect/vitest"
 * import { Effect, Schema } from "effect"
 * import { Publisher, Topic } from "effect-events"
 * import * as Memory from "effect-events/Layers/Memory"
 *
 * const Orders = Topic.make("orders.placed", { schema: Schema.Struct({ orderId: Schema.String }) })
 *
 * it.effect("publishes an order", () =>
 *   Effect.gen(function*() {
 *     yield* Publisher.publish(Orders, { orderId: "o-1" })
 *     const broker = yield* Memory.MemoryBroker
 *     assert.strictEqual((yield* broker.records("orders.placed")).length, 1)
 *   }).pipe(Effect.provide(Memory.layer)))
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Broker } from "../Broker.ts"
import type { MessageStoreError } from "../MessageStore.ts"
import { MessageStore } from "../MessageStore.ts"
import * as InternalBroker from "./internal/memory/broker.ts"
import * as Control from "./internal/memory/control.ts"
import * as State from "./internal/memory/state.ts"
import * as InternalStore from "./internal/memory/store.ts"

/**
 * Options of the in-memory broker.
 *
 * @category models
 * @since 0.1.0
 */
export interface BrokerOptions {
  /** Default `ce_source` of published events. Default: `"memory"`. */
  readonly source?: string | undefined
  /** Partitions of a topic that is created without a number. Default: 3. */
  readonly partitions?: number | undefined
  /**
   * Whether a topic that does not exist is created when it is first named. With
   * `false` it fails with `UnknownTopic`, as on a well-kept Kafka. Default: `true`.
   */
  readonly autoCreate?: boolean | undefined
}

/**
 * What a test may do to the in-memory broker, and see of it. `member` counts
 * the live members of a group in the order in which they joined; default 0.
 *
 * **Details**
 *
 * - `records`: all records of a topic, by partition and offset; empty if the
 *   topic does not exist.
 * - `committed`: a group's committed position, `undefined` before the first.
 * - `rebalance`: asks all members to give back their partitions and deals them
 *   out anew. Returns at once.
 * - `expire`: ends a member's session as a missed heartbeat would: its
 *   partitions move on without `Revoked`, it gets `Lost`, and joins again.
 * - `crash`: the same, but the member never comes back.
 * - `failNext`: the next `times` (default 1) sends or commits fail with this
 *   reason. With `applied: true` they take effect first, as when only the
 *   answer is lost.
 * - `skipOffsets`: moves the end of a partition without a record, as
 *   transaction markers and compaction do.
 * - `addPartitions`: raises a topic's number of partitions to `count`.
 * - `deleteTopic`: deletes a topic; whoever reads it sees `failed`.
 *
 * @category services
 * @since 0.1.0
 */
export class MemoryBroker extends Context.Service<MemoryBroker, Control.Control>()(
  "effect-events/Layers/Memory/MemoryBroker"
) {}

/**
 * What a test may do to the in-memory store.
 *
 * **Details**
 *
 * - `table`: see `table`.
 * - `failNextCommit`: the next outermost transaction that would commit rolls
 *   back and fails with this reason.
 *
 * @category services
 * @since 0.1.0
 */
export class MemoryStore extends Context.Service<MemoryStore, InternalStore.StoreControl>()(
  "effect-events/Layers/Memory/MemoryStore"
) {}

/**
 * The in-memory broker with options.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBrokerWith = (options: BrokerOptions): Layer.Layer<Broker | MemoryBroker> =>
  Layer.effectContext(Effect.map(Effect.scope, (scope) => {
    const state = State.make()
    const broker = InternalBroker.make(
      {
        source: options.source ?? "memory",
        partitions: options.partitions ?? 3,
        autoCreate: options.autoCreate ?? true
      },
      state,
      scope
    )
    return Context.make(Broker, broker).pipe(Context.add(MemoryBroker, Control.make(state)))
  }))

/**
 * The in-memory broker: source `"memory"`, three partitions for each topic,
 * unknown topics created when they are first named.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerBroker: Layer.Layer<Broker | MemoryBroker> = layerBrokerWith({})

/**
 * The in-memory message store.
 *
 * **Details**
 *
 * One transaction runs at a time; a nested one is a savepoint. Outbox rows,
 * inbox marks, leases and tables roll back together. What runs outside of a
 * transaction sees committed state only, and waits for nobody.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerStore: Layer.Layer<MessageStore | MemoryStore> = Layer.effectContext(Effect.sync(() => {
  const { control, store } = InternalStore.make()
  return Context.make(MessageStore, store).pipe(Context.add(MemoryStore, control))
}))

/**
 * Broker and store, both in memory.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Broker | MemoryBroker | MessageStore | MemoryStore> = Layer.mergeAll(
  layerBroker,
  layerStore
)

/**
 * A small map in the in-memory store, in place of a business table: its writes
 * commit and roll back with the transaction, or savepoint, of the calling fiber.
 *
 * @category models
 * @since 0.1.0
 */
export interface Table<K, V> {
  readonly get: (key: K) => Effect.Effect<V | undefined, MessageStoreError, MemoryStore>
  readonly set: (key: K, value: V) => Effect.Effect<void, MessageStoreError, MemoryStore>
  /** Computes a value from the present one, stores and returns it. */
  readonly update: (
    key: K,
    f: (value: V | undefined) => V
  ) => Effect.Effect<V, MessageStoreError, MemoryStore>
  readonly entries: Effect.Effect<ReadonlyArray<readonly [K, V]>, MessageStoreError, MemoryStore>
}

/**
 * Names a table of the in-memory store. Two tables of one name are the same
 * one. Keys compare as in a `Map`.
 *
 * **Example** (A handler's writes in a test)
 *
 * **Example** (A handler's effects, rolled back with it)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Consumer, Topic } from "effect-events"
 * import * as Memory from "effect-events/Layers/Memory"
 *
 * const Orders = Topic.make("orders.placed", {
 *   schema: Schema.Struct({ orderId: Schema.String, total: Schema.Number })
 * })
 *
 * const invoices = Memory.table<string, number>("invoices")
 *
 * const issue = Consumer.exactlyOnce(Orders, (event) => invoices.set(event.payload.orderId, event.payload.total))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const table = <K, V>(name: string): Table<K, V> => ({
  get: (key) => MemoryStore.use((store) => store.table<K, V>(name).get(key)),
  set: (key, value) => MemoryStore.use((store) => store.table<K, V>(name).set(key, value)),
  update: (key, f) => MemoryStore.use((store) => store.table<K, V>(name).update(key, f)),
  entries: MemoryStore.use((store) => store.table<K, V>(name).entries)
})

/**
 * What the conformance suites are told about this Layer.
 *
 * @category constants
 * @since 0.1.0
 */
export const features = {
  broker: { clock: "test" },
  store: { clock: "test", concurrentTransactions: false, wakeups: "exact" }
} as const

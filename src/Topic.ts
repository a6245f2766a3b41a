/**
 * A topic as a value: a name, a schema, and how events find their partition.
 *
 * Everything that publishes or consumes takes a `Topic`, so a payload of the
 * wrong type does not compile and a record of the wrong shape never reaches a
 * handler.
 *
 * @since 0.1.0
 */
import type * as Schema from "effect/Schema"
import * as SchemaAST from "effect/SchemaAST"
import type { TopicCreation } from "./Broker.ts"
import * as Codec from "./Codec.ts"

/**
 * Runtime type identifier of `Topic` values.
 *
 * @category type IDs
 * @since 0.1.0
 */
export const TypeId = "~effect-events/Topic" as const

/**
 * A named stream of events with one payload schema.
 *
 * @category models
 * @since 0.1.0
 */
export interface Topic<S extends Schema.Constraint> {
  readonly [TypeId]: typeof TypeId
  /** Name on the broker, without the Layer's `topicPrefix`. */
  readonly name: string
  readonly schema: S
  /** The key of a payload; events of one key stay in order. `null`: no key. */
  key(payload: S["Type"]): string | null
  readonly codec: Codec.Codec
  /** `ce_type` of its events. */
  readonly type: string
  /** `ce_dataschema` of its events. */
  readonly dataSchema: string | undefined
  /** Largest record in bytes: key, value and headers. */
  readonly maxBytes: number
  /** Whether outbox transactions of one key wait for each other. */
  readonly serialize: boolean
  /** How to create the topic when it is missing; `undefined`: it must exist. */
  readonly create: TopicCreation | undefined
}

/**
 * Any topic.
 *
 * @category models
 * @since 0.1.0
 */
export type Any = Topic<Schema.Constraint>

/**
 * What `publish` takes: an instance, or what `schema.make` takes.
 *
 * @category models
 * @since 0.1.0
 */
export type Input<S extends Schema.Constraint> = S["Type"] | S["~type.make.in"]

/**
 * Options of `Topic.make`.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options<S extends Schema.Constraint> {
  /** Schema of the payload. */
  readonly schema: S
  /**
   * The key of a payload: the partition follows from it (murmur2, as Kafka's
   * Java client), and events of one key are kept in order. Default: no key,
   * and so no order.
   */
  readonly key?: ((payload: S["Type"]) => string | null | undefined) | undefined
  /** Bytes of the encoded payload. Default: `Codec.json`. */
  readonly codec?: Codec.Codec | undefined
  /** `ce_type` of its events. Default: the schema's identifier, else the topic's name. */
  readonly type?: string | undefined
  /** `ce_dataschema` of its events, a URI. Default: none. */
  readonly dataSchema?: string | undefined
  /**
   * Largest record in bytes (key, value and headers) that `publish` accepts.
   * Default: 1,000,000, just below Kafka's own default.
   */
  readonly maxBytes?: number | undefined
  /**
   * Whether `Outbox` transactions that publish events of one key wait for each
   * other, for programs that lock nothing else per key: see
   * `Outbox.PublishOptions.serialize`. Default: `false`.
   */
  readonly serialize?: boolean | undefined
  /**
   * Create the topic when it is missing, with these settings. Default: a
   * missing topic is a typed error at start that names it.
   */
  readonly create?: TopicCreation | undefined
}

/**
 * Makes a topic.
 *
 * **Details**
 *
 * Never throws: an illegal name is reported by the consumer, Layer or publish
 * call that uses the topic.
 *
 * **Example** (Orders by customer)
 *
 * ```ts
 * import { Schema } from "effect"
 * import { Topic } from "effect-events"
 *
 * class OrderPlaced extends Schema.Class<OrderPlaced>("OrderPlaced")({
 *   orderId: Schema.String,
 *   customer: Schema.String,
 *   total: Schema.Number
 * }) {}
 *
 * const Orders = Topic.make("orders.placed", {
 *   schema: OrderPlaced,
 *   key: (order) => order.customer
 * })
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <S extends Schema.Constraint>(name: string, options: Options<S>): Topic<S> => ({
  [TypeId]: TypeId,
  name,
  schema: options.schema,
  key: (payload) => options.key?.(payload) ?? null,
  codec: options.codec ?? Codec.json,
  type: options.type ?? SchemaAST.resolveIdentifier(options.schema.ast) ?? name,
  dataSchema: options.dataSchema,
  maxBytes: options.maxBytes ?? 1_000_000,
  serialize: options.serialize ?? false,
  create: options.create
})

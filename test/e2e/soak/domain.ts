/** What the processes of a soak share: settings, topics, Layers, and the line in which a handler says what it did. */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as SqlStore from "effect-events/Layers/SqlStore"
import * as Topic from "effect-events/Topic"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { KafkaLayer } from "../../support/kafkaClient.ts"

export interface Settings {
  readonly brokers: ReadonlyArray<string>
  readonly postgresUrl: string
  readonly seed: number
  /** The file to which all members append what their handlers did. */
  readonly journal: string
}

export const group = "soak"
export const partitions = 6

/** One event: the `n`th of its key. `poison`: its handlers fail whatever the attempt. */
export const Item = Schema.Struct({ key: Schema.String, n: Schema.Number, poison: Schema.Boolean })
export type Item = typeof Item.Type

const topic = (name: string) => Topic.make(name, { schema: Item, key: (item) => item.key, create: { partitions } })

/** Published by `Publisher`. */
export const Direct = topic("direct")
/** Published by `Outbox`. */
export const Boxed = topic("boxed")

/** Every handler, with its topic and what may become of one event. */
export const handlers = [
  { name: "idempotent", topic: "direct", mode: "idempotent" },
  { name: "exactly-once", topic: "direct", mode: "exactlyOnce" },
  { name: "broadcast", topic: "direct", mode: "broadcast" },
  { name: "idempotent-batch", topic: "boxed", mode: "idempotent" },
  { name: "exactly-once-batch", topic: "boxed", mode: "exactlyOnce" },
  { name: "exactly-once-boxed", topic: "boxed", mode: "exactlyOnce" },
  { name: "broadcast-boxed", topic: "boxed", mode: "broadcast" }
] as const

export type HandlerName = typeof handlers[number]["name"]

/** A handler has applied an event. */
export interface Applied {
  readonly member: string
  readonly handler: string
  readonly key: string
  readonly n: number
  readonly partition: number
  readonly offset: string
  readonly millis: number
}

export const writeLine = (applied: Applied): string =>
  `${applied.member} ${applied.handler} ${applied.key} ${applied.n} ${applied.partition} ${applied.offset} ${applied.millis}\n`

export const readLine = (line: string): Applied => {
  const [member, handler, key, n, partition, offset, millis] = line.split(" ")
  return {
    member: member!,
    handler: handler!,
    key: key!,
    n: Number(n),
    partition: Number(partition),
    offset: offset!,
    millis: Number(millis)
  }
}

/** The shortest session that brokers allow. */
export const kafka = (settings: Settings, clientId: string) =>
  KafkaLayer.layer({
    brokers: settings.brokers,
    clientId,
    source: "/soak",
    sessionTimeout: "6 seconds",
    heartbeatInterval: "1 second",
    rebalanceTimeout: "30 seconds",
    requestTimeout: "5 seconds"
  })

export const store = (settings: Settings) =>
  SqlStore.layer.pipe(
    Layer.provideMerge(PgClient.layer({ url: Redacted.make(settings.postgresUrl), maxConnections: 6 }))
  )

export const logging = Logger.layer([Logger.consoleLogFmt])

/** A number from 0 to 1 that depends on nothing but its arguments: the same event fares the same in every run of a seed. */
export const chance = (...parts: ReadonlyArray<string | number>): number => {
  let hash = 2_166_136_261
  for (const char of parts.join("/")) hash = Math.imul(hash ^ char.charCodeAt(0), 16_777_619)
  hash ^= hash >>> 16
  hash = Math.imul(hash, 2_246_822_507)
  hash ^= hash >>> 13
  hash = Math.imul(hash, 3_266_489_909)
  return ((hash ^ (hash >>> 16)) >>> 0) / 4_294_967_296
}

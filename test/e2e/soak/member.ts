/**
 * One member of the soak: all modes in one group, and a relay of the outbox.
 *
 * Its handlers are slow now and then, and fail in 5 of 100 attempts. What they
 * apply goes into one file that all members append to, or with the exactly-once
 * modes into the database.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Consumer from "effect-events/Consumer"
import type * as Event from "effect-events/Event"
import * as FailurePolicy from "effect-events/FailurePolicy"
import * as Outbox from "effect-events/Outbox"
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as SqlClient from "effect/sql/SqlClient"
import { openSync, writeSync } from "node:fs"
import {
  type Applied,
  Boxed,
  chance,
  Direct,
  group,
  type HandlerName,
  type Item,
  kafka,
  logging,
  type Settings,
  store,
  writeLine
} from "./domain.ts"

const settings: Settings = JSON.parse(process.env.SOAK!)
const member = process.env.MEMBER!
const journal = openSync(settings.journal, "a")

type ItemEvent = Event.Event<Item>

class Unlucky extends Data.TaggedError("Unlucky")<{ readonly key: string; readonly n: number }> {}

const retry = Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 7 }))
const onFailure = { ...FailurePolicy.save(), retry }
const discard = { ...FailurePolicy.discard(), retry }

/** Takes its time, and fails if it is bad luck, or bad. */
const toil = (handler: HandlerName, first: ItemEvent, events: ReadonlyArray<ItemEvent>) =>
  Effect.suspend(() => {
    const { key, n } = first.payload
    const luck = chance(settings.seed, handler, key, n, first.attempt)
    const millis = luck > 0.99 ? 400 : Math.floor(chance(handler, key, n) * 12)
    const bad = events.find((event) => event.payload.poison)
    const done = millis === 0 ? Effect.void : Effect.sleep(millis)
    return bad === undefined && luck >= 0.05
      ? done
      : Effect.andThen(done, Effect.fail(new Unlucky(bad?.payload ?? first.payload)))
  })

const applied = (handler: HandlerName, event: ItemEvent, millis: number): Applied => ({
  member,
  handler,
  key: event.payload.key,
  n: event.payload.n,
  partition: event.partition,
  offset: String(event.offset),
  millis
})

/** Toils, then writes to the file: one write for all, which no other member can split. */
const note = (handler: HandlerName, events: readonly [ItemEvent, ...Array<ItemEvent>]) =>
  Effect.andThen(
    toil(handler, events[0], events),
    Effect.map(
      Clock.currentTimeMillis,
      (millis) => writeSync(journal, events.map((event) => writeLine(applied(handler, event, millis))).join(""))
    )
  )

/** Writes to the database, then toils: what fails afterwards must leave nothing. */
const insert = (handler: HandlerName, events: readonly [ItemEvent, ...Array<ItemEvent>]) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const millis = yield* Clock.currentTimeMillis
    yield* sql`insert into applied ${sql.insert(Arr.map(events, (event) => ({ ...applied(handler, event, millis) })))}`
    yield* toil(handler, events[0], events)
  })

const consumers = [
  Consumer.idempotent(Direct, (event) => note("idempotent", [event]), { name: "idempotent", onFailure }),
  Consumer.exactlyOnce(Direct, (event) => insert("exactly-once", [event]), { name: "exactly-once", onFailure }),
  Consumer.broadcast(Direct, (event) => note("broadcast", [event]), {
    name: "broadcast",
    onFailure: discard
  }),
  Consumer.idempotentBatch(Boxed, (events) => note("idempotent-batch", [...events] as [ItemEvent]), {
    name: "idempotent-batch",
    onFailure
  }),
  Consumer.exactlyOnceBatch(Boxed, (events) => insert("exactly-once-batch", [...events] as [ItemEvent]), {
    name: "exactly-once-batch",
    onFailure
  }),
  Consumer.exactlyOnce(Boxed, (event) => insert("exactly-once-boxed", [event]), {
    name: "exactly-once-boxed",
    onFailure
  }),
  Consumer.broadcast(Boxed, (event) => note("broadcast-boxed", [event]), {
    name: "broadcast-boxed",
    onFailure: discard
  })
] as const

Layer.effectDiscard(Effect.sync(() => console.log("ready"))).pipe(
  Layer.provideMerge(Consumer.layer(group, consumers)),
  Layer.merge(Outbox.layerRelay({ lease: "10 seconds" })),
  Layer.provide(kafka(settings, member)),
  Layer.provide(store(settings)),
  Layer.provide(logging),
  Layer.launch,
  NodeRuntime.runMain
)

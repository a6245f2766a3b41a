/**
 * The process that dies: producers with a business transaction each, the relay,
 * an exactly-once consumer whose poison becomes dead letters, and the pruning of
 * the inbox, more often than anybody would.
 *
 * It stops producing at SIGUSR2, and stops as a whole at SIGTERM.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Consumer from "effect-events/Consumer"
import * as FailurePolicy from "effect-events/FailurePolicy"
import { MessageStore } from "effect-events/MessageStore"
import * as Outbox from "effect-events/Outbox"
import * as Testing from "effect-events/Testing"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import * as SqlClient from "effect/sql/SqlClient"
import { group, isPoison, type Item, Items, keys, leaseMillis, services, type Settings } from "./domain.ts"

const settings: Settings = JSON.parse(process.env.CRASH!)

let passes = 0
const dying: Testing.Action = (step) =>
  Effect.sync(() => {
    if (step === settings.die?.step && ++passes === settings.die.pass) process.kill(process.pid, "SIGKILL")
  })

class Poisoned extends Data.TaggedError("Poisoned")<Item> {}
class ChangedMind extends Data.TaggedError("ChangedMind")<{}> {}

const apply = Effect.fnUntraced(function*({ payload: { key, n } }: { readonly payload: Item }) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`insert into applied ${sql.insert({ name: key, n })}`
  yield* Testing.failpoint("handler")
  if (isPoison({ key, n })) return yield* new Poisoned({ key, n })
})

/** Counts on, notes the event in the table of the business and publishes it; takes it all back now and then. */
const place = (name: string) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql`update counters set n = n + 1 where name = ${name}`
    const [counter] = yield* sql<{ readonly n: number }>`select n from counters where name = ${name}`
    const n = counter!.n
    yield* sql`insert into placed ${sql.insert({ name, n })}`
    yield* Outbox.publish(Items, { key: name, n })
    if (Math.random() < 0.1) return yield* new ChangedMind()
  }).pipe(Outbox.transaction, Effect.catchTag("ChangedMind", () => Effect.void))

const stopped = Effect.callback<void>((resume) => void process.once("SIGUSR2", () => resume(Effect.void)))

const producing = Layer.effectDiscard(
  Effect.forEach(
    Array.from({ length: keys }, (_, key) => `key-${key}`),
    (name) => Effect.forever(Effect.andThen(place(name), Effect.sleep("30 millis"))),
    {
      concurrency: "unbounded",
      discard: true
    }
  ).pipe(Effect.raceFirst(stopped), Effect.forkScoped)
)

const pruning = Layer.effectDiscard(
  Effect.forkScoped(
    MessageStore.use((store) => store.inbox.prune(Duration.hours(1))).pipe(Effect.repeat(Schedule.spaced("300 millis")))
  )
)

const onFailure = { ...FailurePolicy.save(), retry: Schedule.recurs(1) }

Layer.effectDiscard(Effect.sync(() => console.log("ready"))).pipe(
  Layer.provideMerge(Layer.mergeAll(
    Consumer.layer(group, [Consumer.exactlyOnce(Items, apply, { onFailure })]),
    Outbox.layerRelay({ lease: leaseMillis }),
    producing,
    pruning
  )),
  Layer.provide(Testing.layerFailpoints(dying)),
  Layer.provide(services(settings)),
  Layer.provide(Layer.succeed(References.MinimumLogLevel, "None")),
  Layer.launch,
  NodeRuntime.runMain
)

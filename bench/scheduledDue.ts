/**
 * `scheduled-due`: how late the last of ten thousand events that are due at the
 * same time enters the outbox, against one statement, written by hand, that
 * moves them all.
 */
import { Clock, DateTime, Effect, Layer, Schedule, type Scope } from "effect"
import { Outbox } from "effect-events"
import { SqlClient } from "effect/sql"
import { type Database, postgres } from "./databases.ts"
import { type Benchmark, quiet, type Round } from "./harness.ts"
import { create, drop, orderOf, topicOf, unique } from "./orders.ts"

const events = 10_000
/** Long enough to schedule them all. */
const aheadMillis = 6_000

export const scheduledDue: Benchmark = {
  name: "scheduled-due pg",
  unit: "ms",
  settings: {
    events,
    payloadBytes: 200,
    ours: "Outbox.publish with deliverAt, and a relay; from that time until all have entered the outbox",
    twin: "one statement at that time that deletes from the one table and inserts into the other"
  },
  open: async () => {
    const topic = unique("scheduled")
    await create(topic)
    return {
      ours: () => round(topic, () => Effect.asVoid(Layer.build(Outbox.layerRelay()))),
      twin: () =>
        round(topic, ({ outbox, scheduled }) =>
          Effect.sleep(aheadMillis).pipe(
            Effect.andThen(SqlClient.SqlClient.use((sql) =>
              sql.unsafe(`with gone as (delete from ${scheduled} where due_at <= clock_timestamp() returning *)
insert into ${outbox} (part, message_id, topic, key, headers, payload)
select part, message_id, topic, key, headers, payload from gone order by due_at, id`)
            ))
          )),
      close: () => drop(topic)
    }
  }
}

type Services = Layer.Success<Database["layer"]>

const round = (
  name: string,
  moving: (database: Database) => Effect.Effect<unknown, unknown, Services | Scope.Scope>
): Promise<Round> => {
  const database = postgres()
  const topic = topicOf(name)
  return Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const due = (yield* Clock.currentTimeMillis) + aheadMillis
    const deliverAt = DateTime.makeUnsafe(due)
    const publish = (i: number) => Outbox.publish(topic, orderOf(i), { deliverAt })
    yield* Effect.forkScoped(moving(database))
    yield* Effect.forEach(Array.from({ length: events }, (_, i) => i), publish, { discard: true }).pipe(
      Outbox.transaction
    )
    const left = due - (yield* Clock.currentTimeMillis)
    if (left <= 0) throw new Error("To schedule them all took too long")
    yield* Effect.sleep(left)
    const cpu = process.cpuUsage()
    yield* Effect.repeat(sql.unsafe(`select 1 from ${database.scheduled} limit 1`), {
      schedule: Schedule.spaced("10 millis"),
      until: (rows) => rows.length === 0
    })
    const used = process.cpuUsage(cpu)
    return {
      events: 1,
      wallMillis: (yield* Clock.currentTimeMillis) - due,
      cpuMicros: (used.user + used.system) / events
    } satisfies Round
  }).pipe(Effect.scoped, Effect.provide(database.layer), quiet, Effect.runPromise)
}

/**
 * `relay-scale`: three relays in processes of their own empty one outbox,
 * against one that does it alone.
 */
import { Effect, ManagedRuntime, Schedule } from "effect"
import { Outbox } from "effect-events"
import { SqlClient } from "effect/sql"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { name, postgresIn } from "./databases.ts"
import { type Benchmark, measure, quiet, type Round } from "./harness.ts"
import { counted, create, drop, orderOf, partitions, topicOf, unique } from "./orders.ts"

const events = 60_000

const relayOf = (home: string) => {
  const child = spawn(process.execPath, [...process.execArgv, join(import.meta.dirname, "relayProcess.ts")], {
    env: { ...process.env, HOME_OF_TABLES: home },
    stdio: ["ignore", "inherit", "inherit"]
  })
  return { stop: () => new Promise<void>((resolve) => child.once("exit", () => resolve()).kill("SIGTERM")) }
}

/** The rows appear all at once when their transaction commits, with the relays ready and waiting. */
const round = async (topic: string, relays: number): Promise<Round> => {
  const home = name()
  const database = postgresIn(home)
  const runtime = ManagedRuntime.make(database.layer)
  await runtime.context()
  const running = Array.from({ length: relays }, () => relayOf(home))
  const result = await measure(events, (started) =>
    runtime.runPromise(quiet(Effect.gen(function*() {
      yield* Effect.repeat(Outbox.state, {
        schedule: Schedule.spaced("50 millis"),
        until: ({ parts }) => {
          const owners = parts.map(({ owner }) => owner)
          return !owners.includes(undefined) && new Set(owners).size === relays
        }
      })
      yield* Outbox.transaction(
        Outbox.publishAll(topicOf(topic), Array.from({ length: events }, (_, i) => orderOf(i)))
      )
      started()
      yield* SqlClient.SqlClient.use((sql) =>
        Effect.repeat(sql.unsafe(`select 1 from ${database.outbox} limit 1`), {
          schedule: Schedule.spaced("20 millis"),
          until: (rows) => rows.length === 0
        })
      )
    }))))
  await Promise.all(running.map(({ stop }) => stop()))
  await runtime.dispose()
  return result
}

export const relayScale: Benchmark = {
  name: "relay-scale pg",
  aim: 0.9,
  settings: {
    events,
    payloadBytes: 200,
    partitions,
    ours: "three relays in processes of their own",
    twin: "one relay in a process of its own"
  },
  open: async () => {
    const topic = unique("scale")
    await create(topic)
    return {
      ours: () => counted(topic, events, () => round(topic, 3)),
      twin: () => counted(topic, events, () => round(topic, 1)),
      close: () => drop(topic)
    }
  }
}

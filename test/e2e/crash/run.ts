/**
 * One crash: a process is killed at a step and started again, and then every
 * event is accounted for. On a database, topics and a group of its own.
 */
import * as MysqlClient from "@effect/sql-mysql2/MysqlClient"
import * as PgClient from "@effect/sql-pg/PgClient"
import { Broker } from "effect-events/Broker"
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as References from "effect/References"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import * as Stream from "effect/Stream"
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { dieWithParent } from "../../../scripts/services/child.ts"
import { chance } from "../soak/domain.ts"
import * as Account from "./account.ts"
import { group, type Item, Items, services, type Settings, type StepName, type StoreName, tables } from "./domain.ts"

export interface Servers {
  readonly brokers: ReadonlyArray<string>
  readonly postgresUrl: string
  readonly mariadbUrl: string
}

export interface Result extends Account.Account {
  readonly placed: number
  readonly recoveryMillis: number
}

/** What went wrong beside the account. */
export class Unexpected extends Data.TaggedError("Unexpected")<{ readonly message: string }> {}

const unexpected = (message: string) => Effect.fail(new Unexpected({ message }))

/** How long a process may take to come to its step, or to stop, and everything to be applied. */
const patience = "60 seconds"

/** The most passes before the end; the others are come by seldom. */
const mostPasses: { readonly [Step in StepName]?: number } = {
  "lease-renewal": 4,
  "hand-over": 1,
  "broker-commit": 3,
  "dead-letter-write": 3,
  "prune": 6
}

/** Steps after which events wait for another member's session to end. */
const ofConsumers: ReadonlyArray<StepName> = [
  "inbox-claim",
  "handler",
  "store-commit",
  "broker-commit",
  "dead-letter-write",
  "prune"
]

export const isOfConsumers = (step: StepName): boolean => ofConsumers.includes(step)

// --- databases ---

const withClient = <A, E>(client: Layer.Layer<SqlClient.SqlClient, unknown>, text: string, then: Effect.Effect<A, E>) =>
  Effect.andThen(Effect.orDie(Effect.provide(SqlClient.SqlClient.use((sql) => sql.unsafe(text)), client)), then)

/** Where the tables are, until the scope closes. */
const openDatabase = (
  store: StoreName,
  name: string,
  { mariadbUrl, postgresUrl }: Servers
): Effect.Effect<Pick<Settings, "schema" | "url">, never, Scope.Scope> => {
  switch (store) {
    case "pg": {
      const client = PgClient.layer({ url: Redacted.make(postgresUrl) })
      return Effect.acquireRelease(
        withClient(client, `create schema ${name}`, Effect.succeed({ url: postgresUrl, schema: name })),
        () => withClient(client, `drop schema ${name} cascade`, Effect.void)
      )
    }
    case "mariadb": {
      const client = MysqlClient.layer({ url: Redacted.make(mariadbUrl) })
      const url = Object.assign(new URL(mariadbUrl), { pathname: `/${name}` }).href
      return Effect.acquireRelease(
        withClient(client, `create database ${name}`, Effect.succeed({ url, schema: undefined })),
        () => withClient(client, `drop database ${name}`, Effect.void)
      )
    }
    case "sqlite":
      return Effect.map(
        Effect.acquireRelease(
          Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-events-crash-"))),
          (folder) => Effect.sync(() => rmSync(folder, { recursive: true, force: true }))
        ),
        (folder) => ({ url: join(folder, "crash.db"), schema: undefined })
      )
  }
}

// --- processes ---

const start = (settings: Settings) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, [
        "--conditions=effect-events-source",
        join(import.meta.dirname, "member.ts")
      ], {
        detached: true,
        stdio: ["ignore", "pipe", "inherit"],
        env: {
          ...process.env,
          NODE_OPTIONS: "--disable-warning=TimeoutNegativeWarning",
          CRASH: JSON.stringify(settings)
        }
      })
      const exited = new Promise<string>((resolve) =>
        void child.once("exit", (code, signal) => resolve(signal ?? String(code)))
      )
      dieWithParent(child.pid!, exited.then(() => {}))
      const ready = new Promise<void>((resolve) =>
        createInterface(child.stdout).on("line", (line) => line === "ready" ? resolve() : console.log(line))
      )
      return {
        ready: Effect.promise(() => ready),
        signal: (name: NodeJS.Signals) => Effect.sync(() => void child.kill(name)),
        /** How it ended: a signal, or its exit code. */
        exited: Effect.timeoutOrElse(Effect.promise(() => exited), {
          duration: patience,
          orElse: () => unexpected(`a process has neither died nor stopped for ${patience}`)
        })
      }
    }),
    ({ signal }) => signal("SIGKILL")
  )

// --- what is there ---

const valuesOf = (topic: string) =>
  Broker.use((broker) =>
    broker.read(topic).pipe(
      Stream.runCollect,
      Effect.map((chunks) =>
        Array.from(chunks).flatMap(({ records }) => records).map(({ value }): Item =>
          JSON.parse(Buffer.from(value!).toString())
        )
      ),
      // Nothing was ever given up on.
      Effect.catchIf((error) => error.reason._tag === "UnknownTopic", () => Effect.succeed<Array<Item>>([]))
    )
  )

const number = (text: string) =>
  Effect.map(
    SqlClient.SqlClient.use((sql) => sql.unsafe<{ readonly found: number | bigint | string | null }>(text)),
    ([row]) => Number(row?.found ?? 0)
  )

const lastApplied = number("select max(id) as found from applied")
const lastWaiting = number("select max(id) as found from effect_events_outbox")
const waitingUpTo = (id: number) => number(`select count(*) as found from effect_events_outbox where id <= ${id}`)

/** Events that are neither applied nor bound to be given up on. */
const missing = number(
  `select count(*) as found from placed as p where n % 10 <> 7
   and not exists (select 1 from applied as a where a.name = p.name and a.n = p.n)`
)

const observe = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const itemOf = ({ n, name }: { readonly name: string; readonly n: number }): Item => ({ key: name, n })
  const placed = yield* sql<{ readonly name: string; readonly n: number }>`select name, n from placed`
  const applied = yield* sql<{ readonly name: string; readonly n: number }>`select name, n from applied order by id`
  return {
    placed: placed.map(itemOf),
    applied: applied.map(itemOf),
    letters: yield* valuesOf(`${Items.name}.${group}.dead-letter`),
    log: yield* valuesOf(Items.name)
  } satisfies Account.Observed
})

const until = <A, E, R>(what: string, look: Effect.Effect<A, E, R>, isThere: (found: A) => boolean) =>
  Effect.timeoutOrElse(Effect.repeat(look, { schedule: Schedule.spaced("20 millis"), until: isThere }), {
    duration: patience,
    orElse: () => unexpected(`${what}: not for ${patience}`)
  })

/** What to wait for until that goes on which was cut off: an event is applied, or what waited has left the outbox. */
const recovery = (step: StepName) =>
  Effect.gen(function*() {
    if (isOfConsumers(step)) {
      const before = yield* lastApplied
      return until("something is applied", lastApplied, (last) => last > before)
    }
    const before = yield* lastWaiting
    const some = before > 0 ? Effect.succeed(before) : until("something waits", lastWaiting, (last) => last > 0)
    return Effect.flatMap(some, (last) => until("what waited is sent", waitingUpTo(last), (left) => left === 0))
  })

/** Kills a process at a step, starts another one, and accounts for every event. */
export const crash = Effect.fnUntraced(function*(
  store: StoreName,
  step: StepName,
  seed: number,
  servers: Servers
): Effect.fn.Return<Result, unknown, Scope.Scope> {
  const name = `crash_${globalThis.crypto.randomUUID().replaceAll("-", "_")}`
  const pass = 1 + Math.floor(chance(seed, store, step) * (mostPasses[step] ?? 12))
  const settings: Settings = {
    store,
    ...(yield* openDatabase(store, name, servers)),
    brokers: servers.brokers,
    prefix: `${name}.`,
    die: { step, pass }
  }
  return yield* Effect.gen(function*() {
    yield* tables(settings)
    const dying = yield* start(settings)
    if (step === "hand-over") {
      yield* dying.ready
      yield* until("something is applied", lastApplied, (last) => last > 0)
      yield* dying.signal("SIGTERM")
    }
    const how = yield* dying.exited
    if (how !== "SIGKILL") return yield* unexpected(`the process ended with ${how} instead of dying at ${step} ${pass}`)

    const wait = yield* recovery(step)
    const [took, next] = yield* Effect.timed(
      Effect.tap(start({ ...settings, die: undefined }), () => wait)
    )
    yield* next.ready
    yield* next.signal("SIGUSR2")
    yield* until(
      "the outbox is empty",
      number("select count(*) as found from effect_events_outbox"),
      (left) => left === 0
    )
    yield* until("everything is applied", missing, (left) => left === 0).pipe(
      Effect.andThen(
        until("nothing is lost", Effect.map(observe, Account.settle), ({ lost }) => lost === 0)
      ),
      // Then the account says what is missing.
      Effect.catchTag("Unexpected", () => Effect.void)
    )
    yield* next.signal("SIGTERM")
    const end = yield* next.exited
    // 130: interrupted, and everything closed.
    if (end !== "130") return yield* unexpected(`the second process ended with ${end}`)
    const observed = yield* observe
    return { ...Account.settle(observed), placed: observed.placed.length, recoveryMillis: Duration.toMillis(took) }
  }).pipe(
    Effect.provide(services(settings)),
    Effect.provideService(References.MinimumLogLevel, "None")
  )
})

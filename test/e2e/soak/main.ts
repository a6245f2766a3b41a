/**
 * `npm run soak -- --minutes N [--seed S] [--brokers 1|3]`: events flow while
 * members join, leave, die and freeze, and servers die and freeze; then every
 * event is accounted for.
 *
 * The last line is `soak: lost=0 twice=0 out_of_order=0 duplicates=N seed=S`,
 * and the exit code is 0 only if the first three are 0 and no member ended by
 * itself or would not stop. Otherwise findings and logs are kept.
 */
import { Broker } from "effect-events/Broker"
import { MessageStore, parts } from "effect-events/MessageStore"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as References from "effect/References"
import * as SqlClient from "effect/sql/SqlClient"
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { headerText, recordsOf } from "../../suites/consumer/support.ts"
import * as Account from "./account.ts"
import { type Applied, Boxed, Direct, group, kafka, partitions, readLine, type Settings, store } from "./domain.ts"
import * as Members from "./members.ts"
import * as Plan from "./plan.ts"
import { publish } from "./publishing.ts"
import * as Servers from "./servers.ts"

const { values } = parseArgs({
  options: { minutes: { type: "string" }, seed: { type: "string" }, brokers: { type: "string", default: "3" } }
})
const minutes = Number(values.minutes ?? 2)
// house-rule-allow: any number will do, and it is printed
const seed = Number(values.seed ?? Date.now() % 1_000_000)
if (!(minutes > 0) || !Number.isInteger(seed) || !["1", "3"].includes(values.brokers)) {
  console.error("usage: npm run soak -- --minutes N [--seed S] [--brokers 1|3]")
  process.exit(2)
}

/** How long nothing may change after the last accident before what is missing counts as lost. */
const patience = 90_000

const began = performance.now()
const say = (sentence: string) =>
  console.log(`${((performance.now() - began) / 1_000).toFixed(0).padStart(5)} s  ${sentence}`)

/** Lines of the members' file, read as they come. */
const makeReader = (path: string) => {
  const file = openSync(path, "a+")
  const applied: Array<Applied> = []
  const chunk = Buffer.alloc(1 << 20)
  let position = 0
  let rest = ""
  return {
    applied,
    read: () => {
      for (let size; (size = readSync(file, chunk, 0, chunk.length, position)) > 0;) {
        position += size
        const lines = (rest + chunk.toString("latin1", 0, size)).split("\n")
        rest = lines.pop()!
        for (const line of lines) applied.push(readLine(line))
      }
    },
    close: () => closeSync(file)
  }
}

const everyPart = Array.from({ length: parts }, (_, part) => part) as unknown as readonly [number, ...Array<number>]

const table = SqlClient.SqlClient.use((sql) =>
  sql`create table applied (
    id bigint generated always as identity primary key, member text not null, handler text not null, key text not null,
    n int not null, partition int not null, "offset" bigint not null, millis bigint not null)`
)

/** Postgres's driver gives numbers of 64 bits as it likes. */
interface Row extends Omit<Applied, "millis" | "offset"> {
  readonly id: unknown
  readonly millis: unknown
  readonly offset: unknown
}

const readTable = SqlClient.SqlClient.use((sql) => sql<Row>`select * from applied order by id`).pipe(
  Effect.map((rows) =>
    rows.map(({ id: _id, millis, offset, ...row }): Applied => ({
      ...row,
      millis: Number(millis),
      offset: String(offset)
    }))
  )
)

/** `handler key n` of each dead letter. */
const readLetters = Effect.forEach(
  [Direct, Boxed],
  (topic) =>
    Effect.map(recordsOf(`${topic.name}.${group}.dead-letter`, partitions), (records) =>
      records.map((record) => {
        const { key, n } = JSON.parse(Buffer.from(record.value!).toString()) as { key: string; n: number }
        return `${headerText(record, "dl_handler")} ${key} ${n}`
      }))
).pipe(Effect.map((letters) => letters.flat()))

const soak = Effect.gen(function*() {
  const folder = mkdtempSync(join(tmpdir(), `effect-events-soak-${seed}-`))
  say(`seed ${seed}, ${minutes} minutes, ${values.brokers} brokers; logs in ${folder}`)
  const servers = yield* Servers.start(values.brokers === "1" ? 1 : 3)
  const settings: Settings = {
    brokers: servers.kafka.brokers,
    postgresUrl: servers.postgres.url,
    seed,
    journal: join(folder, "applied.txt")
  }
  const journal = makeReader(settings.journal)
  const published: Array<Account.Published> = []
  const account = yield* Effect.gen(function*() {
    yield* table
    yield* Broker.use((broker) => broker.ensureTopics([Direct, Boxed]))
    const members = yield* Members.make(settings, folder, say)
    yield* Effect.forEach([1, 2, 3], () => members.start)
    yield* Effect.repeat(Effect.sleep(100), { until: () => members.allReady() })
    say("three members are ready")

    const end = performance.now() + minutes * 60_000
    const over = () => performance.now() > end
    const publishing = yield* Effect.forkScoped(publish(seed, published, over, say))
    const suffering = <A extends Plan.MemberAccident | Plan.BrokerAccident>(
      next: () => Plan.Step<A>,
      suffer: (accident: A) => Effect.Effect<string>
    ) =>
      Effect.gen(function*() {
        for (let step = next(); performance.now() + step.afterMillis < end; step = next()) {
          yield* Effect.sleep(step.afterMillis)
          say(yield* suffer(step.accident))
        }
      })
    const accidents = yield* Effect.forkScoped(Effect.all([
      suffering(Plan.memberSteps(seed), members.suffer),
      suffering(Plan.serverSteps(seed), (accident) => Servers.suffer(servers, accident))
    ], { concurrency: 2 }))
    const progress = yield* Effect.forkScoped(Effect.forever(Effect.andThen(
      Effect.sleep("10 seconds"),
      Effect.sync(() => {
        journal.read()
        say(
          `${published.length} published, ${journal.applied.length} applied to the file, ${members.running()} members`
        )
      })
    )))
    yield* Fiber.join(accidents)
    yield* Fiber.join(publishing)
    yield* Fiber.interrupt(progress)
    say(`${published.length} published; no more accidents`)

    const look = Effect.gen(function*() {
      journal.read()
      const applied = [...yield* readTable, ...journal.applied]
      const letters = yield* readLetters
      const observed = { published, applied, letters, instances: members.instances() }
      return { account: Account.settle(observed), applied: applied.length }
    })
    const waiting = MessageStore.use((store) => store.outbox.read({ parts: everyPart, limit: 1 }))
    let last = yield* look
    for (let unchanged = performance.now(); performance.now() - unchanged < patience;) {
      const rows = yield* waiting
      if (last.account.lost === 0 && rows.length === 0) break
      say(`${last.account.lost} still to come${rows.length === 0 ? "" : ", and some in the outbox"}`)
      yield* Effect.sleep("3 seconds")
      const next = yield* look
      if (next.applied > last.applied || next.account.lost < last.account.lost) unchanged = performance.now()
      last = next
    }
    // What survived is known before they stop; what they do while stopping counts, too.
    const instances = members.instances()
    yield* members.stopAll
    journal.read()
    const observed = {
      published,
      applied: [...yield* readTable, ...journal.applied],
      letters: yield* readLetters,
      instances: instances.map((one, index) => ({ ...one, upsets: members.instances()[index]!.upsets }))
    }
    return { ...Account.settle(observed), complaints: members.complaints, observed }
  }).pipe(
    Effect.provide(Layer.mergeAll(kafka(settings, "soak"), store(settings))),
    Effect.provideService(References.MinimumLogLevel, "Error")
  )
  journal.close()

  const { complaints, findings, lost, observed, outOfOrder, twice } = account
  const passed = lost + twice + outOfOrder + complaints.length === 0
  const unknown = published.filter(({ acked }) => !acked).length
  say(
    `${published.length} published (${unknown} without an answer), ${observed.applied.length} applied, ` +
      `${observed.letters.length} dead letters, ${observed.instances.length} members in all`
  )
  if (passed) rmSync(folder, { recursive: true })
  else {
    for (const { kind, text } of findings.slice(0, 40)) console.log(`${kind}: ${text}`)
    for (const complaint of complaints) console.log(complaint)
    writeFileSync(
      join(folder, "findings.json"),
      JSON.stringify({ findings, complaints, instances: observed.instances })
    )
    writeFileSync(join(folder, "observed.json"), JSON.stringify(observed))
    console.log(`All findings, everything observed and the members' logs: ${folder}`)
  }
  console.log(Account.summary(account, seed))
  return passed ? 0 : 1
}).pipe(Effect.scoped)

Effect.runPromise(soak).then(
  (code) => process.exit(code),
  (error) => {
    console.error(error)
    process.exit(1)
  }
)

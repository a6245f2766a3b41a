/**
 * `npm run crash -- [--store pg|mariadb|sqlite] [--step NAME] [--runs N]
 * [--seed N] [--fresh]`: kills a process at each step of each store, starts it
 * again, and accounts for every event. Adds the runs to the rows of
 * `crash-matrix.json`, which `--fresh` begins anew, prints the table, and
 * writes it to `docs/crash-matrix.md`.
 */
import * as Effect from "effect/Effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { parseArgs } from "node:util"
import { type StepName, steps, stores } from "./domain.ts"
import { crash, type Servers } from "./run.ts"

interface Row {
  readonly store: string
  readonly step: string
  readonly runs: number
  readonly lost: number
  readonly twice: number
  readonly inversions: number
  readonly recovery_ms_p50: number
  readonly recovery_ms_max: number
  /** Each run's, so that more can be added. */
  readonly recovery_ms: ReadonlyArray<number>
}

const { values } = parseArgs({
  options: {
    store: { type: "string" },
    step: { type: "string" },
    runs: { type: "string", default: "1" },
    seed: { type: "string", default: "1" },
    fresh: { type: "boolean", default: false }
  }
})
const [runs, seed] = [Number(values.runs), Number(values.seed)]
const chosenStores = stores.filter((store) => values.store === undefined || store === values.store)
const chosenSteps = steps.filter((step) => values.step === undefined || step === values.step)
if (chosenStores.length === 0 || chosenSteps.length === 0 || !(runs >= 1) || !Number.isInteger(seed)) {
  console.error(
    `usage: npm run crash -- [--store ${stores.join("|")}] [--step ${steps.join("|")}] [--runs N] [--seed N] [--fresh]`
  )
  process.exit(2)
}

const file = new URL("../../../crash-matrix.json", import.meta.url)
const matrix = new Map<string, Row>()
if (!values.fresh && existsSync(file)) {
  for (const row of JSON.parse(readFileSync(file, "utf8")) as Array<Row>) matrix.set(`${row.store} ${row.step}`, row)
}

const median = (sorted: ReadonlyArray<number>): number => sorted[Math.floor((sorted.length - 1) / 2)]!

/** In the order of stores and steps. */
const rows = () => stores.flatMap((store) => steps.flatMap((step) => matrix.get(`${store} ${step}`) ?? []))

const save = () => writeFileSync(file, `${JSON.stringify(rows(), null, 2)}\n`)

const servers: Servers = {
  brokers: process.env.KAFKA_BROKERS!.split(","),
  postgresUrl: process.env.POSTGRES_URL!,
  mariadbUrl: process.env.MARIADB_URL!
}

/** Crashes mostly wait for sessions and leases to end: several go side by side. */
const atOnce = 3
let failed = 0

const one = (store: typeof stores[number], step: StepName, seed: number) =>
  Effect.scoped(crash(store, step, seed, servers)).pipe(
    Effect.matchEffect({
      onFailure: (error) =>
        Effect.sync(() => {
          failed++
          console.error(`${store} ${step} seed ${seed}: ${String(error)}`)
        }),
      onSuccess: ({ inversions, lost, placed, recoveryMillis, twice }) =>
        Effect.sync(() => {
          if (lost + twice + inversions > 0) failed++
          console.log(
            `${store} ${step} seed ${seed}: placed=${placed} lost=${lost} twice=${twice} inversions=${inversions} ` +
              `recovery=${Math.round(recoveryMillis)} ms`
          )
          const before = matrix.get(`${store} ${step}`)
          const recovery = [...before?.recovery_ms ?? [], Math.round(recoveryMillis)].sort((a, b) => a - b)
          matrix.set(`${store} ${step}`, {
            store,
            step,
            runs: recovery.length,
            lost: (before?.lost ?? 0) + lost,
            twice: (before?.twice ?? 0) + twice,
            inversions: (before?.inversions ?? 0) + inversions,
            recovery_ms_p50: median(recovery),
            recovery_ms_max: recovery.at(-1)!,
            recovery_ms: recovery
          })
          save()
        })
    })
  )

const all = Array.from(
  { length: runs },
  (_, run) => chosenStores.flatMap((store) => chosenSteps.map((step) => one(store, step, seed + run)))
).flat()

await Effect.runPromise(Effect.all(all, { concurrency: atOnce, discard: true }))

const seconds = (millis: number) => (millis / 1_000).toFixed(1)
const cell = (row: Row | undefined) =>
  row === undefined
    ? ""
    : `${row.runs}: ${row.lost} / ${row.twice} / ${row.inversions}; ${seconds(row.recovery_ms_p50)} s (${
      seconds(row.recovery_ms_max)
    } s)`
const table = [
  `| step | ${stores.join(" | ")} |`,
  `| --- |${" --- |".repeat(stores.length)}`,
  ...steps.map((step) => `| \`${step}\` | ${stores.map((store) => cell(matrix.get(`${store} ${step}`))).join(" | ")} |`)
].join("\n")
const docs = new URL("../../../docs/crash-matrix.md", import.meta.url)
const marker = "<!-- The table is written by npm run crash. -->\n"
writeFileSync(docs, `${readFileSync(docs, "utf8").split(marker)[0]}${marker}\n${table}\n`)
console.log(`\nlost / applied twice / inversions; recovery: median (longest)\n\n${table}`)
if (failed > 0) console.error(`${failed} runs failed`)
process.exit(failed > 0 ? 1 : 0)

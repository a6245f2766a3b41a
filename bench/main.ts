/**
 * `npm run bench -- [--list | --table] [--rounds N] [--profile | --dry | --short] NAME…`:
 * runs the benchmarks whose names begin with one of the words given, all without
 * words, and writes `bench/results.json`; `--dry` leaves that file alone,
 * `--profile` writes CPU profiles instead. `--table` shows that file.
 *
 * `--short` is for CI: fewer events and rounds, of those benchmarks that have a
 * short form, compared with `bench/baseline.json`; `--keep` makes the ratios the
 * new baseline instead.
 */
import { parseArgs } from "node:util"
import { compare, keep } from "./baseline.ts"
import { coldStarts } from "./coldStart.ts"
import { consumeIdempotents } from "./consumeIdempotent.ts"
import { consumers } from "./consumers.ts"
import { dispatch, dispatchDecoded } from "./dispatch.ts"
import { exactlyOnceBatches, exactlyOnceBatchMariadb, exactlyOnceBatchVsSingle } from "./exactlyOnceBatch.ts"
import { exactlyOnceEvents } from "./exactlyOnceEvent.ts"
import { type Benchmark, isShort, lineOf, type Row, run, save, saved } from "./harness.ts"
import { imports } from "./importing.ts"
import { inboxSize } from "./inboxSize.ts"
import { keyOrderZipf64, keyOrderZipf8 } from "./keyOrderZipf.ts"
import { outboxLatencies } from "./outboxLatency.ts"
import { outboxWrites } from "./outboxWrite.ts"
import { partitions } from "./partitions.ts"
import { pipeline } from "./pipeline.ts"
import { profile } from "./profile.ts"
import { publishBatches } from "./publishBatch.ts"
import { publishFibers } from "./publishFibers.ts"
import { relayBacklog } from "./relayBacklog.ts"
import { relayDrainMariadb, relayDrainPg, relayDrainPlatformatic, relayDrainSqlite } from "./relayDrain.ts"
import { relayScale } from "./relayScale.ts"
import { scheduledDue } from "./scheduledDue.ts"
import { tableOf } from "./table.ts"

const benchmarks: ReadonlyArray<Benchmark> = [
  ...coldStarts,
  ...consumeIdempotents,
  ...consumers,
  dispatch,
  dispatchDecoded,
  ...exactlyOnceBatches,
  exactlyOnceBatchMariadb,
  exactlyOnceBatchVsSingle,
  ...exactlyOnceEvents,
  keyOrderZipf64,
  keyOrderZipf8,
  ...imports,
  inboxSize,
  ...outboxLatencies,
  ...outboxWrites,
  ...partitions,
  pipeline,
  ...publishBatches,
  publishFibers,
  relayBacklog,
  relayDrainMariadb,
  relayDrainPg,
  relayDrainPlatformatic,
  relayDrainSqlite,
  relayScale,
  scheduledDue
]

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    list: { type: "boolean", default: false },
    table: { type: "boolean", default: false },
    profile: { type: "boolean", default: false },
    dry: { type: "boolean", default: false },
    short: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
    rounds: { type: "string" }
  }
})
const least = values.profile || isShort ? 1 : 5
const rounds = values.rounds === undefined ? undefined : Number(values.rounds)
const chosen = benchmarks.filter(({ name, short }) =>
  positionals.length === 0 ? !isShort || short !== undefined : positionals.some((word) => name.startsWith(word))
)

const announce = ({ name, settings }: Benchmark): void => console.log(`${name} ${JSON.stringify(settings)}`)

const runShort = async (): Promise<void> => {
  const rows: Array<Row> = []
  for (const benchmark of chosen) {
    announce(benchmark)
    try {
      rows.push(await run(benchmark, rounds ?? benchmark.short ?? 1))
      console.log(lineOf(rows.at(-1)!))
    } catch (error) {
      // The others may still hold.
      console.error(`FAIL  ${benchmark.name}`, error)
      process.exitCode = 1
    }
  }
  if (values.keep) keep(rows)
  else if (!compare(rows)) process.exitCode = 1
}

const runFull = async (): Promise<void> => {
  const rows: Array<Row> = []
  for (const benchmark of chosen) {
    announce(benchmark)
    if (values.profile) {
      await profile(benchmark, rounds ?? 3)
      continue
    }
    const row = await run(benchmark, rounds ?? 7)
    if (!values.dry) save(row)
    console.log(lineOf(row))
    rows.push(row)
  }
  if (rows.length > 0) console.log(`\n${tableOf(rows)}`)
}

if (values.list) {
  for (const { name } of benchmarks) console.log(name)
} else if (values.table) {
  console.log(tableOf(saved()))
} else if (chosen.length === 0 || rounds !== undefined && (!Number.isInteger(rounds) || rounds < least)) {
  console.error(
    chosen.length === 0 ? "No such benchmark; --list shows them." : `--rounds takes a whole number from ${least}.`
  )
  process.exitCode = 1
} else {
  await (isShort ? runShort() : runFull())
}
process.exit()

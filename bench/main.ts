/**
 * `npm run bench -- [--list] [--rounds N] [--profile | --dry] NAME…`: runs the
 * benchmarks whose names begin with one of the words given, all without words,
 * and writes `bench/results.json`; `--dry` leaves that file alone, `--profile`
 * writes CPU profiles instead.
 */
import { parseArgs } from "node:util"
import { consumeIdempotent, consumeIdempotentBatch } from "./consumeIdempotent.ts"
import { dispatch, dispatchDecoded } from "./dispatch.ts"
import { exactlyOnceBatch, exactlyOnceBatchVsSingle } from "./exactlyOnceBatch.ts"
import { exactlyOnceEvent } from "./exactlyOnceEvent.ts"
import { run, save } from "./harness.ts"
import { inboxSize } from "./inboxSize.ts"
import { keyOrderZipf64, keyOrderZipf8 } from "./keyOrderZipf.ts"
import { outboxLatencies } from "./outboxLatency.ts"
import { outboxWrites } from "./outboxWrite.ts"
import { profile } from "./profile.ts"
import { relayBacklog } from "./relayBacklog.ts"
import { relayDrainMariadb, relayDrainPg, relayDrainSqlite } from "./relayDrain.ts"
import { relayScale } from "./relayScale.ts"
import { scheduledDue } from "./scheduledDue.ts"

const benchmarks = [
  consumeIdempotent,
  consumeIdempotentBatch,
  dispatch,
  dispatchDecoded,
  exactlyOnceBatch,
  exactlyOnceBatchVsSingle,
  exactlyOnceEvent,
  keyOrderZipf64,
  keyOrderZipf8,
  inboxSize,
  ...outboxLatencies,
  ...outboxWrites,
  relayBacklog,
  relayDrainMariadb,
  relayDrainPg,
  relayDrainSqlite,
  relayScale,
  scheduledDue
]

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    list: { type: "boolean", default: false },
    profile: { type: "boolean", default: false },
    dry: { type: "boolean", default: false },
    rounds: { type: "string" }
  }
})
const least = values.profile ? 1 : 5
const rounds = Number(values.rounds ?? (values.profile ? 3 : 7))
const chosen = benchmarks.filter(({ name }) =>
  positionals.length === 0 || positionals.some((word) => name.startsWith(word))
)

if (values.list) {
  for (const { name } of benchmarks) console.log(name)
} else if (chosen.length === 0 || !Number.isInteger(rounds) || rounds < least) {
  console.error(
    chosen.length === 0 ? "No such benchmark; --list shows them." : `--rounds takes a whole number from ${least}.`
  )
  process.exitCode = 1
} else {
  for (const benchmark of chosen) {
    console.log(`${benchmark.name} ${JSON.stringify(benchmark.settings)}`)
    if (values.profile) {
      await profile(benchmark, rounds)
      continue
    }
    const row = await run(benchmark, rounds)
    if (!values.dry) save(row)
    console.log(
      `${row.name}: ours ${row.ours}, twin ${row.twin} ${row.unit}, ratio ${row.ratio} (${row.spread.join(" … ")}), ` +
        `CPU ${row.cpu.ours} against ${row.cpu.twin} µs per event`
    )
  }
}
process.exit()

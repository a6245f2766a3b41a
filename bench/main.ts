/**
 * `npm run bench -- [--list] [--rounds N] NAME…`: runs the benchmarks whose
 * names begin with one of the words given, all without words, and writes
 * `bench/results.json`.
 */
import { parseArgs } from "node:util"
import { consumeIdempotent } from "./consumeIdempotent.ts"
import { exactlyOnceBatch } from "./exactlyOnceBatch.ts"
import { run, save } from "./harness.ts"

const benchmarks = [consumeIdempotent, exactlyOnceBatch]

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { list: { type: "boolean", default: false }, rounds: { type: "string", default: "7" } }
})
const rounds = Number(values.rounds)
const chosen = benchmarks.filter(({ name }) =>
  positionals.length === 0 || positionals.some((word) => name.startsWith(word))
)

if (values.list) {
  for (const { name } of benchmarks) console.log(name)
} else if (chosen.length === 0 || !Number.isInteger(rounds) || rounds < 5) {
  console.error(chosen.length === 0 ? "No such benchmark; --list shows them." : "--rounds takes a whole number from 5.")
  process.exitCode = 1
} else {
  for (const benchmark of chosen) {
    console.log(`${benchmark.name} ${JSON.stringify(benchmark.settings)}`)
    const row = await run(benchmark, rounds)
    save(row)
    console.log(
      `${row.name}: ours ${row.ours}/s, twin ${row.twin}/s, ratio ${row.ratio} (${row.spread.join(" … ")}), ` +
        `CPU ${row.cpu.ours} against ${row.cpu.twin} µs per event`
    )
  }
}
process.exit()

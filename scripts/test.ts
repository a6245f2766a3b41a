/**
 * `npm test [-- VITEST ARGS...]`: everything. The checks of `npm run check`,
 * the package, and all tests, on servers that are found or started for them.
 *
 * With CI=true the short benchmarks run as well, after the tests.
 *
 * The last line counts the tests; a failed check, benchmarks that fail and,
 * with CI=true, a missing server count as one failure each.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { foreground } from "./foreground.ts"
import { services } from "./services/all.ts"
import { environment, missing, obtain, release } from "./services/obtain.ts"
import { runSteps } from "./step.ts"
import { packageStep, staticSteps, typeTests } from "./steps.ts"
import { failures, none, ofTstyche, ofVitest, sum } from "./tally.ts"

const obtaining = Promise.all(services.map((service) => obtain(service, { lifetime: "parent", port: "any" })))
const steps = await runSteps([...staticSteps, packageStep])
const obtained = await obtaining

const folder = mkdtempSync(join(tmpdir(), "effect-events-report-"))
const report = join(folder, "vitest.json")
const exitCode = await foreground(
  "vitest",
  [
    "run",
    "--reporter=default",
    "--reporter=./scripts/stalled.ts",
    "--reporter=json",
    `--outputFile.json=${report}`,
    // Beyond so many the cause is one, such as a server that died, and the rest would only wait for it.
    "--bail=50",
    ...process.argv.slice(2)
  ],
  environment(obtained)
)
const lacking = missing(obtained)
const isCI = process.env.CI === "true"
// Alone: next to tests, ratios would say little.
const benchmarks = isCI && lacking.length === 0
  ? await foreground(process.execPath, [...process.execArgv, "bench/main.ts", "--short"], environment(obtained))
  : 0
const tally = sum([
  ofVitest(report, exitCode),
  ...steps.map(({ output, passed, step }) => {
    const counted = step === typeTests ? ofTstyche(output) : none
    return passed || counted.failed > 0 ? counted : sum([counted, failures(1)])
  }),
  failures(benchmarks === 0 ? 0 : 1),
  isCI ? failures(lacking.length) : none
])

rmSync(folder, { recursive: true })
await release(obtained)

for (const { passed, step } of steps) {
  if (!passed) {
    console.log(`Failed: ${step.name} (see above)`)
  }
}
if (benchmarks !== 0) {
  console.log("Failed: benchmarks (see above)")
}
for (const sentence of lacking) {
  console.log(`${isCI ? "Missing" : "Skipped what needs"} ${sentence}`)
}
console.log(`tests: ${tally.passed} passed, ${tally.failed} failed, ${tally.skipped} skipped`)
process.exit(tally.failed === 0 ? 0 : 1)

/**
 * `npm start [-- ARGS...]`: the example of a shop. With `--kafka` it runs on
 * real servers, which are found or started for it; else in memory.
 */
import { foreground } from "./foreground.ts"
import { kafka } from "./services/kafka/service.ts"
import { environment, missing, obtain, release } from "./services/obtain.ts"
import { postgres } from "./services/postgres/service.ts"

const args = process.argv.slice(2)
const wanted = args.includes("--kafka") ? [kafka, postgres] : []

const obtained = await Promise.all(wanted.map((service) => obtain(service, { lifetime: "parent", port: "any" })))
const lacking = missing(obtained)
for (const sentence of lacking) {
  console.error(`Missing: ${sentence}`)
}
const code = lacking.length > 0
  ? 1
  : await foreground(process.execPath, [...process.execArgv, "examples/orders/main.ts", ...args], environment(obtained))
await release(obtained)
process.exit(code)

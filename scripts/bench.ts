/** `npm run bench -- NAME...`: runs benchmarks, on servers that are found or started for them. */
import { foreground } from "./foreground.ts"
import { services } from "./services/all.ts"
import { environment, missing, obtain, release } from "./services/obtain.ts"

const obtained = await Promise.all(services.map((service) => obtain(service, { lifetime: "parent", port: "any" })))
for (const sentence of missing(obtained)) {
  console.error(`Missing: ${sentence}`)
}
const code = await foreground(
  process.execPath,
  [...process.execArgv, "bench/main.ts", ...process.argv.slice(2)],
  environment(obtained)
)
await release(obtained)
process.exit(code)

/** `npm run soak -- --minutes N [--seed S] [--brokers 1|3]`, on servers of its own. */
import { foreground } from "./foreground.ts"

process.exit(
  await foreground(process.execPath, [...process.execArgv, "test/e2e/soak/main.ts", ...process.argv.slice(2)])
)

/** `npm run check`: all that can be said without running the library. */
import { runSteps } from "./step.ts"
import { staticSteps } from "./steps.ts"

const results = await runSteps(staticSteps)
process.exit(results.every(({ passed }) => passed) ? 0 : 1)

/** `npm run crash -- [--store NAME] [--step NAME] [--runs N] [--seed N] [--fresh]`: runs the crash matrix. */
import { onServers } from "./onServers.ts"

await onServers("test/e2e/crash/main.ts")

/** `npm run bench -- NAME...`: runs benchmarks. */
import { onServers } from "./onServers.ts"

await onServers("bench/main.ts")

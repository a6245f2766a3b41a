/** Runs a program of the repository on servers that are found, or started for it, and exits as it does. */
import { foreground } from "./foreground.ts"
import { services } from "./services/all.ts"
import { environment, missing, obtain, release } from "./services/obtain.ts"

export const onServers = async (program: string): Promise<never> => {
  const obtained = await Promise.all(services.map((service) => obtain(service, { lifetime: "parent", port: "any" })))
  for (const sentence of missing(obtained)) {
    console.error(`Missing: ${sentence}`)
  }
  const code = await foreground(
    process.execPath,
    [...process.execArgv, program, ...process.argv.slice(2)],
    environment(obtained)
  )
  await release(obtained)
  process.exit(code)
}

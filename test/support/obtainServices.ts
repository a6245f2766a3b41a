/**
 * Runs once before the integration tests (vitest's `globalSetup`): finds or
 * starts the servers, and puts their addresses into the environment of the
 * test processes. `npm test` has done so already.
 */
import { services } from "../../scripts/services/all.ts"
import { environment, missing, obtain, release } from "../../scripts/services/obtain.ts"

export const setup = async (): Promise<(() => Promise<void>) | undefined> => {
  if (services.every(({ variable }) => variable in process.env)) {
    return undefined
  }
  const obtained = await Promise.all(services.map((service) => obtain(service, { lifetime: "parent", port: "any" })))
  Object.assign(process.env, environment(obtained))
  return async () => {
    await release(obtained)
    for (const sentence of missing(obtained)) {
      console.log(`Skipped what needs ${sentence}`)
    }
  }
}

/**
 * Gets a service by the first way that works: the environment variable, what
 * `services up` has started, the default address, starting one.
 */
import { freePort, isFree } from "./ports.ts"
import type { Service, StartedService, StartOptions } from "./service.ts"
import { recall } from "./state.ts"

export type Obtained =
  | { readonly _tag: "Given" | "Found"; readonly service: Service; readonly url: string }
  | { readonly _tag: "Started"; readonly service: Service; readonly url: string; readonly started: StartedService }
  | { readonly _tag: "Missing"; readonly service: Service; readonly reason: string }

export interface ObtainOptions {
  readonly lifetime: StartOptions["lifetime"]
  /** Which port a service gets that has to be started; `"default"` only if that is free. */
  readonly port: "default" | "any"
}

export const obtain = async (service: Service, options: ObtainOptions): Promise<Obtained> => {
  const given = process.env[service.variable]
  if (given !== undefined) {
    return useGiven(service, given)
  }
  for (const url of [recall(service)?.url ?? [], service.defaultUrls].flat()) {
    if (await service.answers(url)) {
      return { _tag: "Found", service, url }
    }
  }
  try {
    const started = await service.start({
      lifetime: options.lifetime,
      port: options.port === "default" && await isFree(service.defaultPort) ? service.defaultPort : await freePort()
    })
    return { _tag: "Started", service, url: started.url, started }
  } catch (error) {
    return { _tag: "Missing", service, reason: error instanceof Error ? error.message : String(error) }
  }
}

/** Whoever sets the variable means that server and no other, or with an empty value: none. */
const useGiven = async (service: Service, url: string): Promise<Obtained> => {
  if (url === "") {
    return { _tag: "Missing", service, reason: `${service.variable} is set to nothing` }
  }
  if (await service.answers(url)) {
    return { _tag: "Given", service, url }
  }
  return { _tag: "Missing", service, reason: `${service.variable} is ${url}, but no server answers there` }
}

/** For the programs that we start: where each service is. Empty: it is missing, do not look again. */
export const environment = (all: ReadonlyArray<Obtained>): Record<string, string> =>
  Object.fromEntries(all.map((one) => [one.service.variable, one._tag === "Missing" ? "" : one.url]))

export const missing = (all: ReadonlyArray<Obtained>): Array<string> =>
  all.flatMap((one) => one._tag === "Missing" ? [`${one.service.name} (${one.reason}): ${one.service.howToGet}`] : [])

/** Stops those that were started for us. */
export const release = async (all: ReadonlyArray<Obtained>): Promise<void> => {
  await Promise.all(all.flatMap((one) => one._tag === "Started" ? [one.started.stop()] : []))
}

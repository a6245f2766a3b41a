/**
 * Servers to develop against, in the background.
 *
 *   npm run services -- up [NAME...]      starts what is missing
 *   npm run services -- status            shows what there is
 *   npm run services -- down [NAME...]    stops what `up` started, and only that
 */
import { rm } from "node:fs/promises"
import { setTimeout as sleep } from "node:timers/promises"
import { services } from "./all.ts"
import { obtain } from "./obtain.ts"
import type { Service } from "./service.ts"
import { forget, recall, remember, type Remembered } from "./state.ts"

const usage = "usage: npm run services -- up | status | down [kafka] [postgres] [mariadb] [mysql] [redis]"

const print = (service: Service, state: string, detail: string): void =>
  console.log(`${service.name.padEnd(9)} ${state.padEnd(9)} ${detail}`)

const up = async (service: Service): Promise<boolean> => {
  const remembered = recall(service)
  const obtained = await obtain(service, { lifetime: "detached", port: "default" })
  if (obtained._tag === "Missing") {
    print(service, "missing", `${obtained.reason}; ${service.howToGet}`)
    return false
  }
  if (obtained._tag === "Started") {
    // The one that we knew of runs, but does not answer.
    if (remembered !== undefined) {
      await end(service, remembered)
    }
    remember(service, obtained.started)
  }
  print(service, obtained._tag.toLowerCase(), `${service.variable}=${obtained.url}`)
  return true
}

const status = async (service: Service): Promise<boolean> => {
  const remembered = recall(service)
  const given = process.env[service.variable]
  for (const url of [given, remembered?.url, ...service.defaultUrls]) {
    if (url && await service.answers(url)) {
      const whose = url === remembered?.url ? `started (pid ${remembered.pid})` : url === given ? "given" : "found"
      print(service, "up", `${service.variable}=${url}  ${whose}`)
      return true
    }
  }
  print(service, "down", "")
  return true
}

const down = async (service: Service): Promise<boolean> => {
  const remembered = recall(service)
  if (remembered !== undefined) {
    await end(service, remembered)
    print(service, "stopped", remembered.url)
  }
  forget(service)
  return true
}

const end = async (service: Service, { folder, pid }: Remembered): Promise<void> => {
  process.kill(pid, service.stopSignal)
  const deadline = Date.now() + 10_000
  while (recall(service) !== undefined) {
    if (Date.now() > deadline) {
      process.kill(-pid, "SIGKILL")
    }
    await sleep(50)
  }
  await rm(folder, { recursive: true, force: true })
}

const [command, ...names] = process.argv.slice(2)
const action = { up, status, down }[command ?? ""]
const chosen = services.filter(({ name }) => names.length === 0 || names.includes(name))
if (action === undefined || names.some((name) => chosen.every((service) => service.name !== name))) {
  console.error(usage)
  process.exit(2)
}
// One after another: they write one state file, and share few cores.
const outcomes: Array<boolean> = []
for (const service of chosen) {
  outcomes.push(await action(service))
}
process.exit(outcomes.every(Boolean) ? 0 : 1)

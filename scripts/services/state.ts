/** What `services up` has started, so that later commands find it and `services down` stops just that. */
import { execFileSync } from "node:child_process"
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import type { Service } from "./service.ts"

export interface Remembered {
  readonly url: string
  readonly pid: number
  readonly folder: string
  /** Tells the process from a later one that was given the same pid. */
  readonly startedAt: string
}

type State = { readonly [Name in Service["name"]]?: Remembered }

const file = join(import.meta.dirname, "../../.services/state.json")

export const read = (): State => {
  try {
    return JSON.parse(readFileSync(file, "utf8"))
  } catch {
    return {}
  }
}

/** The one that `services up` started, if it still runs. */
export const recall = ({ name }: Service): Remembered | undefined => {
  const remembered = read()[name]
  return remembered !== undefined && startedAt(remembered.pid) === remembered.startedAt ? remembered : undefined
}

export const remember = ({ name }: Service, started: Omit<Remembered, "startedAt">): void => {
  const { folder, pid, url } = started
  write({ ...read(), [name]: { url, pid, folder, startedAt: startedAt(pid) } })
}

export const forget = ({ name }: Service): void => {
  const { [name]: _, ...rest } = read()
  write(rest)
}

const write = (state: State): void => {
  if (Object.keys(state).length === 0) {
    rmSync(dirname(file), { recursive: true, force: true })
    return
  }
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, JSON.stringify(state, null, 2) + "\n")
}

/** Empty when there is no such process, or when only its exit status is left. */
const startedAt = (pid: number): string => {
  try {
    const line = execFileSync("ps", ["-o", "stat=,lstart=", "-p", String(pid)], { encoding: "utf8" })
    const [, stat, since] = /^(\S+)\s+(.*)$/.exec(line.trim()) ?? []
    return since === undefined || stat?.startsWith("Z") ? "" : since
  } catch {
    return ""
  }
}

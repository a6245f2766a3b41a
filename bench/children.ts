/** Child processes of the benchmarks, which run the package as it is installed: out of `dist`, in JavaScript. */
import { spawn, spawnSync } from "node:child_process"
import { join } from "node:path"
import type { Round } from "./harness.ts"

/** Puts the package into `dist`. */
export const build = (): void => {
  const { status } = spawnSync(process.execPath, [join(import.meta.dirname, "../scripts/build.ts")], {
    stdio: "inherit",
    cwd: join(import.meta.dirname, "..")
  })
  if (status !== 0) throw new Error("The package does not build")
}

/** What a child says, and when, in milliseconds after its start. */
export interface Said {
  readonly text: string
  readonly millis: number
}

/**
 * Runs a program of `bench/programs` to its end. What it has to say it writes
 * to descriptor 3, once. Without the conditions of this process: they mean the
 * sources.
 */
export const runChild = (program: string, args: ReadonlyArray<string>, flags: ReadonlyArray<string> = []) =>
  new Promise<Said>((resolve, reject) => {
    const begin = performance.now()
    const child = spawn(process.execPath, [...flags, join(import.meta.dirname, "programs", program), ...args], {
      stdio: ["ignore", "inherit", "inherit", "pipe"]
    })
    let said: Said | undefined
    child.stdio[3]!.once("data", (text: Buffer) => {
      said = { text: text.toString(), millis: performance.now() - begin }
    })
    child.once("error", reject)
    child.once("close", (code) => {
      if (code === 0 && said !== undefined) resolve(said)
      else reject(new Error(`${program} has ended with ${code}, and said ${said?.text ?? "nothing"}`))
    })
  })

/** A round of several children, one after another. */
export const oneByOne = async (children: number, child: () => Promise<Round>): Promise<Round> => {
  const total = { events: 0, wallMillis: 0, cpuMicros: 0 }
  for (let i = 0; i < children; i++) {
    const { cpuMicros, events, wallMillis } = await child()
    total.events += events
    total.wallMillis += wallMillis
    total.cpuMicros += cpuMicros
  }
  return total
}

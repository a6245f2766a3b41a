/** Programs as processes of their own, which cases kill. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { type Log, makeLog } from "../suites/consumer/support.ts"
import type { Settings } from "./programs/services.ts"

export interface Said {
  readonly word: string
  readonly n: number
}

export interface Process {
  /** The lines that it printed. What it complains about goes to the test's own stderr. */
  readonly said: Log<Said>
  /** SIGKILL: nothing of it runs any more when this returns. */
  readonly kill: Effect.Effect<void>
}

/** Starts `programs/<name>.ts`; it is killed with the scope, if not before. */
export const start = (name: string, settings: Settings): Effect.Effect<Process, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const said = makeLog<Said>()
      const child = spawn(
        process.execPath,
        ["--conditions=effect-events-source", join(import.meta.dirname, `programs/${name}.ts`)],
        {
          env: {
            ...process.env,
            NODE_OPTIONS: "--disable-warning=TimeoutNegativeWarning",
            PROGRAM: JSON.stringify(settings)
          },
          stdio: ["ignore", "pipe", "inherit"]
        }
      )
      const exited = new Promise<void>((resolve) => void child.once("exit", () => resolve()))
      createInterface(child.stdout).on("line", (line) => {
        const [word = "", n] = line.split(" ")
        Effect.runSync(said.add({ word, n: Number(n) }))
      })
      const kill = Effect.andThen(Effect.sync(() => child.kill("SIGKILL")), Effect.promise(() => exited))
      return { said, kill }
    }),
    ({ kill }) => kill
  )

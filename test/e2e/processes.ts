/** Programs as processes of their own, which cases kill. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { dieWithParent } from "../../scripts/services/child.ts"
import { type Log, makeLog } from "../suites/consumer/support.ts"
import type { Settings } from "./programs/services.ts"

export interface Said {
  readonly word: string
  readonly n: number
}

export interface Process {
  /** The lines that it printed. What it complains about goes to the test's own stderr. */
  readonly said: Log<Said>
  /** SIGSTOP: it stands still, and knows nothing of it. */
  readonly freeze: Effect.Effect<void>
  /** SIGCONT: it goes on where it stood. */
  readonly thaw: Effect.Effect<void>
  /** SIGTERM, and waits until it has ended. */
  readonly stop: Effect.Effect<void>
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
          detached: true,
          stdio: ["ignore", "pipe", "inherit"]
        }
      )
      const exited = new Promise<void>((resolve) => void child.once("exit", () => resolve()))
      // A frozen one would stay for ever.
      dieWithParent(child.pid!, exited)
      createInterface(child.stdout).on("line", (line) => {
        const [word = "", n] = line.split(" ")
        Effect.runSync(said.add({ word, n: Number(n) }))
      })
      const signal = (name: NodeJS.Signals) => Effect.sync(() => void child.kill(name))
      const ended = Effect.promise(() => exited)
      return {
        said,
        freeze: signal("SIGSTOP"),
        thaw: signal("SIGCONT"),
        stop: Effect.andThen(signal("SIGTERM"), ended),
        kill: Effect.andThen(signal("SIGKILL"), ended)
      }
    }),
    ({ kill }) => kill
  )

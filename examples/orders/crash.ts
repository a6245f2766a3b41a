/**
 * The consumer in a process of its own, which is killed three times on the
 * way: no warning, no clean-up, as when a machine dies.
 */
import { Effect, Schedule } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"
import * as Tables from "./tables.ts"

const invoicer = (run: string) =>
  ChildProcess.make(process.execPath, [...process.execArgv, new URL("./invoicer.ts", import.meta.url).pathname, run], {
    extendEnv: true,
    stdout: "inherit",
    stderr: "inherit",
    forceKillAfter: "30 seconds"
  })

/** Runs the invoicer, and kills it when a quarter, a half and three quarters of `all` orders are invoiced. */
export const crashing = (run: string, all: number) =>
  Effect.gen(function*() {
    const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
    for (const share of [0.25, 0.5, 0.75]) {
      yield* Effect.scoped(Effect.gen(function*() {
        const child = yield* spawner.spawn(invoicer(run))
        const dead = child.exitCode.pipe(
          Effect.flatMap((code) => Effect.die(new Error(`The invoicer ended by itself with code ${code}`)))
        )
        yield* Effect.raceFirst(dead, reached(all * share))
        yield* Effect.logInfo("SIGKILL for the invoicer")
        yield* child.kill({ killSignal: "SIGKILL" })
      }))
    }
    const last = yield* spawner.spawn(invoicer(run))
    const code = yield* last.exitCode
    return yield* Effect.die(new Error(`The invoicer ended by itself with code ${code}`))
  })

const reached = (invoices: number) =>
  Tables.invoiced.pipe(
    Effect.repeat({ schedule: Schedule.spaced("20 millis"), until: (now) => now >= invoices })
  )

/**
 * Runs a program for the user: its terminal, its exit code, and signals that
 * reach it once.
 *
 * The program leads a process group of its own. Otherwise Ctrl-C would reach
 * it twice, from the terminal and from npm, which passes on what it gets; and
 * the second SIGINT means "do not wait".
 */
import { spawn } from "node:child_process"
import { constants } from "node:os"
import { dieWithParent } from "./services/child.ts"

/** Signals that come this close together are one request. */
const sameRequestMs = 500
/** What a program may take to finish its work after the first signal. */
const drainMs = 30_000

/** Resolves with the exit code. */
export const foreground = (
  command: string,
  args: ReadonlyArray<string>,
  env: Record<string, string> = {}
): Promise<number> =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: "inherit", detached: true, env: { ...process.env, ...env } })
    child.once("spawn", () => dieWithParent(child.pid!, new Promise((end) => child.once("exit", () => end()))))
    child.once("error", reject)

    let asked: number | undefined
    let patience: NodeJS.Timeout | undefined
    const onSignal = (signal: NodeJS.Signals) => {
      if (asked === undefined) {
        asked = Date.now()
        process.kill(child.pid!, signal)
        patience = setTimeout(() => process.kill(-child.pid!, "SIGKILL"), drainMs)
      } else if (Date.now() - asked > sameRequestMs) {
        process.kill(-child.pid!, "SIGKILL")
      }
    }
    process.on("SIGINT", onSignal)
    process.on("SIGTERM", onSignal)

    child.once("exit", (code, signal) => {
      process.off("SIGINT", onSignal)
      process.off("SIGTERM", onSignal)
      clearTimeout(patience)
      resolve(code ?? 128 + constants.signals[signal!])
    })
  })

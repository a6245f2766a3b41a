/**
 * A server process of ours: started, signalled, and never left behind.
 *
 * Each one leads a process group of its own, so that Ctrl-C in the terminal
 * reaches the program under test but not its database.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, openSync, readFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"

export interface LaunchOptions {
  /** Everything that the process prints is appended here. */
  readonly logFile: string
  /** `"parent"`: dies with this process, however that ends. `"detached"`: stays until it is stopped. */
  readonly lifetime: "parent" | "detached"
  /** Removed with the process when this process dies without having stopped it. */
  readonly temporaryFolder?: string | undefined
  readonly user?: { readonly uid: number; readonly gid: number } | undefined
}

export interface Child {
  readonly pid: number
  readonly isRunning: () => boolean
  readonly signal: (signal: NodeJS.Signals) => void
  /** Waits until the process has ended. */
  readonly exited: () => Promise<void>
  /** Asks with `signal`, then insists with SIGKILL. */
  readonly stop: (signal?: NodeJS.Signals, patienceMs?: number) => Promise<void>
  readonly logTail: () => string
}

export const launch = async (
  command: string,
  args: ReadonlyArray<string>,
  options: LaunchOptions
): Promise<Child> => {
  const log = openSync(options.logFile, "a")
  const process_ = spawn(command, args, {
    detached: true,
    stdio: ["ignore", log, log],
    ...options.user
  })
  closeSync(log)
  const pid = await spawned(process_)
  process_.unref()

  let running = true
  const end = new Promise<void>((resolve) => {
    process_.once("exit", () => {
      running = false
      resolve()
    })
  })
  // A server that runs does not keep us alive; waiting for its end does.
  const exited = () => {
    process_.ref()
    return end
  }
  if (options.lifetime === "parent") {
    dieWithParent(pid, end, options.temporaryFolder)
  }

  const signal = (name: NodeJS.Signals) => {
    if (running) {
      process.kill(pid, name)
    }
  }

  return {
    pid,
    isRunning: () => running,
    signal,
    exited,
    stop: async (name = "SIGTERM", patienceMs = 10_000) => {
      signal(name)
      // A stopped process (SIGSTOP) sees the signal only when it goes on.
      signal("SIGCONT")
      const patience = new AbortController()
      await Promise.race([exited(), sleep(patienceMs, undefined, { signal: patience.signal }).catch(() => {})])
      patience.abort()
      signal("SIGKILL")
      await exited()
    },
    logTail: () => readFileSync(options.logFile, "utf8").split("\n").slice(-30).join("\n")
  }
}

const spawned = (child: ChildProcess): Promise<number> =>
  new Promise((resolve, reject) => {
    child.once("spawn", () => resolve(child.pid!))
    child.once("error", reject)
  })

/**
 * A shell holds the read end of a pipe whose write end only we have. The pipe
 * closes when we end, also by SIGKILL, and the shell then kills the group.
 */
export const dieWithParent = (pid: number, end: Promise<void>, folder?: string): void => {
  const script = `read _; kill -s KILL -- "-$0"; test -z "$1" || rm -rf -- "$1"`
  const watchdog = spawn("/bin/sh", ["-c", script, String(pid), folder ?? ""], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"]
  })
  watchdog.unref()
  void end.then(() => watchdog.kill("SIGKILL"))
}

/**
 * A Postgres of one's own, for tests that kill and restart it.
 *
 * ```ts
 * const postgres = await startPostgres()
 * await postgres.kill() // SIGKILL
 * await postgres.start() // same data, same port
 * await postgres.stop()
 * ```
 */
import { execFile } from "node:child_process"
import { chown, rm } from "node:fs/promises"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { promisify } from "node:util"
import { type Child, launch, type LaunchOptions } from "../child.ts"
import { freePort } from "../ports.ts"
import { temporaryFolder } from "../temporaryFolder.ts"
import { waitUntil } from "../waitUntil.ts"
import { type Binaries, findBinaries } from "./binaries.ts"
import { answers, execute } from "./handshake.ts"
import { serverUser, type User } from "./user.ts"

const run = promisify(execFile)

export interface PostgresOptions {
  /** Default: a free one. */
  readonly port?: number | undefined
  /** `"detached"`: outlives this process. Default: `"parent"`. */
  readonly lifetime?: LaunchOptions["lifetime"] | undefined
}

export interface PostgresServer {
  /** Of the empty database `test`. */
  readonly url: string
  readonly folder: string
  /** Of the process that runs now, or ran last. */
  readonly pid: () => number
  /** Starts it again after `kill`, with the same data and port; waits until it answers. */
  readonly start: () => Promise<void>
  /** Sends `signal` (default SIGKILL) and waits until the server has ended. */
  readonly kill: (signal?: NodeJS.Signals) => Promise<void>
  /** Ends it and removes its data. */
  readonly stop: () => Promise<void>
}

export const startPostgres = async (options: PostgresOptions = {}): Promise<PostgresServer> => {
  const folder = await temporaryFolder("postgres")
  const port = options.port ?? await freePort()
  const url = (database: string) => `postgres://postgres@127.0.0.1:${port}/${database}`
  let child: Child | undefined

  const stop = async () => {
    // SIGINT: "fast shutdown", which does not wait for clients to leave.
    await child?.stop("SIGINT")
    await rm(folder, { recursive: true, force: true })
  }

  try {
    const user = await serverUser()
    const binaries = await findBinaries(folder)
    const data = await initialize(binaries, folder, user)

    const boot = async () => {
      child = await launch(binaries.postgres, serverArgs(data, port), {
        logFile: join(folder, "postgres.log"),
        lifetime: options.lifetime ?? "parent",
        temporaryFolder: folder,
        user
      })
      await waitUntil("Postgres", child, () => answers(url("postgres")))
      return child
    }

    child = await boot()
    await execute(url("postgres"), "CREATE DATABASE test")

    return {
      url: url("test"),
      folder,
      pid: () => child!.pid,
      start: async () => {
        if (!child!.isRunning()) {
          child = await retryWhileOrphansLive(boot)
        }
      },
      kill: async (signal = "SIGKILL") => {
        // Its sessions outlive it for a moment, and would answer as if nothing had happened.
        const sessions = signal === "SIGKILL" ? await childrenOf(child!.pid) : []
        child!.signal(signal)
        for (const session of sessions) {
          killIfAlive(session)
        }
        await child!.exited()
      },
      stop
    }
  } catch (error) {
    await stop()
    throw error
  }
}

/** Makes an empty database cluster that trusts everybody who reaches it. */
const initialize = async (binaries: Binaries, folder: string, user: User | undefined): Promise<string> => {
  if (user !== undefined) {
    await chown(folder, user.uid, user.gid)
  }
  const data = join(folder, "data")
  const args = ["-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
  await run(binaries.initdb, args, { cwd: folder, ...user })
  return data
}

const serverArgs = (data: string, port: number): Array<string> => [
  "-D",
  data,
  "-p",
  String(port),
  "-h",
  "127.0.0.1",
  // No Unix socket.
  "-k",
  "",
  "-c",
  "max_connections=200"
]

/** What a process has started, as `pgrep` of Linux and macOS tells. */
const childrenOf = async (pid: number): Promise<Array<number>> => {
  const { stdout } = await run("pgrep", ["-P", String(pid)]).catch(() => ({ stdout: "" }))
  return stdout.split("\n").filter((line) => line !== "").map(Number)
}

const killIfAlive = (pid: number): void => {
  try {
    process.kill(pid, "SIGKILL")
  } catch {
    // It has ended by itself.
  }
}

/** Sessions of a killed server that had just begun end a moment after it, and until then hold its shared memory. */
const retryWhileOrphansLive = async (boot: () => Promise<Child>): Promise<Child> => {
  for (let attempt = 1;; attempt++) {
    try {
      return await boot()
    } catch (error) {
      if (attempt === 20 || !String(error).includes("pre-existing shared memory block")) {
        throw error
      }
      await sleep(100)
    }
  }
}

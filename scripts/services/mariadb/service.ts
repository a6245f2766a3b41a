import { execFile } from "node:child_process"
import { rm } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { type Child, launch } from "../child.ts"
import { findCommand } from "../findCommand.ts"
import { answersAs } from "../mysql/handshake.ts"
import type { Service } from "../service.ts"
import { temporaryFolder } from "../temporaryFolder.ts"
import { waitUntil } from "../waitUntil.ts"

const run = promisify(execFile)
const answers = answersAs("MariaDB")

/** MariaDB refuses to run as root unless told to. */
const asUser = process.getuid?.() === 0 ? ["--user=root"] : []

export const mariadb: Service = {
  name: "mariadb",
  variable: "MARIADB_URL",
  defaultUrls: ["mysql://root@127.0.0.1:3306/test"],
  defaultPort: 3306,
  stopSignal: "SIGTERM",
  answers,
  start: async ({ lifetime, port }) => {
    const server = findCommand("mariadbd")
    const installer = findCommand("mariadb-install-db")
    const folder = await temporaryFolder("mariadb")
    const data = join(folder, "data")
    const url = `mysql://root@127.0.0.1:${port}/test`
    let child: Child | undefined
    const stop = async () => {
      await child?.stop()
      await rm(folder, { recursive: true, force: true })
    }
    try {
      // Creates the database `test`, and `root` without a password.
      await run(installer, [
        "--no-defaults",
        ...asUser,
        `--datadir=${data}`,
        "--auth-root-authentication-method=normal"
      ])
      child = await launch(
        server,
        [
          "--no-defaults",
          ...asUser,
          `--datadir=${data}`,
          `--socket=${join(folder, "socket")}`,
          `--pid-file=${join(folder, "pid")}`,
          `--port=${port}`,
          "--bind-address=127.0.0.1"
        ],
        { logFile: join(folder, "mariadb.log"), lifetime, temporaryFolder: folder }
      )
      await waitUntil("MariaDB", child, () => answers(url))
      return { url, pid: child.pid, folder, stop }
    } catch (error) {
      await stop()
      throw error
    }
  },
  howToGet: "install it (Debian: apt install mariadb-server), or run `docker compose up -d mariadb`, " +
    "or set MARIADB_URL=mysql://user@host:port/database"
}

import { execFile } from "node:child_process"
import { rm, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { type Child, launch } from "../child.ts"
import type { Service } from "../service.ts"
import { temporaryFolder } from "../temporaryFolder.ts"
import { waitUntil } from "../waitUntil.ts"
import { distribution } from "./distribution.ts"
import { answersAs } from "./handshake.ts"

const run = promisify(execFile)
const answers = answersAs("MySQL")

/** MySQL refuses to run as root unless told to. */
const asUser = process.getuid?.() === 0 ? ["--user=root"] : []

/** Beside MariaDB, of which its dialect is the same. */
export const mysql: Service = {
  name: "mysql",
  variable: "MYSQL_URL",
  defaultUrls: ["mysql://root@127.0.0.1:3307/test", "mysql://root@127.0.0.1:3306/test"],
  defaultPort: 3307,
  stopSignal: "SIGTERM",
  answers,
  start: async ({ lifetime, port }) => {
    const home = await distribution()
    const server = join(home, "bin", "mysqld")
    const folder = await temporaryFolder("mysql")
    const common = ["--no-defaults", ...asUser, `--basedir=${home}`, `--datadir=${join(folder, "data")}`]
    const url = `mysql://root@127.0.0.1:${port}/test`
    let child: Child | undefined
    const stop = async () => {
      await child?.stop()
      await rm(folder, { recursive: true, force: true })
    }
    try {
      const first = join(folder, "first.sql")
      await writeFile(first, "create database if not exists test;\n")
      // Creates `root` without a password.
      await run(server, [...common, "--initialize-insecure"])
      child = await launch(
        server,
        [
          ...common,
          `--socket=${join(folder, "socket")}`,
          `--pid-file=${join(folder, "pid")}`,
          `--port=${port}`,
          "--bind-address=127.0.0.1",
          "--mysqlx=OFF",
          `--init-file=${first}`
        ],
        { logFile: join(folder, "mysql.log"), lifetime, temporaryFolder: folder }
      )
      await waitUntil("MySQL", child, () => answers(url))
      return { url, pid: child.pid, folder, stop }
    } catch (error) {
      await stop()
      throw error
    }
  },
  howToGet: "install Maven (Debian: apt install maven), which fetches one for Linux on x64, or run " +
    "`docker compose up -d mysql`, or set MYSQL_URL=mysql://user@host:port/database"
}

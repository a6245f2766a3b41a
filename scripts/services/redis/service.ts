import { rm } from "node:fs/promises"
import { join } from "node:path"
import { launch } from "../child.ts"
import { findCommand } from "../findCommand.ts"
import type { Service } from "../service.ts"
import { temporaryFolder } from "../temporaryFolder.ts"
import { waitUntil } from "../waitUntil.ts"
import { answers } from "./handshake.ts"

export const redis: Service = {
  name: "redis",
  variable: "REDIS_URL",
  defaultUrls: ["redis://127.0.0.1:6379"],
  defaultPort: 6379,
  stopSignal: "SIGTERM",
  answers,
  start: async ({ lifetime, port }) => {
    const program = findCommand("redis-server")
    const folder = await temporaryFolder("redis")
    const url = `redis://127.0.0.1:${port}`
    const child = await launch(
      program,
      ["--bind", "127.0.0.1", "--port", String(port), "--dir", folder, "--save", "", "--appendonly", "no"],
      { logFile: join(folder, "redis.log"), lifetime, temporaryFolder: folder }
    )
    const stop = async () => {
      await child.stop()
      await rm(folder, { recursive: true, force: true })
    }
    await waitUntil("Redis", child, () => answers(url)).catch(async (error) => {
      await stop()
      throw error
    })
    return { url, pid: child.pid, folder, stop }
  },
  howToGet: "install it (Debian: apt install redis-server), or run `docker compose up -d redis`, " +
    "or set REDIS_URL=redis://host:port"
}

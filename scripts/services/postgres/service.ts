import type { Service } from "../service.ts"
import { answers } from "./handshake.ts"
import { startPostgres } from "./server.ts"

export const postgres: Service = {
  name: "postgres",
  variable: "POSTGRES_URL",
  defaultUrls: [
    "postgres://postgres@127.0.0.1:5432/test",
    "postgres://postgres:postgres@127.0.0.1:5432/postgres"
  ],
  defaultPort: 5432,
  stopSignal: "SIGINT",
  answers,
  start: async (options) => {
    const server = await startPostgres(options)
    return { url: server.url, pid: server.pid(), folder: server.folder, stop: server.stop }
  },
  howToGet: "install it (Debian: apt install postgresql), or run `docker compose up -d postgres`, " +
    "or set POSTGRES_URL=postgres://user@host:port/database"
}

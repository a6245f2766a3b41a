import { randomInt } from "node:crypto"
import { createServer } from "node:net"

/**
 * A free port below the ephemeral range (32768 and up on Linux). From that
 * range a client could be given the port of a server that is down for a
 * moment, and then even connect to itself.
 */
export const freePort = async (): Promise<number> => {
  for (;;) {
    const port = randomInt(20_000, 32_000)
    if (await isFree(port)) {
      return port
    }
  }
}

export const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer()
    server.once("error", () => resolve(false))
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)))
  })

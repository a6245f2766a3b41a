/**
 * Owns which ports servers of tests get.
 *
 * The insight: between the choice of a port and the server that listens on it
 * lie seconds (a JVM starts), and a server that is down for a moment wants its
 * port back. So that no other process chooses it in between, each has a slice
 * of the range to itself; what says whose slice it is, is a port as well, which
 * the kernel takes back when the process ends, however it ends.
 */
import { randomInt } from "node:crypto"
import { createServer, type Server } from "node:net"

// Below the ephemeral range (32768 and up on Linux): from that one a client
// could be given the port of a server that is down, and even connect to itself.
const marks = { first: 19_900, count: 60 }
const slice = { first: 20_000, size: 200 }

const listen = (port: number): Promise<Server | undefined> =>
  new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy())
    server.once("error", () => resolve(undefined))
    server.listen({ port, host: "127.0.0.1", exclusive: true }, () => resolve(server))
  })

/** The first port of a slice that is this process's until it ends. */
const takeSlice = async (): Promise<number> => {
  const start = randomInt(marks.count)
  for (let n = 0; n < marks.count; n++) {
    const index = (start + n) % marks.count
    const mark = await listen(marks.first + index)
    if (mark !== undefined) {
      mark.unref()
      return slice.first + index * slice.size
    }
  }
  throw new Error(
    `All ports from ${marks.first} to ${marks.first + marks.count - 1} are taken: who starts so many servers?`
  )
}

let own: Promise<number> | undefined
let given = 0

/** A free port that nobody else is given, in this process or in another. */
export const freePort = async (): Promise<number> => {
  const first = await (own ??= takeSlice())
  for (let tries = 0; tries < slice.size; tries++) {
    const port = first + given++ % slice.size
    if (await isFree(port)) {
      return port
    }
  }
  throw new Error(`None of the ports from ${first} to ${first + slice.size - 1} is free`)
}

export const isFree = async (port: number): Promise<boolean> => {
  const server = await listen(port)
  if (server === undefined) {
    return false
  }
  await new Promise((closed) => server.close(closed))
  return true
}

/** A TCP proxy before a database that cuts connections at COMMIT: before it arrives there, or before its answer comes back. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as net from "node:net"

export interface Cutter {
  /** `url` by way of the proxy. */
  readonly through: (url: string) => string
  /** Cuts the next so many COMMITs. */
  readonly cut: (what: "request" | "answer", times: number) => Effect.Effect<void>
  /** How many are still to be cut. */
  readonly left: () => number
}

/** What a client sends when it commits: the text, but not `READ COMMITTED`, or the name under which Postgres knows it. */
const makeCommits = () => {
  let prepared: string | undefined
  return (bytes: Buffer): boolean => {
    const text = bytes.toString("latin1")
    prepared = /P[^]{4}([^\0]+)\0COMMIT\0/.exec(text)?.[1] ?? prepared
    return /COMMIT(?!TED)/.test(text) || (prepared !== undefined && text.includes(`\0${prepared}\0`))
  }
}

/**
 * Starts a proxy before `target`, closed with the scope.
 */
export const startCutter = Effect.fnUntraced(function*(target: string): Effect.fn.Return<Cutter, never, Scope.Scope> {
  const { hostname, port } = new URL(target)
  const sockets = new Set<net.Socket>()
  let what: "request" | "answer" = "answer"
  let left = 0

  const connect = (client: net.Socket) => {
    const server = net.connect({ host: hostname, port: Number(port) })
    const isCommit = makeCommits()
    let committing = false
    const end = () => {
      client.destroy()
      server.destroy()
    }
    for (const socket of [client, server]) {
      sockets.add(socket)
      socket.on("error", end).on("close", () => {
        sockets.delete(socket)
        end()
      })
    }
    client.on("data", (bytes) => {
      if (isCommit(bytes) && left > 0) {
        left--
        if (what === "request") return end()
        committing = true
      }
      server.write(bytes)
    })
    server.on("data", (bytes) => {
      // Postgres may say first that it has parsed and bound the statement.
      if (!committing) client.write(bytes)
      else if (!bytes.includes("COMMIT") && /[12]/.test(String.fromCharCode(bytes[0]!))) return
      else end()
    })
  }

  const proxy = yield* Effect.acquireRelease(
    Effect.callback<net.Server>((resume) => {
      const server = net.createServer(connect)
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resume(Effect.void))
      })
  )
  const own = (proxy.address() as net.AddressInfo).port
  return {
    through: (url) => Object.assign(new URL(url), { hostname: "127.0.0.1", port: String(own) }).href,
    cut: (how, times) =>
      Effect.sync(() => {
        what = how
        left = times
      }),
    left: () => left
  }
})

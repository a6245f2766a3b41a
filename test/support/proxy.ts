/**
 * A TCP proxy before one Kafka broker, for accidents on the wire.
 *
 * It reads the frames of the protocol, so that it can do its worst at a chosen
 * request, and replaces the broker's address by its own in answers, so that
 * clients come back through it.
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import * as net from "node:net"

export const api = {
  produce: 0,
  fetch: 1,
  metadata: 3,
  offsetCommit: 8,
  findCoordinator: 10,
  joinGroup: 11,
  heartbeat: 12,
  apiVersions: 18
} as const

export interface Request {
  readonly apiKey: number
  readonly bytes: Buffer
}

/**
 * `"pass"`; or lose the answer: reset the connection when the broker has
 * answered; or pass the answer on a little later; or never, on a connection
 * that stays.
 */
export type Fate = "pass" | "loseAnswer" | "late" | "never"

const lateMillis = 100

export interface Proxy {
  /** `host:port` for clients. */
  readonly address: string
  /** Decides on each request from now on. */
  readonly decide: (fate: (request: Request) => Fate) => Effect.Effect<void>
  /** Present connections stay open and carry nothing any more; new ones work. */
  readonly freeze: Effect.Effect<void>
  /** Present and new connections stay open and carry nothing, until `thaw`. */
  readonly blackHole: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
  /** Requests that reached the broker, by API key, since the start. */
  readonly passed: (apiKey: number) => number
  /** Answers that were lost so far. */
  readonly lost: () => number
  /** Succeeds at the next request of this kind, also if it is not passed on. */
  readonly next: (apiKey: number) => Effect.Effect<void>
}

/** Cuts a stream into frames: four bytes of length, then so many bytes. */
const frames = (onFrame: (frame: Buffer) => void) => {
  let rest: Buffer = Buffer.alloc(0)
  return (chunk: Buffer) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
    while (rest.length >= 4 && rest.length >= 4 + rest.readInt32BE(0)) {
      const end = 4 + rest.readInt32BE(0)
      onFrame(rest.subarray(0, end))
      rest = rest.subarray(end)
    }
  }
}

/** How an address stands in an answer: length, host, port. */
const addressBytes = (host: string, port: number): Buffer => {
  const bytes = Buffer.alloc(2 + host.length + 4)
  bytes.writeInt16BE(host.length, 0)
  bytes.write(host, 2)
  bytes.writeInt32BE(port, 2 + host.length)
  return bytes
}

/** The same in later versions of the protocol, where one byte tells a length below 127, and one more. */
const compactAddressBytes = (host: string, port: number): Buffer => {
  const bytes = Buffer.from([host.length + 1, ...Buffer.from(host), 0, 0, 0, 0])
  bytes.writeInt32BE(port, 1 + host.length)
  return bytes
}

const replaceAll = (frame: Buffer, from: Buffer, to: Buffer): Buffer => {
  const copy = Buffer.from(frame)
  for (let at = copy.indexOf(from); at >= 0; at = copy.indexOf(from, at + 1)) to.copy(copy, at)
  return copy
}

interface Link {
  readonly client: net.Socket
  readonly broker: net.Socket
  /** Carries nothing any more. */
  silent: boolean
}

/** Starts a proxy before `target` (`host:port`), closed with the scope. */
export const startProxy = Effect.fnUntraced(function*(target: string): Effect.fn.Return<Proxy, never, Scope.Scope> {
  const [host, targetPort] = [target.split(":")[0]!, Number(target.split(":")[1])]
  const links = new Set<Link>()
  const passed = new Map<number, number>()
  const waiting = new Map<number, Deferred.Deferred<void>>()
  let decide: (request: Request) => Fate = () => "pass"
  let hole = false
  let lost = 0

  const connect = (client: net.Socket, port: () => number) => {
    const broker = net.connect({ host, port: targetPort })
    const link: Link = { client, broker, silent: hole }
    links.add(link)
    // Correlation ids whose answers are to be lost.
    const doomed = new Set<number>()
    const late = new Set<number>()
    const never = new Set<number>()
    const end = () => {
      links.delete(link)
      if (link.silent) return
      client.destroy()
      broker.destroy()
    }
    for (const socket of [client, broker]) socket.on("error", end).on("close", end)
    client.on(
      "data",
      frames((frame) => {
        const apiKey = frame.readInt16BE(4)
        const waiter = waiting.get(apiKey)
        waiting.delete(apiKey)
        if (waiter !== undefined) Deferred.doneUnsafe(waiter, Effect.void)
        if (link.silent) return
        const fate = decide({ apiKey, bytes: frame })
        if (fate === "loseAnswer") doomed.add(frame.readInt32BE(8))
        if (fate === "late") late.add(frame.readInt32BE(8))
        if (fate === "never") never.add(frame.readInt32BE(8))
        passed.set(apiKey, (passed.get(apiKey) ?? 0) + 1)
        broker.write(frame)
      })
    )
    broker.on(
      "data",
      frames((frame) => {
        if (link.silent) return
        if (doomed.has(frame.readInt32BE(4))) {
          lost++
          client.resetAndDestroy()
          return
        }
        if (never.delete(frame.readInt32BE(4))) return
        const answer = [addressBytes, compactAddressBytes].reduce(
          (bytes, form) => replaceAll(bytes, form(host, targetPort), form(host, port())),
          frame
        )
        if (late.delete(frame.readInt32BE(4))) setTimeout(() => client.write(answer), lateMillis)
        else client.write(answer)
      })
    )
  }

  const server = yield* Effect.acquireRelease(
    Effect.callback<net.Server>((resume) => {
      const server = net.createServer((client) => connect(client, () => (server.address() as net.AddressInfo).port))
      server.listen(0, host, () => resume(Effect.succeed(server)))
    }),
    (server) =>
      Effect.callback<void>((resume) => {
        for (const { broker, client } of links) {
          client.destroy()
          broker.destroy()
        }
        server.close(() => resume(Effect.void))
      })
  )
  const silence = Effect.sync(() => {
    for (const link of links) link.silent = true
  })

  return {
    address: `${host}:${(server.address() as net.AddressInfo).port}`,
    decide: (fate) =>
      Effect.sync(() => {
        decide = fate
      }),
    freeze: silence,
    blackHole: Effect.andThen(
      Effect.sync(() => {
        hole = true
      }),
      silence
    ),
    thaw: Effect.sync(() => {
      hole = false
    }),
    passed: (apiKey) => passed.get(apiKey) ?? 0,
    lost: () => lost,
    next: (apiKey) =>
      Effect.suspend(() => {
        const waiter = waiting.get(apiKey) ?? Deferred.makeUnsafe<void>()
        waiting.set(apiKey, waiter)
        return Deferred.await(waiter)
      })
  }
})

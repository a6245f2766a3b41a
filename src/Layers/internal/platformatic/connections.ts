/**
 * Owns the sockets of one user of the client: one connection per broker and
 * purpose.
 *
 * Invariant: after `close` no request leaves, and none is under way.
 *
 * The insights: a broker answers the requests of one connection one after
 * another, so a fetch that waits for records, or a join that waits for other
 * members, must have its own. The client closes a connection whose request
 * times out; an `error` event that nobody hears ends the process.
 */
import { Connection } from "@platformatic/kafka"
import type { ConnectionOptions, SASLOptions } from "@platformatic/kafka"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as net from "node:net"
import type { KafkaFailure } from "../kafka/failure.ts"
import type { Settings } from "../kafka/settings.ts"
import { attempt } from "./errors.ts"

/** What a connection is for: requests that are answered at once, fetches, or the group. */
export type Purpose = "talk" | "fetch" | "group" | "join"

export interface Address {
  readonly host: string
  readonly port: number
}

export interface Connections {
  readonly get: (address: Address, purpose: Purpose) => Effect.Effect<Connection, KafkaFailure>
  /** A connection that nobody else uses until it is given back. */
  readonly borrow: <A>(
    address: Address,
    purpose: Purpose,
    use: (connection: Connection) => Effect.Effect<A, KafkaFailure>
  ) => Effect.Effect<A, KafkaFailure>
  /** Destroys the connections to a broker, or all of them; new ones may open. */
  readonly hangUp: (address?: Address) => void
}

/** So many requests may be under way on a connection. */
const maxInflights = 100

/** A broker that says nothing leaves time for another one. */
const connectTimeoutOf = ({ brokers, connectTimeout }: Settings): number =>
  Math.min(connectTimeout / Math.min(2, brokers.length), 5_000)

const mechanisms = {
  "plain": "PLAIN",
  "scram-sha-256": "SCRAM-SHA-256",
  "scram-sha-512": "SCRAM-SHA-512"
} as const

const saslOf = ({ sasl }: Settings): { readonly sasl?: SASLOptions } =>
  sasl === undefined ? {} : {
    sasl: {
      mechanism: mechanisms[sasl.mechanism],
      username: sasl.username,
      password: Redacted.value(sasl.password)
    }
  }

const optionsOf = (settings: Settings, { host }: Address, purpose: Purpose): ConnectionOptions => ({
  connectTimeout: connectTimeoutOf(settings),
  // A join waits until all members are there.
  requestTimeout: purpose === "join" ? settings.rebalanceTimeout + 5_000 : settings.requestTimeout,
  maxInflights,
  ...(settings.ssl === false
    ? {}
    : { tls: settings.ssl === true ? {} : settings.ssl, tlsServerName: net.isIP(host) === 0 }),
  ...saslOf(settings)
})

interface Open {
  readonly connection: Connection
  readonly connected: Promise<Connection>
  borrowed: boolean
}

const textOf = ({ host, port }: Address) => `${host}:${port}`

export const make = Effect.fnUntraced(function*(
  settings: Settings
): Effect.fn.Return<Connections, never, Scope.Scope> {
  const open = new Map<string, Set<Open>>()
  let closed = false

  const placeOf = (address: Address, purpose: Purpose): Set<Open> => {
    const key = `${purpose} ${textOf(address)}`
    const place = open.get(key) ?? new Set<Open>()
    open.set(key, place)
    return place
  }

  const connect = (address: Address, purpose: Purpose): Open => {
    const place = placeOf(address, purpose)
    const connection = new Connection(settings.clientId, optionsOf(settings, address, purpose))
    const connected = new Promise<Connection>((resolve, reject) => {
      if (closed) reject(new Error("the client is closed"))
      else Promise.resolve(connection.connect(address.host, address.port)).then(() => resolve(connection), reject)
    })
    const self: Open = { connection, connected, borrowed: false }
    const forget = () => void place.delete(self)
    connection.on("error", forget)
    connection.on("close", forget)
    connected.catch(forget)
    place.add(self)
    return self
  }

  const hangUp = (address?: Address) => {
    for (const [key, place] of open) {
      if (address !== undefined && !key.endsWith(` ${textOf(address)}`)) continue
      for (const { connection } of place) connection.socket?.destroy()
      place.clear()
    }
  }

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      closed = true
      hangUp()
    })
  )

  return {
    get: (address, purpose) =>
      attempt(() => {
        const [first] = placeOf(address, purpose)
        return (first ?? connect(address, purpose)).connected
      }),
    borrow: (address, purpose, use) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          const idle = Array.from(placeOf(address, purpose)).find(({ borrowed }) => !borrowed)
          const lent = idle ?? connect(address, purpose)
          lent.borrowed = true
          return lent
        }),
        (lent) => Effect.flatMap(attempt(() => lent.connected), use),
        (lent) =>
          Effect.sync(() => {
            lent.borrowed = false
          })
      ),
    hangUp
  }
})

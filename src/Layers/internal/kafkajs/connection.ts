/**
 * Owns the one door to KafkaJS: no other file creates a `Kafka` instance.
 *
 * Invariant: after `close`, no socket of the door opens any more, none of its
 * requests leaves, and KafkaJS's retry loops end by themselves.
 *
 * The insights, all from `kafkajs/src/network`:
 *
 * - KafkaJS retries on the socket that it has. A black-holed socket therefore
 *   never heals, unless it is destroyed when a request times out.
 * - A connection hears `end` and `error` of its socket, but not `close`; and
 *   an `error` during the login leaves the login waiting for ever. So a socket
 *   that was connected and fails in any way first looks `end`ed.
 * - An empty list of brokers is the one non-retriable answer to a reconnect.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { Kafka, logLevel } from "kafkajs"
import type {
  Consumer,
  ISocketFactory,
  KafkaConfig,
  LogEntry,
  PartitionAssigner,
  RetryOptions,
  SASLOptions
} from "kafkajs"
import { createRequire } from "node:module"
import * as net from "node:net"
import * as tls from "node:tls"
import type { Settings } from "../kafka/settings.ts"
import * as FetchAnswer from "./fetchAnswer.ts"
import type { Network } from "./internals.ts"

/** A `Kafka` instance together with its sockets. */
export interface Door {
  readonly kafka: Kafka
  /** Logs nothing any more: KafkaJS complains while it is taken down. */
  readonly mute: () => void
  /** Destroys the sockets to `host:port`, or all of them; KafkaJS may open new ones. */
  readonly hangUp: (address?: string) => void
  /** Destroys all sockets and lets none open again. */
  readonly close: () => void
}

/** Retries for good: a broker that is away comes back, and KafkaJS goes on. */
export const patient: RetryOptions = {
  initialRetryTime: 100,
  maxRetryTime: 2_000,
  factor: 0.2,
  multiplier: 2,
  retries: 1_000_000_000
}

/** No retries inside KafkaJS, for callers that have a loop and a deadline of their own. */
export const impatient: RetryOptions = { ...patient, retries: 0 }

interface TrackedSocket {
  readonly socket: net.Socket
  readonly end: () => void
}

const track = (socket: net.Socket, isConnected: () => boolean): TrackedSocket => {
  let ended = false
  socket.on("end", () => {
    ended = true
  })
  const lookEnded = () => {
    if (ended || !isConnected()) return
    ended = true
    socket.emit("end")
  }
  // Registered before KafkaJS's own listener, so that `end` comes before `error`.
  socket.on("error", lookEnded)
  socket.on("close", lookEnded)
  const end = () => {
    if (isConnected()) {
      lookEnded()
      socket.destroy()
    } else {
      socket.destroy(new Error("the connection was given up"))
    }
  }
  return { socket, end }
}

interface Sockets {
  readonly factory: ISocketFactory
  readonly hangUp: (address?: string) => void
  readonly close: () => void
  readonly isClosed: () => boolean
}

const makeSockets = (): Sockets => {
  const open = new Map<TrackedSocket, string>()
  let closed = false
  const hangUp = (address?: string) => {
    // A map may lose entries while it is walked.
    for (const [tracked, to] of open) {
      if (address !== undefined && to !== address) continue
      open.delete(tracked)
      tracked.end()
    }
  }
  return {
    factory: ({ host, onConnect, port, ssl }) => {
      if (closed) throw new Error("the client is closed")
      let connected = false
      const whenConnected = () => {
        connected = true
        onConnect()
      }
      const socket = ssl
        ? tls.connect({ host, port, ...(net.isIP(host) ? {} : { servername: host }), ...ssl }, whenConnected)
        : net.connect({ host, port }, whenConnected)
      socket.setKeepAlive(true, 30_000)
      socket.setNoDelay(true)
      // KafkaJS ends a dead socket once per failed request, and each time a listener stays on it.
      socket.setMaxListeners(0)
      const tracked = track(socket, () => connected)
      open.set(tracked, `${host}:${port}`)
      socket.on("close", () => open.delete(tracked))
      return socket
    },
    hangUp,
    close: () => {
      closed = true
      hangUp()
    },
    isClosed: () => closed
  }
}

const timerFix = Symbol.for("effect-events/Layers/KafkaJs/timerFix")

interface PatchedPrototype {
  scheduleCheckPendingRequests?: (this: { readonly pending: ReadonlyArray<unknown> }) => void
  [timerFix]?: true
}

/**
 * KafkaJS re-arms a timer with a negative delay on every idle connection:
 * 1,300 timers a second each, and `TimeoutNegativeWarning`s. With nothing
 * pending there is nothing to check; the next `push` arms the timer itself.
 */
export const fixTimers: Effect.Effect<void> = Effect.sync(() => {
  const queue: { readonly prototype?: PatchedPrototype } = createRequire(import.meta.url)(
    "kafkajs/src/network/requestQueue"
  )
  const prototype = queue.prototype
  const original = prototype?.scheduleCheckPendingRequests
  if (prototype === undefined || typeof original !== "function" || prototype[timerFix]) return
  prototype[timerFix] = true
  prototype.scheduleCheckPendingRequests = function() {
    if (this.pending.length > 0) original.call(this)
  }
}).pipe(Effect.catchDefect(() => Effect.logDebug("KafkaJS has another layout: its idle timers stay as they are")))

const kept = new Set(["broker", "clientId", "groupId", "memberId", "topic", "partition", "error", "retryCount"])

/** When each text was last logged, for all doors of a Layer together. */
const logged = new WeakMap<Settings, Map<string, number>>()

/** Log lines of KafkaJS, each text at most once in ten seconds, and only fields known to hold no secret. */
const makeLog = Effect.fnUntraced(function*(settings: Settings) {
  const context = yield* Effect.context<never>()
  const clock = yield* Clock.Clock
  const runFork = Effect.runForkWith(context)
  const lastSeen = logged.get(settings) ?? new Map<string, number>()
  logged.set(settings, lastSeen)
  return ({ level, log, namespace }: LogEntry): void => {
    const now = clock.currentTimeMillisUnsafe()
    const text = `${namespace} ${log.message}`
    if (now - (lastSeen.get(text) ?? -Infinity) < 10_000) return
    if (lastSeen.size > 100) lastSeen.clear()
    lastSeen.set(text, now)
    const annotations: Record<string, unknown> = { kafkajs: text }
    for (const [name, value] of Object.entries(log)) {
      if (kept.has(name) && (typeof value === "string" || typeof value === "number")) annotations[name] = value
    }
    // A refusal by the protocol is an answer: whoever asked decides what it means.
    const quiet = level !== logLevel.ERROR || log.message.startsWith("Response ")
    const line = quiet ? Effect.logDebug("KafkaJS reports") : Effect.logWarning("KafkaJS reports")
    runFork(Effect.annotateLogs(line, annotations))
  }
})

const kafkaOptions = (settings: Settings, sockets: Sockets, first: number): KafkaConfig => {
  const { brokers, sasl, ssl } = settings
  const rotated = [...brokers.slice(first % brokers.length), ...brokers.slice(0, first % brokers.length)]
  return {
    brokers: () => sockets.isClosed() ? [] : rotated,
    clientId: settings.clientId,
    ...(ssl === false ? {} : { ssl }),
    ...(sasl === undefined ? {} : { sasl: { ...sasl, password: Redacted.value(sasl.password) } as SASLOptions }),
    // A broker that says nothing leaves time for another one.
    connectionTimeout: Math.min(settings.connectTimeout / Math.min(2, brokers.length), 5_000),
    authenticationTimeout: settings.requestTimeout,
    requestTimeout: settings.requestTimeout,
    enforceRequestTimeout: true,
    socketFactory: sockets.factory,
    logLevel: logLevel.INFO
  }
}

/** Opens a door; closing the scope closes it. `first` is the index of the broker to try first. */
export const open = Effect.fnUntraced(function*(
  settings: Settings,
  retry: RetryOptions,
  first: number = 0
): Effect.fn.Return<Door, never, Scope.Scope> {
  const log = yield* makeLog(settings)
  const sockets = makeSockets()
  let muted = false
  const logCreator = () => (entry: LogEntry) => muted ? undefined : log(entry)
  const mute = () => {
    muted = true
  }
  const kafka = new Kafka({ ...kafkaOptions(settings, sockets, first), retry, logCreator })
  const door: Door = { kafka, mute, hangUp: sockets.hangUp, close: sockets.close }
  return yield* Effect.acquireRelease(Effect.succeed(door), (door) =>
    Effect.sync(() => {
      mute()
      door.close()
    }))
})

/** Destroys the sockets to a broker that lets a request time out, so that the next attempt gets new ones. */
export const hangUpOnTimeout = (door: Door, client: Pick<Consumer, "on" | "events">): void => {
  client.on(client.events.REQUEST_TIMEOUT, ({ payload }) => door.hangUp(payload.broker))
}

/**
 * The network of a door without a group or a producer around it: a consumer
 * that never runs gives its assigner what we want.
 */
export const network = (settings: Settings, door: Door): Network => {
  const found: Array<Network> = []
  const keep: PartitionAssigner = ({ cluster }) => {
    found.push(cluster as unknown as Network)
    return { name: "none", version: 0, assign: () => Promise.resolve([]), protocol: () => nothing }
  }
  const consumer = door.kafka.consumer({
    groupId: "none",
    partitionAssigners: [keep],
    allowAutoTopicCreation: false,
    metadataMaxAge: settings.metadataMaxAge
  })
  hangUpOnTimeout(door, consumer)
  const network = found[0]!
  FetchAnswer.install(network)
  return network
}

const nothing = { name: "none", metadata: Buffer.alloc(0) }

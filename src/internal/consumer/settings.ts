/**
 * What holds for consumers that start together: settings, what is wrong with
 * them, and the limits that their handlers share.
 *
 * @internal
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import * as FailurePolicy from "../../FailurePolicy.ts"
import * as Limit from "../limit.ts"
import { ConsumerError, type Definition, InvalidOption } from "./definition.ts"

/**
 * Settings of a set of consumers that start together.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /**
   * How many handlers run at once, of all these consumers together; or a
   * `Semaphore`, to share the limit or to resize it while running. It holds
   * beside the `concurrency` of each consumer, and `Consumer.layerProcessLimit`.
   * Default: no limit.
   */
  readonly concurrency?: number | Semaphore.Semaphore | undefined
  /**
   * How long running handlers may go on when the consumer stops, before they
   * are interrupted and waited for another 5 s. Default: 20 seconds, below the
   * 30 after which Kubernetes kills.
   */
  readonly shutdownTimeout?: Duration.Input | undefined
  /**
   * How long `exactlyOnce` handlers recognise a message that comes again.
   * Every event costs a row of about 100 bytes for so long. A handler whose
   * `retryLater` may bring an event back after that does not start.
   * Default: 7 days.
   */
  readonly inboxRetention?: Duration.Input | undefined
  /**
   * How long a partition with work may stand still before it counts as stuck:
   * an Error log, and `ConsumerGroup.status` and `Health` say why. Choose it
   * above the longest timeout of a handler. Default: 6 minutes, above the
   * default timeout of 5.
   */
  readonly stuckAfter?: Duration.Input | undefined
}

/** The handlers that may run at once in this process; `undefined`: no limit. */
export const ProcessLimit = Context.Reference<Semaphore.Semaphore | undefined>("effect-events/Consumer/ProcessLimit", {
  defaultValue: () => undefined
})

const invalid = (handler: string, detail: string) =>
  new ConsumerError({ reason: new InvalidOption({ handler, detail }) })

const defaultRetention = "7 days"

/** How long the inbox keeps a mark. */
export const inboxRetention = (options: Options | undefined): Duration.Duration =>
  Duration.fromInputUnsafe(options?.inboxRetention ?? defaultRetention)

/** A mark that is forgotten before its event may come back by itself lets it be applied twice. */
const checkRetention = (
  options: Options | undefined,
  definitions: ReadonlyArray<Definition>
): ConsumerError | undefined => {
  const retention = inboxRetention(options)
  const short = definitions.find(({ mode, policy }) =>
    mode === "exactlyOnce" && FailurePolicy.horizonOf(policy) >= Duration.toMillis(retention)
  )
  return short === undefined ? undefined : invalid(
    short.name,
    `the group's inboxRetention is ${Duration.format(retention)}, but retryLater may bring an event back for ` +
      `${
        Duration.format(Duration.millis(FailurePolicy.horizonOf(short.policy)))
      }: make it longer, or the delays shorter`
  )
}

/** What is wrong with the settings of a group, or `undefined`. */
export const check = (
  options: Options | undefined,
  group: string,
  definitions: ReadonlyArray<Definition>
): ConsumerError | undefined => {
  const { concurrency, inboxRetention = defaultRetention, shutdownTimeout = 0, stuckAfter = "6 minutes" } = options ??
    {}
  const illegal = Limit.illegalConcurrency(concurrency) ??
    Limit.illegalDuration("shutdownTimeout", shutdownTimeout, "not negative") ??
    Limit.illegalDuration("inboxRetention", inboxRetention, "positive") ??
    Limit.illegalDuration("stuckAfter", stuckAfter, "positive")
  return illegal === undefined ? checkRetention(options, definitions) : invalid(group, `the group's ${illegal}`)
}

/** Makes the limit of the process. */
export const processLimit = (concurrency: number | Semaphore.Semaphore) =>
  Effect.suspend(() => {
    const illegal = Limit.illegalConcurrency(concurrency)
    return illegal === undefined
      ? Effect.succeed(typeof concurrency === "number" ? Semaphore.makeUnsafe(concurrency) : concurrency)
      : Effect.fail(invalid("layerProcessLimit", `the process's ${illegal}`))
  })

/** The permits that a worker needs beside its handler's, in the order in which it takes them: group, then process. */
export const limits = (options: Options | undefined): Effect.Effect<ReadonlyArray<Semaphore.Semaphore>> =>
  Effect.map(ProcessLimit, (ofProcess) => {
    const concurrency = options?.concurrency
    const ofGroup = typeof concurrency === "number" ? Semaphore.makeUnsafe(concurrency) : concurrency
    return [ofGroup, ofProcess].filter((limit) => limit !== undefined)
  })

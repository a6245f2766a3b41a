/**
 * Owns the commits of a subscription: one at a time, tried again while that may
 * help, and what a refusal means.
 *
 * Invariant: whoever commits hears of success only if the position is kept.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import * as Broker from "../../../Broker.ts"
import * as Admin from "./admin.ts"
import type { Cluster } from "./cluster.ts"
import { brokerError, evicted, type KafkaFailure, toBrokerError, unknownTopic } from "./failure.ts"
import { backOff } from "./retry.ts"
import { physical, type Settings } from "./settings.ts"

/** A commit that gets no answer for so long has failed. */
const patience = 15_000

/** `Outside`: the group is being joined. */
export type Outcome = "Committed" | "Fenced" | "Outside"

/** Nothing can be committed now. */
export const outside = Effect.succeed<Outcome>("Outside")

const fenced = (detail: string) => Effect.fail(brokerError(new Broker.Fenced({ detail })))

export const make = Effect.fnUntraced(function*(options: {
  readonly settings: Settings
  readonly cluster: Cluster
  /** One request; `Fenced` when a grant among them has ended. */
  readonly commit: (positions: ReadonlyArray<Broker.Position>) => Effect.Effect<Outcome, KafkaFailure>
}): Effect.fn.Return<Broker.Subscription["commit"]> {
  const { cluster, commit, settings } = options
  const clock = yield* Clock.Clock
  const mutex = yield* Semaphore.make(1)

  const alive = (positions: ReadonlyArray<Broker.Position>) =>
    Effect.filter(positions, ({ topic }) => Admin.exists(cluster, clock, physical(settings, topic)))

  const refused = (failure: KafkaFailure) =>
    Effect.fail(toBrokerError(failure, { operation: "commit", address: settings.address, tried: "commit" }))

  const loop = (positions: ReadonlyArray<Broker.Position>, tries: number): Effect.Effect<void, Broker.BrokerError> =>
    positions.length === 0
      ? Effect.void
      : Effect.matchEffect(commit(positions), {
        onSuccess: (outcome) =>
          outcome === "Committed"
            ? Effect.void
            : fenced(outcome === "Fenced" ? "the partition was granted anew" : "the group is being joined again"),
        onFailure: (failure) => {
          if (evicted(failure)) return fenced(failure.detail)
          const pause = backOff(tries, 1_000)
          if (unknownTopic(failure)) return Effect.andThen(pause, withoutGone(positions, tries))
          return failure.transient ? Effect.andThen(pause, loop(positions, tries + 1)) : refused(failure)
        }
      })

  // The other topics of the commit are through. One that seems to be gone may only be unknown to a broker that has
  // just started, so nobody is told that its position is kept.
  const withoutGone = (positions: ReadonlyArray<Broker.Position>, tries: number) =>
    Effect.flatMap(Effect.orElseSucceed(alive(positions), () => positions), (left) => {
      const gone = positions.find((position) => !left.includes(position))
      const told = gone === undefined
        ? Effect.void
        : Effect.fail(brokerError(new Broker.UnknownTopic({ topic: gone.topic })))
      return Effect.andThen(loop(left, tries + 1), told)
    })

  const unanswered = () =>
    Effect.fail(brokerError(
      new Broker.Unreachable({
        address: settings.address,
        tried: `committing for ${patience} ms`,
        cause: new Error("no answer from the group's coordinator")
      })
    ))

  return (positions) =>
    mutex.withPermit(Effect.suspend(() => loop(positions, 0))).pipe(
      Effect.timeoutOrElse({ duration: patience, orElse: unanswered })
    )
})

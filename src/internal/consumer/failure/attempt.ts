/**
 * The judgement of a failed attempt: gathers what `FailurePolicy.decide` needs
 * (the typed error, the schedule's next delay) and says what happens to the
 * task.
 *
 * An attempt that a drain interrupted is not judged: it is no failure. An
 * outage of the store is not the handler's failure either, and does not count.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import * as SqlError from "effect/sql/SqlError"
import { decide, type Decision, type Route } from "../../../FailurePolicy.ts"
import * as EngineEvent from "../../engineEvent.ts"
import type { Handler } from "../handler.ts"
import type { Task } from "../order/assignment.ts"
import { Undecodable } from "../run/decode.ts"
import type { Failures, RetryStep } from "./failures.ts"

/**
 * An attempt took longer than its policy allows, and was interrupted. Found as
 * the reason of a dead letter, and in the log of a retry.
 *
 * @category errors
 * @since 0.1.0
 */
export class HandlerTimeout extends Schema.TaggedError<HandlerTimeout>("effect-events/Consumer/HandlerTimeout")(
  "HandlerTimeout",
  { handler: Schema.String, timeoutMillis: Schema.Number }
) {
  override get message() {
    return `The handler "${this.handler}" did not end within ${this.timeoutMillis} ms and was interrupted. ` +
      `If that is too short, set { timeout } in its failure policy.`
  }
}

export const timeoutMillis = (handler: Handler): number =>
  Duration.toMillis(Duration.fromInputUnsafe(handler.policy.timeout))

export const timedOut = (handler: Handler): HandlerTimeout =>
  new HandlerTimeout({ handler: handler.name, timeoutMillis: timeoutMillis(handler) })

/** What becomes of a task after a failed attempt. */
export type Verdict =
  | { readonly _tag: "Ignore" }
  | { readonly _tag: "Wait"; readonly afterMillis: number }
  | { readonly _tag: "GiveUp"; readonly route: Route }

/** How long an outage of the store is waited out. */
export const outageMillis = 1_000

const errorOf = (cause: Cause.Cause<unknown>): { readonly value: unknown } | undefined =>
  Option.match(Cause.findErrorOption(cause), { onNone: () => undefined, onSome: (value) => ({ value }) })

/** Whether a failure is the store's, and so no failure of the handler. */
export const isOutage = (handler: Handler, cause: Cause.Cause<unknown>): boolean => {
  const error = errorOf(cause)
  return error !== undefined && handler.isOutage(error.value)
}

/**
 * Judges the failed attempt of one task, and keeps in the task what the next
 * attempt needs; `together` is with how many it runs then.
 */
export const judge = Effect.fnUntraced(function*(
  handler: Handler,
  task: Task,
  cause: Cause.Cause<unknown>,
  together = 1
): Effect.fn.Return<Verdict> {
  const error = errorOf(cause)
  const now = yield* Clock.currentTimeMillis
  const before = task.failures
  const { policy } = handler
  const lastDelay = before?.lastDelay ?? outageMillis
  let step = before?.step
  let nextDelay: number | undefined
  // Schedule and predicates are the user's: what they throw must not stop the key.
  const judged = yield* Effect.exit(Effect.gen(function*() {
    step ??= yield* Schedule.toStep(policy.retry)
    nextDelay = yield* delayOf(step, now, error === undefined ? cause : error.value)
    const hopeless = error === undefined ? isBug(cause) : error.value instanceof Undecodable
    return decide(policy, { error, hopeless, nextDelay, lastDelay })
  }))
  if (Exit.isFailure(judged)) {
    yield* EngineEvent.log({ _tag: "PolicyFailed", handler: handler.name, cause: judged.cause })
  }
  const decision: Decision = Exit.isSuccess(judged)
    ? judged.value
    : policy.exhausted === "block"
    ? { _tag: "Retry", afterMillis: lastDelay }
    : { _tag: "GiveUp", route: policy.exhausted === "retryLater" ? "save" : policy.exhausted }
  const failures: Failures = {
    attempts: (before?.attempts ?? 0) + 1,
    firstMillis: before?.firstMillis ?? now,
    lastMillis: now,
    lastDelay: nextDelay ?? lastDelay,
    together,
    step,
    givenUp: decision._tag === "GiveUp" ? { cause, route: decision.route } : undefined
  }
  task.failures = failures
  switch (decision._tag) {
    case "Ignore":
      return { _tag: "Ignore" }
    case "Retry":
      return { _tag: "Wait", afterMillis: decision.afterMillis }
    case "GiveUp":
      return decision
  }
})

/**
 * Judges tasks that have failed together by a common cause: how long all of
 * them wait. `undefined` if waiting cannot help at least one of them; then
 * nothing is counted, and they must be told apart.
 */
export const judgeTogether = Effect.fnUntraced(function*(
  handler: Handler,
  tasks: ReadonlyArray<Task>,
  cause: Cause.Cause<unknown>,
  together: number
): Effect.fn.Return<number | undefined> {
  const before = tasks.map(({ failures }) => failures)
  let afterMillis = 0
  for (const task of tasks) {
    const verdict = yield* judge(handler, task, cause, together)
    if (verdict._tag !== "Wait") {
      tasks.forEach((task, i) => task.failures = before[i])
      return undefined
    }
    afterMillis = Math.max(afterMillis, verdict.afterMillis)
  }
  return afterMillis
})

// After a lost connection Effect's SQL clients make the failed ROLLBACK, and the
// error before it, defects: an outage, which may well be over the next time.
const isBug = (cause: Cause.Cause<unknown>): boolean =>
  Cause.hasDies(cause) &&
  !cause.reasons.some((reason) => Cause.isDieReason(reason) && SqlError.isSqlError(reason.defect))

const delayOf = (step: RetryStep, now: number, input: unknown): Effect.Effect<number | undefined> =>
  Pull.catchDone(
    Effect.map(step(now, input), ([, delay]): number | undefined => Duration.toMillis(delay)),
    () => Effect.undefined
  )

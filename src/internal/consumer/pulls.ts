/**
 * The reader of an open stream: hands tasks to whoever pulls, and leaves it to
 * them to finish each by its token.
 *
 * Demand-driven: what nobody has pulled has not started, so a drain hands it
 * back. A record that does not decode never reaches the stream; it takes the
 * permanent route on the way. While its letter cannot be written it holds the
 * watermark, and not the stream.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Scope from "effect/Scope"
import type * as Event from "../../Event.ts"
import { Meter } from "../metrics.ts"
import * as Envelope from "../wire/envelope.ts"
import * as Exhausted from "./failure/exhausted.ts"
import type { Handler, Reader } from "./handler.ts"
import type { Assignment, Task } from "./order/assignment.ts"
import { Ready } from "./order/ready.ts"
import * as Decode from "./run/decode.ts"
import * as Doubt from "./run/doubt.ts"
import { keyOf } from "./status/status.ts"
import * as Waits from "./status/waits.ts"

/** An event beside the right to say that it is done. */
export interface Pulled {
  readonly event: Event.Event<unknown>
  readonly finish: () => void
}

export interface Pulls {
  readonly reader: Reader
  /** Waits for events, and takes what is there, up to 256. */
  readonly take: Effect.Effect<Arr.NonEmptyReadonlyArray<Pulled>>
}

const limits = { maxSize: 256, maxBytes: Infinity }

const againAndAgain = <E>(effect: Effect.Effect<void, E>) =>
  effect.pipe(Effect.retry({ schedule: Exhausted.retrySchedule }), Effect.delay(Exhausted.retryMillis))

export const make = (options: {
  readonly group: string
  readonly handler: Handler
  readonly writeDeadLetter: Exhausted.WriteLetter
  readonly finished: (assignment: Assignment) => void
  /** Whether what is assigned is certainly still ours. */
  readonly trusted: () => boolean
}): Effect.Effect<Pulls, never, Scope.Scope> =>
  Effect.map(Effect.context<Scope.Scope>(), (context) => {
    const { finished, group, handler, trusted } = options
    const scope = Context.get(context, Scope.Scope)
    const topic = handler.topic.name
    const meter = new Meter({ group, topic, handler: handler.name }, context)
    const decode = Decode.make(handler.topic)
    const ready = new Ready<Task>()
    const some = Latch.makeUnsafe(false)

    const finish = (task: Task) => {
      if (task.finished) return
      meter.finished++
      task.delivery.assignment.finish(task)
      finished(task.delivery.assignment)
    }

    const pulled = Effect.fnUntraced(function*(task: Task) {
      const { assignment, record } = task.delivery
      const { partition } = assignment.grant
      assignment.start(task)
      const event = yield* Effect.exit(decode(partition, record, 1))
      if (Exit.isSuccess(event)) return { event: event.value, finish: () => finish(task) }
      const at = {
        topic,
        partition,
        offset: record.offset,
        key: keyOf(task),
        group,
        handler: handler.name,
        messageId: Envelope.read(topic, partition, record).id
      }
      const bury = Exhausted.giveUp({
        group,
        handler,
        task,
        route: "save",
        cause: Cause.map(event.cause, (error): unknown => error),
        at,
        write: options.writeDeadLetter
      }).pipe(
        Effect.tapCause((cause) => Waits.note([task], "deadLetter", Exhausted.retryMillis, cause)),
        Effect.andThen(Effect.sync(() => {
          meter.deadLettered++
          finish(task)
        }))
      )
      // The record holds the watermark until its letter is written, and the stream goes on meanwhile.
      yield* Effect.catch(bury, () => Effect.asVoid(Effect.forkIn(againAndAgain(bury), scope)))
      return undefined
    })

    const untilTrusted = Doubt.resolved(trusted, () => ready.size > 0)

    const take: Pulls["take"] = Effect.suspend(() => trusted() ? takeNow : Effect.andThen(untilTrusted, takeNow))

    const takeNow: Pulls["take"] = Effect.suspend(() => {
      const tasks = ready.take(limits)
      for (const task of tasks) ready.settle(task.lane)
      if (tasks.length === 0) {
        some.closeUnsafe()
        return Effect.andThen(some.await, take)
      }
      return Effect.flatMap(Effect.forEach(tasks, pulled), (all) => {
        const events = all.filter((one) => one !== undefined)
        return Arr.isArrayNonEmpty(events) ? Effect.succeed(events) : take
      })
    })

    return {
      take,
      reader: {
        topic,
        handler: handler.name,
        ordering: "unordered",
        open: true,
        timeoutMillis: Infinity,
        meter,
        running: () => [],
        takes: limits.maxSize,
        ready,
        kick: () => void some.openUnsafe(),
        interrupt: () => []
      }
    }
  })

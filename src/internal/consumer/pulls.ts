/**
 * The reader of an open stream: hands tasks to whoever pulls, and leaves it to
 * them to finish each by its token.
 *
 * Demand-driven: what nobody has pulled has not started, so a drain hands it
 * back. A record that does not decode never reaches the stream; it takes the
 * permanent route on the way.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import type { BrokerError, ProducerRecord } from "../../Broker.ts"
import type * as Event from "../../Event.ts"
import * as Envelope from "../wire/envelope.ts"
import type { Assignment, Task } from "./assignment.ts"
import * as Decode from "./decode.ts"
import * as Exhausted from "./exhausted.ts"
import type { Handler, Reader } from "./handler.ts"
import { Ready } from "./lanes.ts"

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

export const make = (options: {
  readonly group: string
  readonly handler: Handler
  readonly writeDeadLetter: (topic: string, record: ProducerRecord) => Effect.Effect<void, BrokerError>
  readonly finished: (assignment: Assignment) => void
}): Effect.Effect<Pulls> =>
  Effect.sync(() => {
    const { finished, group, handler } = options
    const topic = handler.topic.name
    const decode = Decode.make(handler.topic)
    const ready = new Ready<Task>()
    const some = Latch.makeUnsafe(false)

    const finish = (task: Task) => {
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
        group,
        handler: handler.name,
        messageId: Envelope.read(topic, partition, record).id
      }
      yield* Exhausted.giveUp({
        group,
        handler,
        task,
        route: "save",
        cause: Cause.map(event.cause, (error): unknown => error),
        at,
        write: options.writeDeadLetter
      }).pipe(Effect.retry({ schedule: Exhausted.retrySchedule }), Effect.orDie)
      finish(task)
      return undefined
    })

    const take: Pulls["take"] = Effect.suspend(() => {
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
        ordering: "unordered",
        takes: limits.maxSize,
        ready,
        kick: () => void some.openUnsafe(),
        interrupt: () => []
      }
    }
  })

/**
 * Dead letters that come back: the group reads its own dead-letter topics, and
 * looks at each record by its headers only.
 *
 *     a letter                → nobody wants it, it is kept by the topic
 *     a letter with a time    → its handler, when it is due
 *     a replay                → its handler, now
 *     "drop", "done"          → whatever waits of that letter is finished
 *
 * The handler sees the event as it was first. After it was applied, "done" is
 * written, and only then is the letter finished; if it fails again, a new
 * letter of the same id is (`exhausted.ts`). Each letter has a lane of its own:
 * it keeps no order with others of its key.
 *
 * What waits costs an entry and no fiber: one alarm rings for the earliest.
 *
 * @internal
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Latch from "effect/Latch"
import * as Scope from "effect/Scope"
import type { ConsumerRecord } from "../../../Broker.ts"
import * as EngineEvent from "../../engineEvent.ts"
import * as DeadLetter from "../../wire/deadLetter.ts"
import * as Exhausted from "../failure/exhausted.ts"
import type { Reader } from "../handler.ts"
import type { Assignment, Task } from "../order/assignment.ts"
import { Shelf } from "./shelf.ts"

export interface Letters {
  /** The dead-letter topics to read. */
  readonly topics: ReadonlyArray<string>
  /** Names the readers that letters go to, and whom to tell that something has finished. Called once, before all else. */
  readonly serve: (readers: ReadonlyArray<Reader>, finished: (assignment: Assignment) => void) => void
  /** Takes in records of a dead-letter topic; `false` if the topic is none of those. Synchronous. */
  readonly deliver: (assignment: Assignment, records: ReadonlyArray<ConsumerRecord>) => boolean
  /** Says that the task of a letter was applied. Synchronous. */
  readonly applied: (task: Task) => void
  /** Files what waits before assignments end, so that nothing above it comes again. */
  readonly settle: (assignments: ReadonlyArray<Assignment>) => Effect.Effect<void>
}

/** Letters are filed anew at most once in so long. */
const filingEvery = 5_000
/** How long the end of an assignment waits for that. */
const settleWithin = "5 seconds"
/** Timers do not go further than about 24 days. */
const longestSleep = 86_400_000

export const make = Effect.fnUntraced(function*(options: {
  readonly group: string
  /** Topics whose handlers leave letters. */
  readonly sources: ReadonlyArray<string>
  readonly write: Exhausted.WriteLetter
}) {
  const { group, write } = options
  const clock = yield* Clock.Clock
  // A scope of its own, which stays open until the readers that use it have stopped.
  const scope = yield* Effect.flatMap(Effect.scope, (scope) => Scope.fork(scope))
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const fork = (effect: Effect.Effect<unknown>) => void run(Effect.forkIn(effect, scope))
  const sources = new Map(options.sources.map((source) => [DeadLetter.topicName(source, group), source]))
  const readers = new Map<string, Reader>()
  const shelves = new Map<Assignment, Shelf>()
  const unwanted = new Set<string>()
  const changed = Latch.makeUnsafe(false)
  let finished: (assignment: Assignment) => void = () => {}

  const nameOf = (source: string, handler: string): string => `${source}\u0000${handler}`

  const shelfOf = (assignment: Assignment): Shelf => {
    const known = shelves.get(assignment)
    if (known !== undefined) return known
    for (const [other] of shelves) if (!other.mayCommit) shelves.delete(other)
    const shelf = new Shelf(assignment)
    shelves.set(assignment, shelf)
    return shelf
  }

  const place = ({ grant: { partition, topic } }: Assignment) => ({ topic, partition, group })

  // --- coming in ---

  /** The head of a letter that somebody here may want; everything else is finished at once. */
  const look = (shelf: Shelf, record: ConsumerRecord): DeadLetter.Head | undefined => {
    const { partition, topic } = shelf.assignment.grant
    const head = DeadLetter.head(topic, partition, record)
    if (head === undefined || head.group !== group) return undefined
    if (head.kind !== "letter") {
      shelf.close(head.id, head.kind)
      return head.kind === "replay" ? head : undefined
    }
    const closed = shelf.arrived(head.id)
    // What was dropped while its copy was on its way is dropped once more, behind the copy.
    if (closed === "drop" || closed === "done") {
      fork(mark(shelf.assignment, DeadLetter.marker(closed, head, record.key), head))
    }
    return closed === undefined && head.due !== undefined ? head : undefined
  }

  const take = (shelf: Shelf, record: ConsumerRecord): Reader | undefined => {
    const { assignment } = shelf
    const { partition, topic } = assignment.grant
    const head = look(shelf, record)
    const reader = head === undefined ? undefined : readers.get(nameOf(sources.get(topic)!, head.handler))
    if (head !== undefined && reader === undefined) warn(assignment, head)
    if (head === undefined || reader === undefined || !shelf.supersede(head.id, head.round)) {
      assignment.finishDelivery(assignment.deliver(record))
      return undefined
    }
    const delivery = assignment.deliverLetter(DeadLetter.restore(head, partition, record))
    const task = assignment.task(delivery, 0, "unordered")
    if (head.kind === "replay" || head.due === undefined || head.due <= clock.currentTimeMillisUnsafe()) {
      shelf.add(task, undefined)
      reader.ready.offer(task)
      return reader
    }
    shelf.add(task, { due: head.due, reader })
    reader.ready.wait(task.lane, [task])
    changed.openUnsafe()
    return undefined
  }

  const warn = (assignment: Assignment, { handler }: DeadLetter.Head) => {
    const name = nameOf(assignment.grant.topic, handler)
    if (unwanted.has(name) || unwanted.size > 1_000) return
    unwanted.add(name)
    fork(EngineEvent.log({ _tag: "LetterUnwanted", ...place(assignment), handler }))
  }

  // --- done ---

  /** Writes a marker, for as long as the assignment is ours. */
  const mark = Effect.fnUntraced(function*(
    assignment: Assignment,
    record: ReturnType<typeof DeadLetter.marker>,
    { handler }: DeadLetter.Head
  ): Effect.fn.Return<boolean> {
    const { partition, topic } = assignment.grant
    while (assignment.mayCommit) {
      const exit = yield* Effect.exit(write(topic, record, partition))
      if (Exit.isSuccess(exit)) return true
      const afterMillis = Exhausted.retryMillis
      yield* EngineEvent.log({
        _tag: "LetterUnmarked",
        ...place(assignment),
        handler,
        afterMillis,
        cause: exit.cause
      })
      yield* Effect.sleep(afterMillis)
    }
    return false
  })

  const applied = (task: Task) => {
    const { assignment, letter } = task.delivery
    const { head, raw } = letter!
    assignment.applied(task)
    const shelf = shelfOf(assignment)
    shelf.noteApplied(task)
    fork(Effect.map(mark(assignment, DeadLetter.marker("done", head, raw.key), head), (marked) => {
      if (!marked) return
      assignment.marked(task)
      finished(assignment)
      consider(shelf)
    }))
  }

  // --- waiting ---

  /** Lets what is due go, and sleeps until something may be again. */
  const alarm: Effect.Effect<never> = Effect.suspend(() => {
    changed.closeUnsafe()
    const now = clock.currentTimeMillisUnsafe()
    let next = Infinity
    for (const { waiting } of shelves.values()) {
      for (const [task, { due, reader }] of waiting) {
        if (due > now && !task.dropped) {
          next = Math.min(next, due)
          continue
        }
        waiting.delete(task)
        reader.ready.wake(task.lane)
        reader.kick()
      }
    }
    return next === Infinity
      ? changed.await
      : Effect.raceFirst(Effect.sleep(Math.min(next - now, longestSleep)), changed.await)
  }).pipe(Effect.forever)

  /** Files letters anew if too much depends on those that wait. */
  const consider = (shelf: Shelf) => {
    if (shelf.filing || shelf.crowding().length === 0) return
    shelf.filing = true
    const wait = Math.max(0, shelf.filedMillis + filingEvery - clock.currentTimeMillisUnsafe())
    fork(
      Effect.sleep(wait).pipe(
        Effect.andThen(Effect.suspend(() => shelf.assignment.mayCommit ? file(shelf, shelf.crowding()) : Effect.void)),
        Effect.andThen(Effect.sync(() => {
          shelf.filing = false
          shelf.filedMillis = clock.currentTimeMillisUnsafe()
          if (shelf.assignment.mayCommit) consider(shelf)
        }))
      )
    )
  }

  const file = Effect.fnUntraced(function*(shelf: Shelf, tasks: ReadonlyArray<Task>) {
    const { assignment } = shelf
    const { partition, topic } = assignment.grant
    let moved = 0
    yield* Effect.forEach(
      shelf.file(tasks),
      ([task, waiting]) =>
        Effect.map(Effect.exit(write(topic, DeadLetter.copy(task.delivery.letter!.raw), partition)), (exit) => {
          if (Exit.isFailure(exit)) return shelf.stays(task, waiting)
          moved++
          shelf.moved(task)
        }),
      { concurrency: "unbounded", discard: true }
    )
    finished(assignment)
    changed.openUnsafe()
    yield* EngineEvent.log({ _tag: "LettersFiled", ...place(assignment), letters: moved })
  })

  fork(alarm)

  const letters: Letters = {
    topics: Array.from(sources.keys()),
    serve(all, tell) {
      finished = tell
      for (const reader of all) readers.set(nameOf(reader.topic, reader.handler), reader)
    },
    deliver(assignment, records) {
      if (!sources.has(assignment.grant.topic)) return false
      const shelf = shelfOf(assignment)
      const woken = new Set<Reader>()
      for (const record of records) {
        const reader = take(shelf, record)
        if (reader !== undefined) woken.add(reader)
      }
      for (const reader of woken) reader.kick()
      finished(assignment)
      consider(shelf)
      return true
    },
    applied,
    settle: (assignments) =>
      Effect.forEach(assignments, (assignment) => {
        const shelf = shelves.get(assignment)
        const holes = shelf === undefined ? [] : shelf.holes()
        return shelf === undefined || holes.length === 0
          ? Effect.void
          : Effect.asVoid(Effect.timeoutOption(file(shelf, holes), settleWithin))
      }, { concurrency: "unbounded", discard: true })
  }
  return letters
})

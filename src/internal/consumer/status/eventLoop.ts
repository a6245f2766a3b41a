/**
 * Notices that something blocked the event loop, and says which handlers ran
 * meanwhile: while it is blocked no heartbeat goes out, no timeout fires, and
 * the group may take this member for dead.
 *
 * One timer for the process, and only while groups run. A tick that comes late
 * by a second tells; whether code ran meanwhile, or the machine slept, is read
 * from the loop's own account. A blocking handler has mostly ended before that
 * tick, so slots say what they have finished, if it took a tick or more.
 *
 * @internal
 */
import type * as Effect from "effect/Effect"
import { performance } from "node:perf_hooks"
import * as EngineEvent from "../../engineEvent.ts"
import type { Task } from "../order/assignment.ts"
import { keyOf } from "./status.ts"

/** How long the loop must have been blocked to be worth a line. */
const stallMillis = 1_000
/** An attempt that took less cannot have blocked for long: it is not remembered. */
export const tickMillis = 100
const maxRemembered = 1_000
const maxNamed = 10

/** An attempt, and when it ran, by its group's clock. */
export interface Ran {
  readonly handler: string
  readonly tasks: ReadonlyArray<Task>
  readonly startedMillis: number
  /** `undefined` while it runs. */
  readonly endedMillis: number | undefined
}

/** A group that runs in this process. */
export interface Watched {
  readonly now: () => number
  readonly running: () => Iterable<Ran>
  readonly fork: (effect: Effect.Effect<void>) => void
}

const watched = new Set<Watched>()
let ended: Array<Ran> = []
let timer: NodeJS.Timeout | undefined
let lastTick = 0
let lastUse = performance.eventLoopUtilization()

const beat = () => {
  lastTick = performance.now()
  lastUse = performance.eventLoopUtilization()
  ended = []
}

const tick = () => {
  const late = performance.now() - lastTick
  // A process that was frozen while it waited has not used the loop.
  if (late >= stallMillis && performance.eventLoopUtilization(lastUse).active >= stallMillis) report(Math.round(late))
  beat()
}

const report = (blockedMillis: number): void => {
  const [first] = watched
  if (first === undefined) return
  const now = first.now()
  const from = now - blockedMillis
  const ran = ended.filter(({ endedMillis }) => endedMillis! >= from)
  for (const { running } of watched) {
    // What began after the loop was free again is innocent.
    for (const one of running()) if (one.startedMillis < now - tickMillis / 2) ran.push(one)
  }
  ran.sort((a, b) => inside(b, from, now) - inside(a, from, now))
  first.fork(EngineEvent.log({
    _tag: "EventLoopBlocked",
    blockedMillis,
    running: ran.length,
    handlers: ran.slice(0, maxNamed).map((one) => nameOf(one, now))
  }))
}

/** For how long of a stall an attempt ran. */
const inside = ({ endedMillis, startedMillis }: Ran, from: number, now: number): number =>
  Math.min(endedMillis ?? now, now) - Math.max(startedMillis, from)

const nameOf = ({ endedMillis, handler, startedMillis, tasks }: Ran, now: number) => {
  const { delivery } = tasks[0]!
  const { partition, topic } = delivery.assignment.grant
  return {
    handler,
    topic,
    partition,
    offset: String(delivery.offset),
    key: keyOf(tasks[0]!),
    events: tasks.length,
    ageMillis: (endedMillis ?? now) - startedMillis
  }
}

/** Remembers an attempt that has ended, until the next tick. */
export const remember = (one: Ran): void => {
  if (watched.size > 0 && ended.length < maxRemembered) ended.push(one)
}

/** Watches the loop for as long as a group runs; returns what ends it. */
export const watch = (group: Watched): () => void => {
  watched.add(group)
  if (timer === undefined) {
    beat()
    timer = setInterval(tick, tickMillis)
    timer.unref()
  }
  return () => {
    watched.delete(group)
    if (watched.size > 0) return
    clearInterval(timer)
    timer = undefined
  }
}

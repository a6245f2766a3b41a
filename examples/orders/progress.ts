/** A bar on a terminal, plain lines elsewhere. */
import { Effect, Schedule } from "effect"

const width = 30
const terminal = process.stdout.isTTY

const show = (done: number, all: number) =>
  Effect.sync(() => {
    const share = all === 0 ? 1 : done / all
    if (terminal) {
      const full = Math.round(share * width)
      process.stdout.write(`\r[${"█".repeat(full)}${"·".repeat(width - full)}] ${done}/${all} orders invoiced `)
    } else {
      process.stdout.write(`${done}/${all} orders invoiced\n`)
    }
  })

/** Shows how far `current` has come, until interrupted. */
export const watch = <E, R>(current: Effect.Effect<number, E, R>, all: number) =>
  Effect.flatMap(current, (done) => show(done, all)).pipe(
    Effect.repeat(Schedule.spaced(terminal ? "200 millis" : "1 second"))
  )

/** The last state, and an end of the line. */
export const finish = (done: number, all: number) =>
  Effect.andThen(show(done, all), Effect.sync(() => terminal && process.stdout.write("\n")))

/**
 * Runs a service's main effect the way an operator expects: SIGINT or SIGTERM
 * stops gracefully and exits with 0; a second signal exits at once with 130.
 * (Effect's own `runMain` exits with 130 and ignores the second signal.)
 */
import { Cause, Effect, Exit } from "effect"

export const runMain = <E>(effect: Effect.Effect<number, E>): void => {
  const fiber = Effect.runFork(effect)
  let stopping = false
  const onSignal = (signal: NodeJS.Signals) => {
    if (stopping) process.exit(130)
    stopping = true
    process.stderr.write(`${signal}: stopping. Once more to exit at once.\n`)
    fiber.interruptUnsafe()
  }
  process.on("SIGINT", onSignal)
  process.on("SIGTERM", onSignal)
  fiber.addObserver((exit) => process.exit(exitCode(exit)))
}

const exitCode = (exit: Exit.Exit<number, unknown>): number => {
  if (Exit.isSuccess(exit)) return exit.value
  if (Cause.hasInterruptsOnly(exit.cause)) return 0
  process.stderr.write(`${messages(Cause.squash(exit.cause)).join("\n  because: ")}\n`)
  return 1
}

// What went wrong, from the outside in, without stack traces.
const messages = (error: unknown): Array<string> =>
  error instanceof Error
    ? [error.message, ...messages(error.cause).filter((message) => message !== error.message)]
    : error === undefined
    ? []
    : [typeof error === "string" ? error : JSON.stringify(error)]

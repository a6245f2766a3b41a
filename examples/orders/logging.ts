/** Warnings and errors to stderr, so that they do not disturb the progress bar; LOG_LEVEL shows more. */
import { Config, Effect, Layer, Logger, References } from "effect"

export const logging = Layer.mergeAll(
  Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)]),
  Layer.effect(
    References.MinimumLogLevel,
    Effect.orDie(Config.LogLevel("LOG_LEVEL").pipe(Config.withDefault("Warn" as const)))
  )
)

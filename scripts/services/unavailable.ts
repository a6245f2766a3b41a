/** A service cannot be started on this machine; `message` says what is missing. */
export class Unavailable extends Error {
  override readonly name = "Unavailable"
}

/** Turns "command not found" into `Unavailable`. */
export const orUnavailable = (command: string) => (error: unknown): never => {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") {
    throw new Unavailable(`${command} is not installed`)
  }
  throw error
}

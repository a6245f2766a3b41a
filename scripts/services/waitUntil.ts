import { setTimeout as sleep } from "node:timers/promises"
import type { Child } from "./child.ts"

/** Waits until `ready` holds; fails with the tail of the log when `child` ends or time is up. */
export const waitUntil = async (
  what: string,
  child: Child,
  ready: () => Promise<boolean>,
  timeoutMs = 60_000
): Promise<void> => {
  const deadline = Date.now() + timeoutMs
  while (!(await ready())) {
    if (!child.isRunning()) {
      throw new Error(`${what} ended while it was starting. The end of its log:\n${child.logTail()}`)
    }
    if (Date.now() > deadline) {
      throw new Error(`${what} did not answer within ${timeoutMs} ms. The end of its log:\n${child.logTail()}`)
    }
    await sleep(50)
  }
}

/**
 * What is held in memory, and who waits for room.
 *
 * @internal
 */
import type * as Latch from "effect/Latch"
import type { PauseReason } from "../../pauseReason.ts"

/** Records that are delivered and not finished, of all partitions of a membership. */
export interface Held {
  records: number
  bytes: number
}

/** A partition that is full, from then until it flows again. */
export interface Room {
  /** What it was full of. */
  readonly reason: PauseReason
  /** Opens once there is room again. */
  readonly latch: Latch.Latch
  /** Opens once the partition flows again. */
  readonly left: Latch.Latch
}

/**
 * The bounds of memory that pause a partition: the engine keeps them, and
 * `ConsumerGroup.status` tells them. Pure.
 *
 * @internal
 */

/**
 * Why a partition is paused.
 *
 * - `"prefetch"`: as many records as it may hold wait or run.
 * - `"span"`: its oldest unfinished record lies too far below the newest.
 * - `"key"`: one key holds as much of the buffer as it may.
 * - `"total"`, `"bytes"`: all partitions together hold as many records, or bytes, as they may.
 *
 * @category models
 * @since 0.1.0
 */
export type PauseReason = "prefetch" | "span" | "key" | "total" | "bytes"

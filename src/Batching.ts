/**
 * How events gather into batches, adaptively: while slots are free an event
 * runs at once, alone; when all slots are busy, what piled up meanwhile goes
 * together, up to the limits.
 *
 * @since 0.1.0
 */

/**
 * Limits of a batch.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Most events in one batch. Default: 100. */
  readonly maxSize?: number | undefined
  /** Most bytes of record values in one batch; a larger single event goes alone. Default: 1 MiB. */
  readonly maxBytes?: number | undefined
}

/**
 * Limits of a batch with the defaults filled in.
 *
 * @category models
 * @since 0.1.0
 */
export interface Limits {
  readonly maxSize: number
  readonly maxBytes: number
}

/**
 * The defaults: 100 events, 1 MiB.
 *
 * @category constants
 * @since 0.1.0
 */
export const defaults: Limits = { maxSize: 100, maxBytes: 1024 * 1024 }

/** @internal */
export const limits = (options: Options | undefined): Limits => ({
  maxSize: options?.maxSize ?? defaults.maxSize,
  maxBytes: options?.maxBytes ?? defaults.maxBytes
})

/**
 * Why limits cannot be used, or `undefined`.
 *
 * @internal
 */
export const illegal = (limits: Limits): string | undefined =>
  !Number.isInteger(limits.maxSize) || limits.maxSize < 1 || limits.maxSize > 10_000
    ? `batch.maxSize is ${limits.maxSize}; use a whole number from 1 to 10,000`
    : !Number.isInteger(limits.maxBytes) || limits.maxBytes < 1
    ? `batch.maxBytes is ${limits.maxBytes}; use a whole number of bytes`
    : undefined

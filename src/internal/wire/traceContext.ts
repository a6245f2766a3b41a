/**
 * W3C trace context in headers: `traceparent` of a span, and the way back.
 * Pure.
 *
 * @internal
 */
export interface TraceParent {
  readonly traceId: string
  readonly spanId: string
  readonly sampled: boolean
}

const pattern = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/

export const format = (span: TraceParent): string => `00-${span.traceId}-${span.spanId}-${span.sampled ? "01" : "00"}`

export const parse = (traceparent: string): TraceParent | undefined => {
  const match = pattern.exec(traceparent)
  return match === null || /^0+$/.test(match[1]!) || /^0+$/.test(match[2]!)
    ? undefined
    : { traceId: match[1]!, spanId: match[2]!, sampled: (parseInt(match[3]!, 16) & 1) === 1 }
}

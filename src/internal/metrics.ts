/**
 * What the engine counts, by group, topic and handler: never by key, so that
 * the number of series is bounded.
 *
 * Records are counted in plain numbers, which become metrics once a second and
 * when the group stops; what happens per batch or seldom is written at once.
 *
 * @internal
 */
import type * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Metric from "effect/Metric"

const counter = (name: string, description: string) =>
  Metric.counter(`effect_events_${name}_total`, { description, incremental: true })

const handled = counter("handled", "Events that a handler is through with, successfully")
const failed = counter("failed", "Failed attempts of events that were alone")
const retried = counter("retried", "Events that wait for a further attempt")
const deadLettered = counter("dead_lettered", "Events that went to a dead-letter topic")
const discarded = counter("discarded", "Events that a handler gave up on for good")
const ignored = counter("ignored", "Events whose failure is ignored by the policy")
const duplicates = counter("duplicates", "Events that were recognised as applied already, and skipped")

const relayed = counter("relayed", "Outbox events that a relay has sent")
const relayFailed = counter("relay_failed", "Batches of the relay that failed, or of which events stayed")
const parked = counter("parked", "Outbox events that the broker refused, and those parked behind them")

const batchSize = Metric.histogram("effect_events_batch_size", {
  description: "Events per batch, or per transaction of a group commit",
  boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000]
})
const batchSeconds = Metric.histogram("effect_events_batch_seconds", {
  description: "How long a handler of batches took for one",
  boundaries: [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]
})

const span = Metric.gauge("effect_events_partition_span", {
  description: "Offsets between the watermark and the highest delivered record"
})
const buffered = Metric.gauge("effect_events_partition_buffered", {
  description: "Delivered records that are not finished"
})
const stuck = Metric.gauge("effect_events_partition_stuck", {
  description: "1 while a partition has work and does not move"
})

type Labels = Readonly<Record<string, string>>

interface HandlerLabels {
  readonly group: string
  readonly topic: string
  readonly handler: string
}

/** The counts of one handler. The numbers are there to be incremented. */
export class Meter {
  finished = 0
  failed = 0
  retried = 0
  deadLettered = 0
  discarded = 0
  ignored = 0
  private readonly labels: Labels
  private readonly context: Context.Context<never>
  private readonly sizes: Metric.Metric<number, unknown>
  private readonly durations: Metric.Metric<number, unknown>

  constructor(labels: HandlerLabels, context: Context.Context<never>) {
    this.labels = { ...labels }
    this.context = context
    this.sizes = Metric.withAttributes(batchSize, this.labels)
    this.durations = Metric.withAttributes(batchSeconds, this.labels)
  }

  batch(events: number): void {
    this.sizes.updateUnsafe(events, this.context)
  }

  took(millis: number): void {
    this.durations.updateUnsafe(millis / 1_000, this.context)
  }

  /** Turns what was counted into metrics. */
  flush(): void {
    this.add(handled, this.finished - this.deadLettered - this.discarded - this.ignored)
    this.add(failed, this.failed)
    this.add(retried, this.retried)
    this.add(deadLettered, this.deadLettered)
    this.add(discarded, this.discarded)
    this.add(ignored, this.ignored)
    this.finished =
      this.failed =
      this.retried =
      this.deadLettered =
      this.discarded =
      this.ignored =
        0
  }

  private add(metric: Metric.Counter<number>, count: number): void {
    if (count !== 0) Metric.withAttributes(metric, this.labels).updateUnsafe(count, this.context)
  }
}

/** Counts events that were applied already. */
export const countDuplicates = (labels: HandlerLabels, events: number): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(duplicates, { ...labels }), events)

/** Counts outbox events that were sent. */
export const countRelayed = (topic: string, events: number): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(relayed, { topic }), events)

/** Counts a failed batch of the relay, by the name of the reason. */
export const countRelayFailed = (reason: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(relayFailed, { reason }), 1)

/** Counts outbox events that were parked. */
export const countParked = (topic: string, events: number): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(parked, { topic }), events)

/** The gauges of one partition, which go when it goes. */
export class PartitionGauges {
  private readonly context: Context.Context<never>
  private readonly gauges: ReadonlyArray<Metric.Metric<number, unknown>>

  constructor(
    labels: { readonly group: string; readonly topic: string; readonly partition: string },
    context: Context.Context<never>
  ) {
    this.context = context
    this.gauges = [span, buffered, stuck].map((gauge) => Metric.withAttributes(gauge, labels))
  }

  set(...values: readonly [span: number, buffered: number, stuck: number]): void {
    for (const [i, value] of values.entries()) this.gauges[i]!.updateUnsafe(value, this.context)
  }

  remove(): void {
    for (const gauge of this.gauges) Metric.removeUnsafe(gauge, this.context)
  }
}

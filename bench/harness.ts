/**
 * Runs a benchmark beside its twin: the same work, written by hand on the raw
 * client. Both alternate within one run, so a noisy machine disturbs both; the
 * ratio of medians is the figure.
 */
import { Effect, References } from "effect"
import { existsSync, readFileSync, writeFileSync } from "node:fs"

/** What one round of one side took. */
export interface Round {
  readonly events: number
  /** With the unit MiB: memory instead of time. */
  readonly wallMillis: number
  readonly cpuMicros: number
}

export interface Benchmark {
  /** Benchmark, a space, the variant. */
  readonly name: string
  readonly settings: { readonly [name: string]: string | number }
  /** `"ms"`, `"MiB"`: what counts is what one event takes. Default: how many there are in a second. */
  readonly unit?: "events/s" | "ms" | "MiB"
  /** The least ratio that is good enough. */
  readonly aim?: number
  /** Rounds in the short form; without, it has no part in that. */
  readonly short?: number
  /** Prepares both sides once; `close` ends what it started. */
  readonly open: () => Promise<{
    readonly ours: () => Promise<Round>
    readonly twin: () => Promise<Round>
    readonly close: () => Promise<void>
  }>
}

/** A side that is prepared and ends by itself. */
export interface Side {
  readonly round: () => Promise<Round>
  readonly close: () => Promise<void>
}

export interface Row {
  readonly name: string
  /** Median, in `unit`. */
  readonly ours: number
  readonly twin: number
  /** Events per second, `ours ÷ twin`; so of times and sizes `twin ÷ ours`. */
  readonly ratio: number
  readonly aim?: number
  readonly unit: string
  readonly settings: { readonly [name: string]: string | number }
  /** Lowest and highest ratio of neighbouring rounds. */
  readonly spread: readonly [number, number]
  /** CPU time of the process per event, microseconds, median. */
  readonly cpu: { readonly ours: number; readonly twin: number }
}

const warmUps = 1

/** The form for CI: `npm run bench -- --short`. */
export const isShort = process.argv.includes("--short")

/** How much of something there is in a full run, and in a short one. */
export const sized = (full: number, short: number): number => isShort ? short : full

/** A side that says nothing for so long has lost an event, and waits for it. */
const patienceMinutes = sized(10, 2)

/** Keeps the engine's log of joins and drains out of the figures. */
export const quiet = Effect.provideService(References.MinimumLogLevel, "Warn")

/** Measures the work between two calls of the clock. */
export const measure = async (events: number, work: (started: () => void) => Promise<void>): Promise<Round> => {
  let wall = performance.now()
  let cpu = process.cpuUsage()
  await work(() => {
    wall = performance.now()
    cpu = process.cpuUsage()
  })
  const used = process.cpuUsage(cpu)
  return { events, wallMillis: performance.now() - wall, cpuMicros: used.user + used.system }
}

/** Both sides from one recipe: prepared one after the other, with what tells them apart. */
export const alike = <A>(prepare: (what: A) => Promise<Side>, ours: A, twin: A): Benchmark["open"] => async () => {
  const [our, other] = [await prepare(ours), await prepare(twin)]
  return {
    ours: our.round,
    twin: other.round,
    close: async () => {
      await our.close()
      await other.close()
    }
  }
}

const bounded = async (side: () => Promise<Round>): Promise<Round> => {
  let timer: NodeJS.Timeout | undefined
  const tooLong = new Promise<never>((_, reject) => {
    const error = new Error(`No result within ${patienceMinutes} minutes: an event is lost, or something hangs`)
    timer = setTimeout(() => reject(error), patienceMinutes * 60_000)
  })
  try {
    return await Promise.race([side(), tooLong])
  } finally {
    clearTimeout(timer)
  }
}

const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

const perSecond = (round: Round): number => round.events / round.wallMillis * 1_000
const round = (value: number, digits: number): number => Number(value.toFixed(digits))

export const run = async (benchmark: Benchmark, rounds: number): Promise<Row> => {
  const unit = benchmark.unit ?? "events/s"
  const shown = (rate: number): number => unit === "events/s" ? Math.round(rate) : round(1_000 / rate, 3)
  const sides = await benchmark.open()
  const ours: Array<Round> = []
  const twin: Array<Round> = []
  try {
    for (let i = -warmUps; i < rounds; i++) {
      // Whoever goes first changes from round to round.
      const [first, second] = i % 2 === 0 ? [sides.ours, sides.twin] : [sides.twin, sides.ours]
      const a = await bounded(first)
      const b = await bounded(second)
      if (i < 0) continue
      ours.push(i % 2 === 0 ? a : b)
      twin.push(i % 2 === 0 ? b : a)
      console.log(
        `  round ${i + 1}: ours ${shown(perSecond(ours.at(-1)!))}, twin ${shown(perSecond(twin.at(-1)!))} ${unit}`
      )
    }
  } finally {
    await sides.close()
  }
  const ratios = ours.map((our, i) => perSecond(our) / perSecond(twin[i]!))
  const oursMedian = median(ours.map(perSecond))
  const twinMedian = median(twin.map(perSecond))
  const cpuOf = (side: ReadonlyArray<Round>) => round(median(side.map((one) => one.cpuMicros / one.events)), 2)
  return {
    name: benchmark.name,
    ours: shown(oursMedian),
    twin: shown(twinMedian),
    ratio: round(oursMedian / twinMedian, 3),
    ...(benchmark.aim === undefined ? {} : { aim: benchmark.aim }),
    unit,
    settings: { ...benchmark.settings, rounds },
    spread: [round(Math.min(...ratios), 3), round(Math.max(...ratios), 3)],
    cpu: { ours: cpuOf(ours), twin: cpuOf(twin) }
  }
}

/** A result in one line. */
export const lineOf = ({ aim, cpu, name, ours, ratio, spread, twin, unit }: Row): string =>
  `${name}: ours ${ours}, twin ${twin} ${unit}, ratio ${ratio} (${spread.join(" … ")})` +
  (aim === undefined ? "" : `, aim ${aim}${ratio < aim ? ": missed" : ""}`) +
  `, CPU ${cpu.ours} against ${cpu.twin} µs per event`

const results = new URL("./results.json", import.meta.url)

/** The last results. */
export const saved = (): Array<Row> =>
  existsSync(results) ? JSON.parse(readFileSync(results, "utf8")) as Array<Row> : []

/** Replaces the row of this benchmark and keeps the others. */
export const save = (row: Row): void => {
  const rows = [...saved().filter((other) => other.name !== row.name), row].sort((a, b) => a.name < b.name ? -1 : 1)
  writeFileSync(results, `${JSON.stringify(rows, null, 2)}\n`)
}

/**
 * `import`: what it costs to import the root module and the KafkaJs Layer,
 * against `effect` and `kafkajs` alone: the time that the imports take in a
 * process of their own, and in `import-heap` the heap of that process after
 * a garbage collection.
 */
import { build, oneByOne, runChild } from "./children.ts"
import type { Benchmark, Round } from "./harness.ts"

const children = 3

interface Imported {
  readonly millis: number
  readonly heapBytes: number
  readonly cpu: NodeJS.CpuUsage
}

const importing = (variant: string, unit: "ms" | "MiB", amountOf: (imported: Imported) => number): Benchmark => ({
  name: `import${variant}`,
  unit,
  aim: 0.87,
  short: 3,
  settings: {
    children,
    ours: ours.join(", "),
    twin: twin.join(", "),
    package: "dist, built before"
  },
  open: () => {
    build()
    const round = (modules: ReadonlyArray<string>) =>
      oneByOne(children, async (): Promise<Round> => {
        const { text } = await runChild("importing.js", modules, ["--expose-gc"])
        const imported = JSON.parse(text) as Imported
        const { system, user } = imported.cpu
        return { events: 1, wallMillis: amountOf(imported), cpuMicros: user + system }
      })
    return Promise.resolve({
      ours: () => round(ours),
      twin: () => round(twin),
      close: () => Promise.resolve()
    })
  }
})

const ours = ["effect-events", "effect-events/Layers/KafkaJs"]
const twin = ["effect", "kafkajs"]

export const imports = [
  importing("", "ms", ({ millis }) => millis),
  importing("-heap", "MiB", ({ heapBytes }) => heapBytes / 1024 / 1024)
]

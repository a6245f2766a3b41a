/**
 * Where the time goes: runs each side of a benchmark by itself under V8's CPU
 * profiler, and sums up by function and by package how much CPU time an event
 * costs there.
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { Session } from "node:inspector/promises"
import { fileURLToPath } from "node:url"
import type { Benchmark, Round } from "./harness.ts"

interface Node {
  readonly id: number
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number }
}

interface Profile {
  readonly nodes: ReadonlyArray<Node>
  readonly samples?: ReadonlyArray<number> | undefined
  readonly timeDeltas?: ReadonlyArray<number> | undefined
}

const intervalMicros = 200
const rows = 40
const folder = new URL("./profiles/", import.meta.url)
const root = fileURLToPath(new URL("../", import.meta.url))

/** Micros of self time by node. */
const selfTimes = ({ nodes, samples = [], timeDeltas = [] }: Profile): ReadonlyMap<Node, number> => {
  const byId = new Map(nodes.map((node) => [node.id, node]))
  const times = new Map<Node, number>()
  samples.forEach((id, i) => {
    const node = byId.get(id)!
    times.set(node, (times.get(node) ?? 0) + timeDeltas[i]!)
  })
  return times
}

const pathOf = ({ callFrame: { url } }: Node): string =>
  url.startsWith("file:") ? fileURLToPath(url).replace(root, "") : url

const functionOf = (node: Node): string => {
  const { callFrame: { functionName, lineNumber } } = node
  const path = pathOf(node).replace(/^.*node_modules\//, "")
  return path === "" ? functionName : `${functionName || "(anonymous)"} ${path}:${lineNumber + 1}`
}

const packageOf = (node: Node): string => {
  const { functionName, url } = node.callFrame
  const path = pathOf(node)
  if (url === "") return functionName.startsWith("(") ? functionName : "(native)"
  if (url.startsWith("node:")) return "node"
  const dependency = /^.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(path)?.[1]
  return dependency ?? path.slice(0, path.lastIndexOf("/"))
}

const table = (times: ReadonlyMap<Node, number>, events: number, name: (node: Node) => string): Array<string> => {
  const sums = new Map<string, number>()
  let all = 0
  for (const [node, micros] of times) {
    if (node.callFrame.functionName === "(idle)") continue
    all += micros
    sums.set(name(node), (sums.get(name(node)) ?? 0) + micros)
  }
  return [...sums].sort(([, a], [, b]) => b - a).slice(0, rows).map(([what, micros]) =>
    `${(micros / events).toFixed(3).padStart(8)} ${(micros / all * 100).toFixed(1).padStart(5)} %  ${what}`
  )
}

const profileSide = async (side: () => Promise<Round>, rounds: number, file: string): Promise<void> => {
  await side()
  const session = new Session()
  session.connect()
  await session.post("Profiler.enable")
  await session.post("Profiler.setSamplingInterval", { interval: intervalMicros })
  await session.post("Profiler.start")
  let events = 0
  for (let i = 0; i < rounds; i++) events += (await side()).events
  const { profile } = await session.post("Profiler.stop")
  session.disconnect()
  const times = selfTimes(profile)
  const text = [
    `${file}: µs of CPU per event, share`,
    "",
    ...table(times, events, packageOf),
    "",
    ...table(times, events, functionOf),
    ""
  ].join("\n")
  mkdirSync(folder, { recursive: true })
  writeFileSync(new URL(`${file}.cpuprofile`, folder), JSON.stringify(profile))
  writeFileSync(new URL(`${file}.txt`, folder), text)
  console.log(text)
}

/** Writes `bench/profiles/NAME.{ours,twin}.{cpuprofile,txt}`. */
export const profile = async (benchmark: Benchmark, rounds: number): Promise<void> => {
  const sides = await benchmark.open()
  const name = benchmark.name.replaceAll(" ", "-")
  try {
    await profileSide(sides.ours, rounds, `${name}.ours`)
    await profileSide(sides.twin, rounds, `${name}.twin`)
  } finally {
    await sides.close()
  }
}

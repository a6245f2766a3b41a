/**
 * What a short run is compared with: `bench/baseline.json`. Short runs on busy
 * machines are inexact, so only a ratio below half of its baseline fails.
 */
import { readFileSync, writeFileSync } from "node:fs"
import type { Row } from "./harness.ts"

interface Known {
  readonly name: string
  readonly ratio: number
}

const file = new URL("./baseline.json", import.meta.url)
const least = 0.5

const read = (): ReadonlyArray<Known> => JSON.parse(readFileSync(file, "utf8")) as ReadonlyArray<Known>

/** Prints a line per row, and says whether all of them hold. */
export const compare = (rows: ReadonlyArray<Row>): boolean => {
  const known = new Map(read().map(({ name, ratio }) => [name, ratio]))
  let holds = true
  for (const { name, ratio } of rows) {
    const baseline = known.get(name)
    const share = baseline === undefined ? undefined : ratio / baseline
    const verdict = share === undefined ? "new" : share < least ? "FAIL" : "pass"
    if (verdict === "FAIL") holds = false
    console.log(
      `${verdict}  ${name}: ratio ${ratio}` +
        (share === undefined ? ", without a baseline" : `, baseline ${baseline}: ${share.toFixed(2)} of it`)
    )
  }
  return holds
}

/** Replaces the ratios of these rows. */
export const keep = (rows: ReadonlyArray<Row>): void => {
  const all = new Map(read().map(({ name, ratio }) => [name, ratio]))
  for (const { name, ratio } of rows) all.set(name, ratio)
  const sorted = Array.from(all, ([name, ratio]): Known => ({ name, ratio })).sort((a, b) => a.name < b.name ? -1 : 1)
  writeFileSync(file, `${JSON.stringify(sorted, null, 2)}\n`)
}

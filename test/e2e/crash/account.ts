/** The account of a crash: what was placed, against what was applied, given up on, and is in the log. Pure. */
import type { Item } from "./domain.ts"

export interface Observed {
  /** Committed by the business. */
  readonly placed: ReadonlyArray<Item>
  /** By the handler, in the order in which it did. */
  readonly applied: ReadonlyArray<Item>
  readonly letters: ReadonlyArray<Item>
  /** In the topic, each partition in its order. */
  readonly log: ReadonlyArray<Item>
}

export interface Account {
  readonly lost: number
  readonly twice: number
  readonly inversions: number
}

const nameOf = ({ key, n }: Item) => `${key}/${n}`

/** How often an item comes behind a later one of its key, each item counted where it is first. */
export const inversionsOf = (items: ReadonlyArray<Item>): number => {
  const seen = new Set<string>()
  const highest = new Map<string, number>()
  let inversions = 0
  for (const item of items) {
    if (seen.has(nameOf(item))) continue
    seen.add(nameOf(item))
    const before = highest.get(item.key) ?? -1
    if (item.n < before) inversions++
    else highest.set(item.key, item.n)
  }
  return inversions
}

/**
 * - lost: placed, and neither applied nor a dead letter.
 * - twice: applied once more, or applied and given up on, or applied although
 *   it was never placed: its transaction was rolled back.
 * - inversions: behind a later one of its key, in the log or as it was applied.
 */
export const settle = ({ applied, letters, log, placed }: Observed): Account => {
  const times = new Map<string, number>()
  for (const item of applied) times.set(nameOf(item), (times.get(nameOf(item)) ?? 0) + 1)
  const givenUp = new Set(letters.map(nameOf))
  const known = new Set(placed.map(nameOf))
  let twice = 0
  for (const [name, count] of times) twice += known.has(name) && !givenUp.has(name) ? count - 1 : count
  return {
    lost: placed.filter((item) => !times.has(nameOf(item)) && !givenUp.has(nameOf(item))).length,
    twice,
    inversions: inversionsOf(log) + inversionsOf(applied)
  }
}

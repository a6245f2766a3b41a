/**
 * The account of a soak: what was published against what each handler applied.
 * Pure.
 *
 * - lost: acknowledged, and neither applied nor, if it is poison, a dead
 *   letter; or given up on although it is not poison. Of broadcast: missing
 *   between an instance's start and the last event of the key that it saw, and
 *   for those that lived to the end, to the end.
 * - twice: applied once more by an exactly-once handler.
 * - duplicates: applied once more by any other.
 * - out of order: applied for the first time before an earlier event of its
 *   key; or once more behind a newer one, although the member that applied it
 *   before had no upset (was not killed or frozen, lost no partition, had no
 *   commit fail), gave the partition back without a retry under way at or
 *   below it, and the one that repeats it was not frozen. An event that is in
 *   the log twice (the outbox sends again what it had no answer for) counts as
 *   a duplicate.
 *
 * The order is that in which things took effect: lines in the file that all
 * append to, and rows by the number that they got at their insert.
 */
import { type Applied, handlers } from "./domain.ts"

export interface Published {
  readonly topic: string
  readonly key: string
  readonly n: number
  readonly poison: boolean
  /** `false`: without an answer, so it may be in the log or not. */
  readonly acked: boolean
  readonly startMillis: number
}

/** A record that backed off when its partition was given back: it, and what lies above it, comes again. */
export interface Hole {
  readonly handler: string
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly millis: number
}

export interface Instance {
  readonly name: string
  /** From then on broadcast promises every event. `undefined`: it never came so far. */
  readonly readyMillis: number | undefined
  readonly survived: boolean
  readonly upsets: ReadonlyArray<{ readonly from: number; readonly to: number }>
  readonly holes: ReadonlyArray<Hole>
}

export interface Observed {
  readonly published: ReadonlyArray<Published>
  /** In the order in which they took effect. */
  readonly applied: ReadonlyArray<Applied>
  /** `handler key n` of each dead letter. */
  readonly letters: ReadonlyArray<string>
  readonly instances: ReadonlyArray<Instance>
}

type Kind = "lost" | "twice" | "outOfOrder" | "duplicates"

export interface Finding {
  readonly kind: Kind
  readonly text: string
}

export interface Account extends Readonly<Record<Kind, number>> {
  readonly findings: ReadonlyArray<Finding>
}

/** How long after an upset its redeliveries come: handlers back off, groups rebalance. */
const aftermath = 90_000

/** Between a handler's note and the log line of the drain. */
const drainSlack = 1_000

const byKey = <A extends { readonly key: string }>(all: Iterable<A>): Map<string, Array<A>> => {
  const map = new Map<string, Array<A>>()
  for (const one of all) {
    const known = map.get(one.key)
    if (known === undefined) map.set(one.key, [one])
    else known.push(one)
  }
  return map
}

const where = (one: Applied) => `${one.key}/${one.n} by ${one.member} at ${one.partition}/${one.offset}, ${one.millis}`

export const settle = (observed: Observed): Account => {
  const counts = { lost: 0, twice: 0, outOfOrder: 0, duplicates: 0 }
  const findings: Array<Finding> = []
  const found = (kind: Kind, text: string) => {
    counts[kind]++
    if (kind !== "duplicates") findings.push({ kind, text })
  }
  const instances = new Map(observed.instances.map((instance) => [instance.name, instance]))
  const upset = (member: string, from: number, to: number) =>
    instances.get(member)?.upsets.some((one) => one.from <= to && one.to + aftermath >= from) ?? false
  // A retry that succeeded before the drain is no hole; its success is not in the log.
  const finished = new Map<string, number>()
  const nameOf = (member: string, one: { readonly handler: string; readonly partition: number; offset: unknown }) =>
    `${member} ${one.handler} ${one.partition} ${String(one.offset)}`
  for (const { holes, name } of observed.instances) for (const one of holes) finished.set(nameOf(name, one), Infinity)
  for (const one of observed.applied) {
    const name = nameOf(one.member, one)
    if (one.millis < (finished.get(name) ?? 0)) finished.set(name, one.millis)
  }
  const hole = (topic: string, last: Applied, now: Applied) =>
    instances.get(last.member)?.holes.some((one) =>
      one.topic === topic && one.partition === last.partition && one.offset <= Number(last.offset) &&
      one.millis >= last.millis - drainSlack && one.millis <= now.millis &&
      finished.get(nameOf(last.member, one))! > one.millis
    ) ?? false
  const excused = (topic: string, last: Applied, now: Applied) =>
    hole(topic, last, now) || upset(last.member, last.millis, now.millis) || upset(now.member, last.millis, now.millis)
  const letters = new Set(observed.letters)
  const publishedBy = new Map(
    ["direct", "boxed"].map((topic) => [topic, byKey(observed.published.filter((one) => one.topic === topic))])
  )
  const appliedBy = new Map<string, Array<Applied>>()
  for (const one of observed.applied) {
    const broadcast = one.handler.startsWith("broadcast")
    const name = broadcast ? `${one.handler} ${one.member}` : one.handler
    const known = appliedBy.get(name)
    if (known === undefined) appliedBy.set(name, [one])
    else known.push(one)
  }

  /** One key as one handler saw it: `expected` are those that it must have applied, in order. */
  const follow = (
    name: string,
    topic: string,
    again: "twice" | "duplicates",
    expected: ReadonlyArray<Published>,
    applied: ReadonlyArray<Applied>
  ) => {
    // The last application of each record: an event that was published twice has two.
    const before = new Map<string, Applied>()
    const done = new Set<number>()
    let lowest = 0
    let highest = -1
    for (const one of applied) {
      const last = before.get(one.offset)
      if (done.has(one.n)) {
        found(again, `${name}: ${where(one)}${last === undefined ? "; published twice" : `; before ${where(last)}`}`)
        if (last !== undefined && one.n < highest && again === "duplicates" && !excused(topic, last, one)) {
          found("outOfOrder", `${name}: again behind ${one.key}/${highest}: ${where(one)}; before ${where(last)}`)
        }
      } else if (lowest < expected.length && expected[lowest]!.n < one.n) {
        found("outOfOrder", `${name}: ${where(one)} overtook ${one.key}/${expected[lowest]!.n}`)
      }
      before.set(one.offset, one)
      done.add(one.n)
      highest = Math.max(highest, one.n)
      while (lowest < expected.length && done.has(expected[lowest]!.n)) lowest++
    }
    for (let at = lowest; at < expected.length; at++) {
      const { key, n } = expected[at]!
      if (!done.has(n)) found("lost", `${name}: ${key}/${n}`)
    }
  }

  for (const handler of handlers) {
    for (const [key, all] of publishedBy.get(handler.topic)!) {
      const wanted = all.filter((one) => one.acked && !one.poison)
      if (handler.mode !== "broadcast") {
        const applied = byKeyOf(appliedBy, handler.name).get(key) ?? []
        follow(handler.name, handler.topic, handler.mode === "exactlyOnce" ? "twice" : "duplicates", wanted, applied)
        for (const one of all) {
          const letter = letters.has(`${handler.name} ${key} ${one.n}`)
          if (one.poison && one.acked && !letter) found("lost", `${handler.name}: no dead letter of ${key}/${one.n}`)
          if (!one.poison && letter) found("lost", `${handler.name}: given up on ${key}/${one.n}`)
        }
        continue
      }
      for (const { name, readyMillis, survived } of observed.instances) {
        if (readyMillis === undefined) continue
        const applied = byKeyOf(appliedBy, `${handler.name} ${name}`).get(key) ?? []
        const last = applied.reduce((highest, one) => Math.max(highest, one.n), -1)
        const expected = wanted.filter((one) => one.startMillis >= readyMillis && (survived || one.n <= last))
        follow(`${handler.name} of ${name}`, handler.topic, "duplicates", expected, applied)
      }
    }
  }
  return { ...counts, findings }
}

const keyed = new WeakMap<ReadonlyArray<Applied>, Map<string, Array<Applied>>>()

/** The applications of one handler by key, computed once. */
const byKeyOf = (all: ReadonlyMap<string, Array<Applied>>, name: string): Map<string, Array<Applied>> => {
  const own = all.get(name)
  if (own === undefined) return new Map()
  const known = keyed.get(own) ?? byKey(own)
  keyed.set(own, known)
  return known
}

/** The last line of a soak. */
export const summary = (account: Account, seed: number): string =>
  `soak: lost=${account.lost} twice=${account.twice} out_of_order=${account.outOfOrder} duplicates=${account.duplicates} seed=${seed}`

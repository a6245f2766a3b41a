/** What happens to a soak, and when. The same seed plans the same accidents in the same order. Pure. */

export type MemberAccident =
  | { readonly _tag: "join" }
  | { readonly _tag: "leave" | "kill"; readonly pick: number }
  /** Frozen past its session, or within it. */
  | { readonly _tag: "freeze" | "nap"; readonly pick: number; readonly forMillis: number }

export type BrokerAccident =
  | { readonly _tag: "restartBroker" | "killBroker"; readonly pick: number; readonly downMillis: number }
  | { readonly _tag: "freezeBroker"; readonly pick: number; readonly downMillis: number }
  /** All brokers at once. */
  | { readonly _tag: "outage"; readonly downMillis: number }
  | { readonly _tag: "killDatabase"; readonly downMillis: number }

export interface Step<A> {
  /** After the accident before is over. */
  readonly afterMillis: number
  readonly accident: A
}

/** Numbers from 0 to 1, in an order that the seed determines (mulberry32). */
export const makeRandom = (seed: number) => {
  let state = seed >>> 0
  return (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

type Random = () => number

const between = (random: Random, least: number, most: number) => Math.floor(least + random() * (most - least))

const steps = <A>(random: Random, least: number, most: number, next: () => A): () => Step<A> => () => ({
  afterMillis: between(random, least, most),
  accident: next()
})

/** A weight per kind. */
const choose = <K extends string>(random: Random, weights: Readonly<Record<K, number>>): K => {
  const kinds = Object.entries<number>(weights)
  let left = random() * kinds.reduce((sum, [, weight]) => sum + weight, 0)
  return kinds.find(([, weight]) => (left -= weight) < 0)![0] as K
}

export const fewestMembers = 2
export const mostMembers = 5

/** What happens to members, without end. */
export const memberSteps = (seed: number): () => Step<MemberAccident> => {
  const random = makeRandom(seed)
  return steps(random, 2_000, 7_000, (): MemberAccident => {
    const _tag = choose(random, { join: 3, leave: 2, kill: 2, freeze: 1, nap: 1 })
    switch (_tag) {
      case "join":
        return { _tag }
      case "leave":
      case "kill":
        return { _tag, pick: random() }
      case "freeze":
        return { _tag, pick: random(), forMillis: between(random, 8_000, 13_000) }
      case "nap":
        return { _tag, pick: random(), forMillis: between(random, 500, 4_000) }
    }
  })
}

/** What happens to servers, without end. */
export const serverSteps = (seed: number): () => Step<BrokerAccident> => {
  const random = makeRandom(seed + 1)
  return steps(random, 6_000, 18_000, (): BrokerAccident => {
    const _tag = choose(random, { restartBroker: 3, killBroker: 3, freezeBroker: 2, outage: 0.7, killDatabase: 1 })
    return _tag === "outage" || _tag === "killDatabase"
      ? { _tag, downMillis: between(random, 1_000, 12_000) }
      : { _tag, pick: random(), downMillis: between(random, 1_000, 12_000) }
  })
}

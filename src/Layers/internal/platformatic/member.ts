/**
 * Owns a member of a group: it joins, takes what the leader gives it, gives
 * back what goes elsewhere, tells that it lives, and joins again when the group
 * changes. What stays with it goes on meanwhile (KIP-429).
 *
 * Invariant: one join runs at a time; a partition is given back, drained and
 * committed, before a join says that it is; and after a session without an
 * answer of the coordinator nothing is held.
 *
 * The insights: the package's own consumer sends no heartbeats while it waits
 * for a revocation, forgets the group after one failed rejoin, and does not
 * wait for its streams. The protocol below it is four requests. Heartbeats go
 * on while a join waits for others: they are not needed for the coordinator to
 * keep us, but without an answer we could not know that it still does.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import * as Assigner from "../kafka/assigner.ts"
import { evicted, type KafkaFailure, noAnswer } from "../kafka/failure.ts"
import { backOff } from "../kafka/retry.ts"
import type { Settings } from "../kafka/settings.ts"
import type { Coordinator, Standing } from "./coordinator.ts"
import { memberIdOf } from "./errors.ts"
import * as Grants from "./grants.ts"

export interface Options {
  readonly settings: Settings
  /** Physical names of the topics to read; those that are gone are left out. */
  readonly topics: () => ReadonlyArray<string>
  readonly coordinator: Coordinator
  readonly grants: Grants.Grants
  /** The partitions of topics; a missing topic has none. */
  readonly lookUp: (
    topics: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyMap<string, ReadonlyArray<number>>, KafkaFailure>
  /** What is needed to know of partitions that come. */
  readonly starts: (partitions: Assigner.Owned) => Effect.Effect<ReadonlyArray<Grants.Start>, KafkaFailure>
  /** There is something to fetch. */
  readonly onGranted: () => void
}

export interface Member {
  /** Succeeds with the first join. */
  readonly joined: Effect.Effect<void>
  /** Fails with what waiting cannot mend. */
  readonly failed: Effect.Effect<never, KafkaFailure>
  /** Whether the session cannot be over yet. */
  readonly trusted: () => boolean
  /** Makes the group share anew. */
  readonly rejoin: Effect.Effect<void>
  /** Loses these, and joins again: they are granted anew. */
  readonly reset: (grants: ReadonlyArray<Grants.Grant>) => Effect.Effect<void>
  /** The generation of now, once our part in it is known; `undefined` when the group has removed this member. */
  readonly standing: Effect.Effect<Standing | undefined>
  /** The coordinator refuses a generation: `true` if another one has come, `false` if this member was removed. */
  readonly overtaken: (standing: Standing) => Effect.Effect<boolean>
}

interface Life extends Options {
  readonly now: () => number
  /** Opens when the group is to be joined again. */
  readonly changed: Latch.Latch
  /** Open unless a generation has begun of which our part is not known yet. */
  readonly settled: Latch.Latch
  /** Open unless a join is under way. */
  readonly entered: Latch.Latch
  memberId: string
  standing: Standing | undefined
  contact: number
}

/** How much earlier than the coordinator a member gives up, so that nobody else has its partitions yet. */
const safety = 1_000

const hear = (life: Life, asked: number): void => {
  life.contact = Math.max(life.contact, asked)
}

const beat = (life: Life, standing: Standing, within: number) =>
  Effect.suspend(() => {
    const asked = life.now()
    return life.coordinator.heartbeat(standing, within).pipe(
      Effect.tap(() => Effect.sync(() => hear(life, asked))),
      Effect.tapError((failure) =>
        Effect.sync(() => {
          if (failure.type === "REBALANCE_IN_PROGRESS") hear(life, asked)
        })
      )
    )
  })

/**
 * Tells the coordinator now and then that this member lives, whatever it
 * answers. Fails when it has not answered for a session: a join that waits for
 * a broker that says nothing would wait for a rebalance timeout.
 */
const keepAlive = (life: Life): Effect.Effect<never, KafkaFailure> =>
  Effect.suspend((): Effect.Effect<void, KafkaFailure> => {
    if (life.standing === undefined) return Effect.void
    if (life.now() - life.contact <= life.settings.sessionTimeout) {
      return Effect.ignore(beat(life, life.standing, 1_000))
    }
    // What it gave was lost with the session; the next join may wait for others as long as it has to.
    life.standing = undefined
    return Effect.fail(noAnswer)
  }).pipe(Effect.delay(life.settings.heartbeatInterval), Effect.forever)

/** Joins with an id of the coordinator's choice. */
const joinGroup = (life: Life) => {
  const member = () => ({ topics: life.topics(), owned: Grants.owned(life.grants), keeps: true })
  const join = Effect.suspend(() => life.coordinator.join(life.memberId, member()))
  return Effect.catchIf(join, (failure) => failure.type === "MEMBER_ID_REQUIRED", (failure) =>
    Effect.suspend(() => {
      life.memberId = memberIdOf(failure.error) ?? ""
      return join
    }))
}

/** What the leader says who gets. */
const decide = Effect.fnUntraced(function*(life: Life, members: ReadonlyArray<Assigner.Candidate>) {
  if (members.length === 0) return new Map<string, Assigner.Owned>()
  const topics = [...new Set(members.flatMap((member) => member.topics))]
  return Assigner.assign(members, yield* life.lookUp(topics))
})

/** One generation, up to what it gives this member. */
const enter = (life: Life) =>
  Effect.suspend(() => {
    life.changed.closeUnsafe()
    life.entered.closeUnsafe()
    return Effect.ensuring(enterAlone(life), life.entered.open)
  })

const enterAlone = Effect.fnUntraced(function*(life: Life) {
  const { generation, memberId, members } = yield* joinGroup(life)
  life.settled.closeUnsafe()
  const standing = { generation, memberId }
  life.memberId = memberId
  return yield* Effect.gen(function*() {
    const assignments = yield* decide(life, members)
    const asked = life.now()
    const given = yield* life.coordinator.sync(standing, assignments)
    life.standing = standing
    hear(life, asked)
    return given
  }).pipe(Effect.ensuring(life.settled.open))
})

const has = (owned: Assigner.Owned, topic: string, partition: number) => owned[topic]?.includes(partition) === true

/** What is given and not held yet. */
const missing = (owned: Assigner.Owned, given: Assigner.Owned): Assigner.Owned =>
  Object.fromEntries(
    Object.entries(given).map(([topic, partitions]) => [
      topic,
      partitions.filter((partition) => !has(owned, topic, partition))
    ])
  )

/** Takes what has come and gives back what goes; `true` if the group waits for the latter. */
const settle = Effect.fnUntraced(function*(life: Life, given: Assigner.Owned) {
  const { grants } = life
  const leaving = Grants.current(grants).filter(({ partition, topic }) => !has(given, topic, partition))
  yield* Grants.grant(grants, yield* life.starts(missing(Grants.owned(grants), given)))
  life.onGranted()
  yield* Grants.revoke(grants, leaving)
  return leaving.length > 0
})

/** Stays until the group changes. */
const stay = (life: Life, standing: Standing): Effect.Effect<void, KafkaFailure> => {
  const beats = beat(life, standing, life.settings.sessionTimeout).pipe(
    Effect.delay(life.settings.heartbeatInterval),
    Effect.forever
  )
  const rebalanced = Effect.catchIf(beats, ({ type }) => type === "REBALANCE_IN_PROGRESS", () => Effect.void)
  return Effect.raceFirst(rebalanced, life.changed.await)
}

/** One generation after another. */
const live = Effect.fnUntraced(function*(
  life: Life,
  onJoined: Effect.Effect<unknown>
): Effect.fn.Return<never, KafkaFailure> {
  for (;;) {
    const given = yield* Effect.raceFirst(enter(life), keepAlive(life))
    const leaves = yield* Effect.raceFirst(settle(life, given), keepAlive(life))
    yield* onJoined
    if (!leaves && life.standing !== undefined) yield* stay(life, life.standing)
  }
})

/** The group has removed this member, or thinks of another generation than it. */
const removed = (life: Life, type: string | undefined) =>
  Effect.suspend(() => {
    life.standing = undefined
    if (type !== "ILLEGAL_GENERATION") life.memberId = ""
    return Grants.lose(life.grants)
  })

/** What cannot pass by itself, so many times in a row, is told to whoever consumes. */
const mostRefusals = 3

/** Goes on after whatever may pass. */
const persist = Effect.fnUntraced(
  function*(life: Life, joined: Deferred.Deferred<void>): Effect.fn.Return<never, KafkaFailure> {
    let tries = 0
    let refusals = 0
    const onJoined = Effect.suspend(() => {
      tries = 0
      refusals = 0
      return Deferred.succeed(joined, undefined)
    })
    for (;;) {
      const failure = yield* Effect.flip(live(life, onJoined))
      if (evicted(failure)) {
        yield* removed(life, failure.type)
        yield* Effect.logDebug("The group has removed this member", { detail: failure.detail })
      } else if (!failure.transient) {
        if (++refusals >= mostRefusals || !(yield* Deferred.isDone(joined))) return yield* failure
      }
      if (failure.type !== "REBALANCE_IN_PROGRESS") yield* backOff(tries++, 2_000)
    }
  }
)

/** Ends what is held when the coordinator has not answered for a session. */
const watch = (life: Life) =>
  Effect.suspend(() => {
    const overdue = life.now() - life.contact > life.settings.sessionTimeout - safety
    return overdue && Grants.current(life.grants).length > 0
      ? Effect.andThen(
        Effect.logWarning("The group's session is over without an answer from its coordinator"),
        Effect.andThen(Grants.lose(life.grants), life.changed.open)
      )
      : Effect.void
  }).pipe(Effect.delay("500 millis"), Effect.forever)

/** Becomes a member, until the scope closes. */
export const make = Effect.fnUntraced(function*(options: Options): Effect.fn.Return<Member, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const { grants, settings } = options
  const joined = yield* Deferred.make<void>()
  const failed = yield* Deferred.make<never, KafkaFailure>()
  const life: Life = {
    ...options,
    now,
    changed: Latch.makeUnsafe(false),
    settled: Latch.makeUnsafe(true),
    entered: Latch.makeUnsafe(true),
    memberId: "",
    standing: undefined,
    contact: now()
  }
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => life.memberId === "" ? Effect.void : options.coordinator.leave(life.memberId))
  )
  yield* Effect.forkScoped(Effect.catchCause(persist(life, joined), (cause) => Deferred.failCause(failed, cause)))
  yield* Effect.forkScoped(watch(life))
  return {
    joined: Deferred.await(joined),
    failed: Deferred.await(failed),
    trusted: () => now() - life.contact < settings.sessionTimeout,
    rejoin: Effect.asVoid(life.changed.open),
    reset: (some) => Effect.andThen(Grants.lose(grants, some), life.changed.open),
    standing: Effect.andThen(life.settled.await, Effect.sync(() => life.standing)),
    // While others still join, the coordinator takes commits of the generation before; when it has gone on, its answer
    // to our join is on the way.
    overtaken: (standing) =>
      Effect.andThen(
        life.entered.await,
        Effect.suspend(() =>
          standing !== life.standing
            ? Effect.succeed(life.standing !== undefined)
            : Effect.as(Effect.andThen(removed(life, undefined), life.changed.open), false)
        )
      )
  }
})

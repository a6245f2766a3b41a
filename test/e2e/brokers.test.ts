/**
 * Consumers in all modes while brokers of their own go away: one after another
 * of three, the coordinator in the middle of a join, and all for a minute.
 * On real Kafka and Postgres.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import * as SqlClient from "effect/sql/SqlClient"
import type { KafkaCluster } from "../../scripts/services/kafka/cluster.ts"
import { Broker } from "../../src/Broker.ts"
import * as Consumer from "../../src/Consumer.ts"
import type * as Event from "../../src/Event.ts"
import { MessageStore } from "../../src/MessageStore.ts"
import * as Publisher from "../../src/Publisher.ts"
import { kill, ownKafka, start } from "../layers/kafka/cluster.ts"
import { outside } from "../layers/kafka/outside.ts"
import { freshSchema, postgresInstance } from "../layers/sql/databases.ts"
import { Item, itemTopic, silent, upTo } from "../suites/consumer/support.ts"
import { within } from "../suites/features.ts"
import { KafkaLayer, type Options } from "../support/kafkaClient.ts"
import { requireOrSkip } from "../support/services.ts"

const partitions = 6
const keys = 24
const group = "all-modes"
const Items = itemTopic("items", partitions)

const keyOf = (n: number) => `key-${n % keys}`

interface Seen {
  readonly member: string
  readonly n: number
  readonly partition: number
}

/** What the handlers saw, by mode, in order. */
const makeSeen = () => ({ idempotent: [] as Array<Seen>, batch: [] as Array<Seen>, broadcast: [] as Array<Seen> })

/** Numbers that come for the first time behind a higher one of their key. */
const overtaken = (all: ReadonlyArray<number>): ReadonlyArray<number> => {
  const highest = new Map<string, number>()
  const known = new Set<number>()
  return all.filter((n) => {
    const before = highest.get(keyOf(n)) ?? -1
    const isNew = !known.has(n)
    known.add(n)
    highest.set(keyOf(n), Math.max(before, n))
    return isNew && n < before
  })
}

/** A stage: a cluster, a database, publishing without end, and members that come and go. */
const stage = Effect.fnUntraced(function*(nodes: 1 | 3) {
  const cluster = yield* ownKafka({ nodes })
  const options: Options = {
    brokers: cluster.brokers,
    sessionTimeout: "30 seconds",
    heartbeatInterval: "500 millis",
    requestTimeout: "5 seconds",
    metadataMaxAge: "1 second"
  }
  const schema = yield* freshSchema
  const { sql, store } = yield* postgresInstance(schema)
  yield* sql`create table ${sql(schema)}.applied (id bigint generated always as identity, n int not null)`
  const seen = makeSeen()
  const note = (list: Array<Seen>, member: string) => (event: Event.Event<Item>) =>
    Effect.sync(() => void list.push({ member, n: event.payload.n, partition: event.partition }))

  const consumers = (member: string) =>
    [
      Consumer.idempotent(Items, note(seen.idempotent, member), { name: "idempotent" }),
      Consumer.idempotentBatch(Items, (events) => Effect.forEach(events, note(seen.batch, member)), { name: "batch" }),
      Consumer.exactlyOnce(Items, (event) =>
        SqlClient.SqlClient.use((sql) =>
          sql`insert into ${sql(schema)}.applied (n) values (${event.payload.n})`
        ), {
        name: "once"
      }),
      Consumer.broadcast(Items, note(seen.broadcast, member), { name: "broadcast" })
    ] as const

  /** A member with connections of its own, as another process would have. */
  const join = Effect.fnUntraced(function*(member: string) {
    const scope = yield* Scope.fork(yield* Effect.scope)
    yield* Layer.buildWithScope(
      Consumer.layer(group, consumers(member)).pipe(
        Layer.provide(Layer.fresh(KafkaLayer.layer(options))),
        Layer.provide(Layer.succeed(MessageStore, store)),
        Layer.provide(Layer.succeed(SqlClient.SqlClient, sql)),
        Layer.provide(silent)
      ),
      scope
    )
    return { leave: Scope.close(scope, Exit.void) }
  })

  const publisher = yield* Layer.build(Layer.fresh(KafkaLayer.layer(options)))
  let published = 0
  const stopped = yield* Deferred.make<void>()
  const publishing = Effect.gen(function*() {
    while (!Deferred.isDoneUnsafe(stopped)) {
      yield* Publisher.publishAll(Items, upTo(keys).map((i) => new Item({ key: keyOf(i), n: published + i })))
      published += keys
      yield* Effect.sleep("100 millis")
    }
  }).pipe(
    Effect.provideContext(publisher),
    Effect.orDie,
    Effect.onError((cause) => Deferred.failCause(ended, cause))
  )
  const applied = Effect.map(
    sql<{ readonly n: number }>`select n from ${sql(schema)}.applied order by id`,
    (rows) => rows.map((row) => row.n)
  )
  /** Publishing that ends unseen would look like consumers that stand still: its failure ends every wait. */
  const ended = yield* Deferred.make<never>()
  const soon = (what: string, test: () => boolean) =>
    within(
      Effect.raceFirst(
        Effect.repeat(Effect.sync(test), { schedule: Schedule.spaced("50 millis"), until: (met) => met }),
        Deferred.await(ended)
      ),
      240_000,
      () => `${what}; ${published} published, ${seen.idempotent.length} seen`
    )

  return {
    cluster,
    kafka: outside(cluster.brokers),
    seen,
    join,
    soon,
    publish: Effect.gen(function*() {
      yield* Broker.use((broker) => broker.ensureTopics([Items])).pipe(Effect.provideContext(publisher))
      return yield* Effect.forkScoped(publishing)
    }),
    published: () => published,
    /** Every partition makes progress with events that are published from now on, in every mode and at every member. */
    progress: (members: ReadonlyArray<string>) =>
      Effect.suspend(() => {
        const from = published + keys
        const parts = (list: ReadonlyArray<Seen>, member?: string) =>
          new Set(
            list.filter((one) => one.n >= from && (member === undefined || one.member === member))
              .map(({ partition }) => partition)
          ).size
        return soon(`progress of every partition since ${from}`, () => {
          return parts(seen.idempotent) === partitions && parts(seen.batch) === partitions &&
            members.every((member) =>
              parts(seen.broadcast, member) === partitions && parts(seen.idempotent, member) > 0
            )
        })
      }),
    /** Stops publishing, waits until all is applied in every mode, and looks at what happened. */
    account: Effect.fnUntraced(function*(fiber: Fiber.Fiber<void>, broadcastFrom: ReadonlyMap<string, number>) {
      yield* Deferred.succeed(stopped, undefined)
      yield* Fiber.join(fiber)
      const all = upTo(published)
      const has = (list: ReadonlyArray<Seen>) => new Set(list.map(({ n }) => n)).size >= all.length
      yield* soon("all seen", () => has(seen.idempotent) && has(seen.batch))
      yield* within(
        Effect.repeat(applied, { schedule: Schedule.spaced("100 millis"), until: (rows) => rows.length >= all.length }),
        180_000,
        () => "all applied once"
      )
      const rows = yield* applied
      assert.deepStrictEqual(rows.toSorted((a, b) => a - b), all)
      assert.deepStrictEqual(overtaken(rows), [])
      for (const list of [seen.idempotent, seen.batch]) {
        assert.deepStrictEqual(overtaken(list.map(({ n }) => n)), [])
      }
      for (const [member, from] of broadcastFrom) {
        const own = () => seen.broadcast.filter((one) => one.member === member).map(({ n }) => n)
        yield* soon(`${member} is shown all since ${from}`, () => {
          const shown = new Set(own())
          return all.slice(from).every((n) => shown.has(n))
        })
        assert.deepStrictEqual(overtaken(own()), [])
      }
      return {
        published: all.length,
        repeated: seen.idempotent.length + seen.batch.length - 2 * all.length
      }
    })
  }
})

const restartAll = (cluster: KafkaCluster, between: Effect.Effect<unknown>) =>
  Effect.forEach(
    cluster.nodes,
    (node) => Effect.promise(() => node.stop()).pipe(Effect.andThen(start(node)), Effect.andThen(between)),
    { discard: true }
  )

const report = (name: string, { published, repeated }: { readonly published: number; readonly repeated: number }) =>
  Effect.sync(() => process.stderr.write(`${name}: ${published} published, ${repeated} redelivered\n`))

describe.skipIf(requireOrSkip("kafka", "postgres"))("consumers in all modes", () => {
  it.live(
    "go on by themselves through a rolling restart of three brokers, every member with all its partitions",
    () =>
      Effect.gen(function*() {
        const { account, cluster, join, progress, publish, published } = yield* stage(3)
        const fiber = yield* publish
        yield* join("a")
        yield* join("b")
        const from = published() + keys
        yield* progress(["a", "b"])
        yield* restartAll(cluster, progress(["a", "b"]))
        yield* report("rolling restart", yield* account(fiber, new Map([["a", from], ["b", from]])))
      }),
    480_000
  )

  it.live(
    "lose nothing when the coordinator is killed while one joins and one leaves, and nobody is stuck",
    () =>
      Effect.gen(function*() {
        const { account, cluster, join, kafka, progress, publish, published } = yield* stage(3)
        const fiber = yield* publish
        yield* join("a")
        const leaving = yield* join("b")
        const from = published() + keys
        yield* progress(["a", "b"])
        const address = yield* kafka.coordinator(group)
        const node = cluster.nodes.find((node) => node.broker === address)!
        yield* Effect.all([kill(node), join("c"), leaving.leave], { concurrency: "unbounded" })
        yield* progress(["a", "c"])
        yield* start(node)
        yield* progress(["a", "c"])
        yield* report("coordinator killed in a join", yield* account(fiber, new Map([["a", from]])))
      }),
    480_000
  )

  it.live(
    "wait out a minute without any broker: nothing is lost, and each event comes at most once more",
    () =>
      Effect.gen(function*() {
        const { account, cluster, join, progress, publish, published, seen } = yield* stage(1)
        const fiber = yield* publish
        yield* join("a")
        const from = published() + keys
        yield* progress(["a"])
        yield* kill(cluster.nodes[0]!)
        yield* Effect.sleep("60 seconds")
        yield* start(cluster.nodes[0]!)
        yield* progress(["a"])
        yield* report("a minute without a broker", yield* account(fiber, new Map([["a", from]])))
        for (const list of [seen.idempotent, seen.batch]) {
          const times = new Map<number, number>()
          for (const { n } of list) times.set(n, (times.get(n) ?? 0) + 1)
          assert.isAtMost(Math.max(...times.values()), 2)
        }
      }),
    480_000
  )

  it.live(
    "outlast two of three brokers that are down, and a leader that is frozen for 40 seconds",
    () =>
      Effect.gen(function*() {
        const { account, cluster, join, kafka, progress, publish, published } = yield* stage(3)
        const fiber = yield* publish
        yield* join("a")
        yield* join("b")
        const from = published() + keys
        yield* progress(["a", "b"])
        // Without a majority nothing is acknowledged: there is no progress to wait for.
        const down = cluster.nodes.slice(0, 2)
        yield* Effect.forEach(down, kill, { concurrency: 2 })
        yield* Effect.sleep("20 seconds")
        yield* Effect.forEach(down, start, { concurrency: 2 })
        yield* progress(["a", "b"])
        const address = yield* kafka.leader(Items.name, 0)
        const frozen = cluster.nodes.find((node) => node.broker === address)!
        yield* Effect.acquireUseRelease(
          Effect.sync(() => frozen.pause()),
          () => Effect.andThen(Effect.sleep("40 seconds"), progress(["a", "b"])),
          () => Effect.sync(() => frozen.resume())
        )
        yield* progress(["a", "b"])
        yield* report("two of three down", yield* account(fiber, new Map([["a", from], ["b", from]])))
      }),
    480_000
  )
})

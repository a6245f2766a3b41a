/** Each thing that can keep a partition from moving is broken once, and the status names it. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { BrokerError, Unreachable } from "../../../../src/Broker.ts"
import * as ConsumerGroup from "../../../../src/ConsumerGroup.ts"
import * as FailurePolicy from "../../../../src/FailurePolicy.ts"
import * as Health from "../../../../src/Health.ts"
import { Assignment } from "../../../../src/internal/consumer/order/assignment.ts"
import { describe as describeAssignment, Progress } from "../../../../src/internal/consumer/status/status.ts"
import * as Feed from "../../../support/scriptedFeed.ts"

const { batches, each, engine, makeGate, pass, record, records, retries, saving, settle } = Feed

const inProcess = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  effect.pipe(
    Effect.provideService(ConsumerGroup.Members, new Set()),
    Effect.provideService(Health.Parts, new Map())
  )

/** The only partition. */
const look = Effect.map(ConsumerGroup.status("group"), ([status]) => {
  assert.strictEqual(status?.partitions.length, 1)
  return status!.partitions[0]!
})

const patient: FailurePolicy.FailurePolicy<unknown> = { ...saving, timeout: "1 hour" }

const away = new BrokerError({
  reason: new Unreachable({ address: "kafka:9092", tried: "asking", cause: new Error("ECONNREFUSED") })
})

/** Numbers from 0 as records, the first with the key "first", each other with a key of its own. */
const many = (count: number) => Array.from({ length: count }, (_, i) => record(i, i === 0 ? "first" : `key-${i}`))

describe("a partition that moves", () => {
  it.effect("is idle when all is finished and committed, and ok while there is work", () =>
    inProcess(Effect.gen(function*() {
      const gate = makeGate()
      const { feed } = yield* engine([each(() => gate.wait, { name: "bill" })])
      assert.deepStrictEqual(yield* ConsumerGroup.status("group"), [{
        group: "group",
        handlers: [{ topic: "orders", handler: "bill" }],
        state: "running",
        reason: null,
        verdict: "idle",
        partitions: []
      }])
      yield* feed.assign(3)
      const fresh = yield* look
      assert.deepStrictEqual([fresh.verdict, fresh.reason], ["idle", "Nothing to do."])
      assert.deepStrictEqual([fresh.watermark, fresh.highestDelivered, fresh.committed], [null, null, null])

      yield* feed.deliver(3, [record(7, "a"), record(9, "b")])
      yield* pass("5 seconds")
      assert.deepStrictEqual(yield* look, {
        topic: "orders",
        partition: 3,
        epoch: 1,
        draining: false,
        verdict: "ok",
        reason: "Handler \"bill\" has run for 5 s at offset 7 (key \"a\"); it is interrupted after 300 s.",
        watermark: "7",
        highestDelivered: "9",
        committed: "7",
        span: 3,
        buffered: 2,
        paused: null,
        running: { handler: "bill", key: "a", offset: "7", ageMillis: 5_000, batchSize: 1 },
        waiting: null,
        commitError: null,
        progressMillis: 1_000
      })

      yield* gate.open
      const finished = yield* look
      assert.deepStrictEqual([finished.verdict, finished.reason], ["ok", "Its position is about to be committed."])
      yield* pass("1 second")
      const done = yield* look
      assert.deepStrictEqual([done.verdict, done.watermark, done.committed], ["idle", "10", "10"])
      assert.deepStrictEqual([done.running, done.waiting, done.span], [null, null, 0])
      assert.strictEqual(done.progressMillis, 5_000)
    })))

  it.effect("that was idle for long is not stuck with the first record that comes", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([
        each((event) => event.payload.n === 0 ? Effect.void : Effect.never, { policy: patient })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* pass("1 hour")
      yield* feed.deliver(0, [record(1, "a")])
      yield* settle
      const { progressMillis, verdict } = yield* look
      assert.deepStrictEqual([verdict, progressMillis], ["ok", Duration.toMillis("1 hour")])
      yield* pass("5 minutes")
      assert.strictEqual((yield* look).verdict, "ok")
    })))

  it.effect("is not stuck while its watermark moves, however slowly", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.sleep("4 minutes"), { ordering: "partition" })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "c", "d"))
      for (let i = 0; i < 3; i++) {
        yield* pass("4 minutes")
        assert.strictEqual((yield* look).verdict, "ok")
      }
    })))
})

describe("a partition that is stuck", () => {
  it.effect("behind a handler that hangs: names handler, key, offset and age, and `stuckAfter` decides", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([
        each((event) => event.payload.n === 1 ? Effect.never : Effect.void, { name: "bill", policy: patient })
      ], { stuckAfter: Duration.minutes(2) })
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "b", "c"))
      yield* pass("119 seconds")
      assert.strictEqual((yield* look).verdict, "ok")
      yield* pass("2 seconds")
      const stuck = yield* look
      assert.strictEqual(stuck.verdict, "stuck")
      assert.deepStrictEqual(stuck.running, {
        handler: "bill",
        key: "b",
        offset: "1",
        ageMillis: 121_000,
        batchSize: 1
      })
      assert.strictEqual(
        stuck.reason,
        "Handler \"bill\" has run for 121 s at offset 1 (key \"b\"); it is interrupted after 3600 s."
      )
      assert.deepStrictEqual([stuck.watermark, stuck.committed, stuck.buffered], ["1", "1", 2])
      assert.strictEqual((yield* ConsumerGroup.status())[0]?.verdict, "stuck")
    })))

  it.effect("behind a handler that outlives its interruption: says so", () =>
    inProcess(Effect.gen(function*() {
      const gate = makeGate()
      const { feed } = yield* engine([each(() => Effect.uninterruptible(gate.wait), { name: "bill" })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* pass("361 seconds")
      const { reason, verdict } = yield* look
      yield* gate.open
      assert.strictEqual(verdict, "stuck")
      assert.match(reason, /although it was interrupted after 300 s: look for an uninterruptible region/)
    })))

  it.effect("behind poison under block: names attempts and the last failure, and that it never gives up", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([
        each((event) => event.payload.n === 0 ? Effect.fail("no such customer.") : Effect.void, {
          name: "bill",
          policy: { ...FailurePolicy.block(), retry: retries(1, "1 minute") }
        })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b"))
      yield* settle
      assert.strictEqual((yield* look).verdict, "ok")
      yield* pass("370 seconds")
      const stuck = yield* look
      assert.strictEqual(stuck.verdict, "stuck")
      assert.strictEqual(stuck.running, null)
      assert.deepStrictEqual(stuck.waiting, {
        for: "block",
        handler: "bill",
        key: "a",
        offset: "0",
        attempts: 7,
        untilMillis: 420_000,
        error: "no such customer"
      })
      assert.strictEqual(
        stuck.reason,
        "Handler \"bill\" failed 7 times at offset 0 (key \"a\") and its policy never gives up: no such customer. " +
          "Remove the cause, or give the handler a policy that gives up. Next try in 50 s."
      )
    })))

  it.effect("while it backs off under a policy that gives up: says when it goes on", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([
        each(() => Effect.fail("busy"), { name: "bill", policy: { ...saving, retry: retries(3, "10 minutes") } })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* pass("7 minutes")
      const { reason, verdict, waiting } = yield* look
      assert.deepStrictEqual([verdict, waiting?.for, waiting?.attempts], ["stuck", "retry", 1])
      assert.strictEqual(
        reason,
        "Handler \"bill\" failed once at offset 0 (key \"a\"): busy. Next try in 180 s."
      )
    })))

  it.effect("behind a dead letter that cannot be written", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.fail("poison"), { name: "bill" })], {
        writeDeadLetter: () => Effect.fail(away)
      })
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* pass("361 seconds")
      const { reason, verdict, waiting } = yield* look
      assert.deepStrictEqual([verdict, waiting?.for], ["stuck", "deadLetter"])
      assert.match(
        reason,
        /^The dead letter of handler "bill" for offset 0 \(key "a"\) cannot be written: .*kafka:9092/
      )
      assert.match(reason, /Check the dead-letter topic, and the right to write to it/)
    })))

  it.effect("while the database does not answer", () =>
    inProcess(Effect.gen(function*() {
      const handler = each(() => Effect.fail("connection refused"), { name: "bill" })
      const { feed } = yield* engine([{ ...handler, isOutage: () => true }])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* pass("361 seconds")
      const { reason, verdict, waiting } = yield* look
      assert.deepStrictEqual([verdict, waiting?.for, waiting?.attempts], ["stuck", "store", 0])
      assert.match(reason, /^The database does not answer, .* at offset 0 \(key "a"\): connection refused/)
    })))

  it.effect("behind commits that fail, although every handler is through", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.void)])
      feed.script.commit = () => Effect.fail(away)
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b"))
      yield* pass("10 seconds")
      const ok = yield* look
      assert.strictEqual(ok.verdict, "ok")
      assert.match(ok.reason, /^Commits fail: .*kafka:9092/)
      yield* pass("351 seconds")
      const stuck = yield* look
      assert.deepStrictEqual([stuck.verdict, stuck.watermark, stuck.committed], ["stuck", "2", "0"])
      assert.match(stuck.reason, /^Commits fail: .*kafka:9092.*Check the broker/)
      feed.script.commit = () => Effect.void
      yield* pass("2 seconds")
      const idle = yield* look
      assert.deepStrictEqual([idle.verdict, idle.commitError, idle.reason], ["idle", null, "Nothing to do."])
    })))

  it.effect("for want of a slot: names what has the slots", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([
        each(() => Effect.never, { name: "bill", concurrency: 1, policy: patient, ordering: "unordered" })
      ])
      yield* feed.assign(0, 1)
      yield* feed.deliver(0, records("a"))
      yield* settle
      yield* feed.deliver(1, records("b"))
      yield* pass("361 seconds")
      const [status] = yield* ConsumerGroup.status()
      const waiting = status!.partitions[1]!
      assert.deepStrictEqual([waiting.verdict, waiting.running, waiting.waiting?.for], ["stuck", null, "slot"])
      assert.strictEqual(
        waiting.reason,
        "Handler \"bill\" has no free slot for offset 0 (key \"b\"). Its slots are taken by other partitions or handlers."
      )
    })))
})

describe("what is named", () => {
  it.effect("is the handler that holds the record, not the one that is through with it", () =>
    inProcess(Effect.gen(function*() {
      for (const hung of ["first", "second", "third"]) {
        yield* Effect.scoped(Effect.gen(function*() {
          const { feed } = yield* engine(
            ["first", "second", "third"].map((name) =>
              each(() => name === hung ? Effect.fail("no") : Effect.void, {
                name,
                policy: { ...FailurePolicy.block(), retry: retries(9, "1 hour") }
              })
            )
          )
          yield* feed.assign(0)
          yield* feed.deliver(0, records("a"))
          yield* settle
          assert.strictEqual((yield* look).waiting?.handler, hung)
        }))
      }
    })))

  it.effect("of a batch is its oldest record of the partition, and how many run", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([batches(() => Effect.never, { name: "bill", concurrency: 1, policy: patient })])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a", "b", "c"))
      yield* pass("1 second")
      const { reason, running } = yield* look
      assert.strictEqual(running?.batchSize, 3)
      assert.match(reason, /at offset 0 \(key "a"\) in a batch of 3;/)
    })))

  it.effect("is cut: keys at 100 characters, failures at 500; and all of it is plain JSON", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([
        each(() => Effect.fail("e".repeat(2_000)), {
          policy: { ...FailurePolicy.block(), retry: retries(1, "1 hour") }
        })
      ])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("k".repeat(2_000)))
      yield* settle
      const partition = yield* look
      assert.strictEqual(partition.waiting?.key, `${"k".repeat(100)}…`)
      assert.strictEqual(partition.waiting?.error, `${"e".repeat(500)}…`)
      assert.deepStrictEqual(JSON.parse(JSON.stringify(partition)), partition)
    })))

  it.effect("is nothing once the group has stopped", () =>
    inProcess(Effect.gen(function*() {
      const { feed, stop } = yield* engine([each(() => Effect.void)])
      yield* feed.assign(0)
      yield* stop
      assert.deepStrictEqual(yield* ConsumerGroup.status(), [])
    })))

  it.effect("while it drains is that it drains, and what it waits for", () =>
    inProcess(Effect.gen(function*() {
      const gate = makeGate()
      const { feed } = yield* engine([each(() => gate.wait)])
      yield* feed.assign(0)
      yield* feed.deliver(0, records("a"))
      yield* settle
      yield* Effect.forkChild(feed.revoke([0], Duration.minutes(1)))
      yield* settle
      const { draining, reason } = yield* look
      assert.isTrue(draining)
      assert.match(reason, /has run for .* It is being handed over\.$/)
      yield* gate.open
      assert.deepStrictEqual((yield* ConsumerGroup.status())[0]?.partitions, [])
    })))
})

describe("a paused partition", () => {
  it.effect("that holds as many records as it may says so", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([each(() => Effect.never, { policy: patient })])
      yield* feed.assign(0)
      yield* Effect.forkChild(feed.deliver(0, many(1_100)))
      yield* pass("1 second")
      const { buffered, paused, reason } = yield* look
      assert.deepStrictEqual([paused, buffered], ["prefetch", 1_100])
      assert.match(reason, /The partition is paused: it holds as many records as it may\.$/)
    })))

  it.effect("whose oldest record lies too far below says so, and what that record waits for", () =>
    inProcess(Effect.gen(function*() {
      const { feed } = yield* engine([
        each((event) => event.payload.n === 0 ? Effect.never : Effect.void, { name: "bill", policy: patient })
      ])
      yield* feed.assign(0)
      const all = many(10_500)
      for (let from = 0; from < all.length; from += 500) {
        yield* Effect.forkChild(feed.deliver(0, all.slice(from, from + 500)))
        yield* pass("1 second")
      }
      yield* pass("6 minutes")
      const { buffered, paused, reason, span, verdict } = yield* look
      assert.deepStrictEqual([verdict, paused, buffered], ["stuck", "span", 1])
      assert.isAtLeast(span, 10_000)
      assert.match(reason, /^Handler "bill" has run for \d+ s at offset 0 \(key "first"\)/)
      assert.match(reason, /The partition is paused: its oldest unfinished record lies too far below the newest\.$/)
    })))

  it("has a sentence for each reason", () => {
    const assignment = new Assignment({ topic: "orders", partition: 0, epoch: 1 }, 0, { records: 0, bytes: 0 })
    const sentence = (paused: ConsumerGroup.PauseReason) => {
      assignment.paused = paused
      return describeAssignment(
        assignment,
        new Progress(0),
        { readers: [], commits: true, commitError: null, stuckAfterMillis: 1 },
        0
      ).reason
    }
    const reasons = ["prefetch", "span", "key", "total", "bytes"] as const
    const sentences = reasons.map(sentence)
    assert.strictEqual(new Set(sentences).size, reasons.length)
    assert.match(sentence("key"), /one key holds/)
    for (const one of sentences) assert.match(one, /^The partition is paused: /)
  })
})

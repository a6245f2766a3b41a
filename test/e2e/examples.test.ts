/** The examples as programs: what they print, how they stop, and their exit codes. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn, spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import { dieWithParent } from "../../scripts/services/child.ts"
import { api, startProxy } from "../support/proxy.ts"
import { kafkaBrokers, requireOrSkip } from "../support/services.ts"

const root = fileURLToPath(new URL("../..", import.meta.url))

interface Program {
  /** What it has printed so far, of both outputs. */
  readonly output: () => string
  readonly signal: (name: NodeJS.Signals) => Effect.Effect<void>
  /** Waits until it has printed something; dies if it ends before. */
  readonly printed: (pattern: RegExp) => Effect.Effect<void>
  /** Waits for its end: the exit code, or the signal that ended it. */
  readonly ended: Effect.Effect<number | NodeJS.Signals>
}

const launch = (example: string, args: ReadonlyArray<string>, env: NodeJS.ProcessEnv): Program => {
  const child = spawn(
    process.execPath,
    ["--conditions=effect-events-source", `examples/${example}/main.ts`, ...args],
    { cwd: root, detached: true, env: { ...process.env, LOG_LEVEL: "Info", ...env }, stdio: ["ignore", "pipe", "pipe"] }
  )
  dieWithParent(child.pid!, new Promise((resolve) => void child.once("exit", () => resolve())))
  let output = ""
  let end: number | NodeJS.Signals | undefined
  const listeners = new Set<() => void>()
  const notify = () => {
    for (const listener of listeners) listener()
  }
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text
      notify()
    })
  }
  // Comes when it has ended, and all that it printed has been read.
  child.once("close", (code, signal) => {
    end = code ?? signal!
    notify()
  })

  /** Asks `find` now and after each change, until it has an answer. */
  const until = <A>(find: () => Effect.Effect<A> | undefined) =>
    Effect.callback<A>((resume) => {
      const listener = () => {
        const found = find()
        if (found === undefined) return
        listeners.delete(listener)
        resume(found)
      }
      listeners.add(listener)
      listener()
      return Effect.sync(() => listeners.delete(listener))
    })

  return {
    output: () => output,
    signal: (name) => Effect.sync(() => void child.kill(name)),
    printed: (pattern) =>
      until(() => {
        if (pattern.test(output)) return Effect.void
        return end === undefined ? undefined : Effect.die(new Error(`It ended without ${pattern}:\n${output}`))
      }),
    ended: until(() => end === undefined ? undefined : Effect.succeed(end))
  }
}

/** First kindly, so that it ends what it has started itself. */
const kill = ({ ended, signal }: Program) =>
  Effect.andThen(signal("SIGTERM"), ended).pipe(
    Effect.timeoutOrElse({ duration: "15 seconds", orElse: () => Effect.andThen(signal("SIGKILL"), ended) })
  )

/** Runs an example with this Node, and kills it if it still runs at the end of the test. */
const run = (example: string, args: ReadonlyArray<string> = [], env: NodeJS.ProcessEnv = {}) =>
  Effect.acquireRelease(Effect.sync(() => launch(example, args, env)), kill)

/** Fails with all that the program printed when something takes too long. */
const within = <A>(program: Program, seconds: number, effect: Effect.Effect<A>): Effect.Effect<A> =>
  Effect.timeoutOrElse(effect, {
    duration: `${seconds} seconds`,
    orElse: () => Effect.die(new Error(`${seconds} s were not enough:\n${program.output()}`))
  })

const endsWith = Effect.fnUntraced(function*(program: Program, code: number, seconds: number) {
  const ended = yield* within(program, seconds, program.ended)
  assert.strictEqual(ended, code, program.output())
})

const someInvoiced = /^[1-9]\d*\/\d+ orders invoiced/m
const stopping = /once more to exit at once/i

/** Work for half a minute in one process, and for longer on Kafka. */
const forLong = ["--orders", "20000"]

const invoicesAll = Effect.fnUntraced(function*(args: ReadonlyArray<string>, placed: number) {
  const program = yield* run("orders", args)
  yield* endsWith(program, 0, 150)
  const verdict = `\nplaced=${placed} invoiced=${placed} lost=0 twice=0 out_of_order=0\n`
  assert.include(program.output(), verdict)
})

/** Stops an example in the middle of its work, by one signal. */
const drains = Effect.fnUntraced(function*(args: ReadonlyArray<string>, signal: NodeJS.Signals) {
  const program = yield* run("orders", [...args, ...forLong])
  yield* within(program, 60, program.printed(someInvoiced))
  yield* program.signal(signal)
  yield* endsWith(program, 0, 30)
  const [, afterSignal = ""] = program.output().split(stopping)
  assert.match(afterSignal, /Consumers stopped/, program.output())
  assert.match(afterSignal, /Outbox relay stopped/, program.output())
  assert.notMatch(afterSignal, /level=(WARN|ERROR)/, program.output())
})

const signals = ["SIGTERM", "SIGINT"] as const
const minutes = (n: number) => n * 60_000

describe("the orders example in one process", () => {
  it.live("invoices each order that was placed, once and in order", () => invoicesAll([], 950), minutes(3))

  for (const signal of signals) {
    it.live(`drains and exits with 0 on ${signal}`, () => drains([], signal), minutes(2))
  }

  it.live("stops on a signal, too, while more orders are placed than it can invoice", () =>
    Effect.gen(function*() {
      const program = yield* run("orders", ["--orders", "1000000"])
      yield* within(program, 30, program.printed(/Consumers started/))
      yield* program.signal("SIGINT")
      yield* endsWith(program, 0, 30)
    }), minutes(2))
})

describe("the pipeline example", () => {
  it.live("is cut off in the middle, goes on, and misses nothing", () =>
    Effect.gen(function*() {
      const program = yield* run("pipeline")
      yield* endsWith(program, 0, 120)
      const [, before, again] =
        /^placed=5000 before=(\d+) indexed=5000 missing=0 again=(\d+)$/m.exec(program.output()) ??
          assert.fail(program.output())
      assert.isBelow(Number(before), 5_000)
      // No more than what was pulled and not committed when it was cut off.
      assert.isBelow(Number(again), Number(before))
    }), minutes(3))
})

describe.skipIf(requireOrSkip("kafka", "postgres"))("the orders example on Kafka and Postgres", () => {
  it.live(
    "invoices each order that was placed, once and in order",
    () => invoicesAll(["--kafka", "--orders", "400"], 380),
    minutes(3)
  )

  it.live(
    "invoices each order once and in order although its consumer is killed three times",
    () => invoicesAll(["--kafka", "--crash", "--orders", "1500"], 1425),
    minutes(3)
  )

  for (const signal of signals) {
    it.live(`drains and exits with 0 on ${signal}`, () => drains(["--kafka"], signal), minutes(2))
  }

  /** Kafka falls silent in the middle of the work, and then comes the first signal. */
  const stoppingInSilence = Effect.gen(function*() {
    const proxy = yield* startProxy(kafkaBrokers![0]!)
    const program = yield* run("orders", ["--kafka", ...forLong], { KAFKA_BROKERS: proxy.address })
    yield* within(program, 60, program.printed(someInvoiced))
    assert.isAbove(proxy.passed(api.fetch), 0)
    yield* proxy.blackHole
    yield* program.signal("SIGINT")
    yield* within(program, 10, program.printed(stopping))
    return program
  })

  it.live(
    "exits with 0 within 30 s although Kafka is silent",
    () => Effect.flatMap(stoppingInSilence, (program) => endsWith(program, 0, 30)),
    minutes(2)
  )

  it.live(
    "exits at once, and not with 0, on a second signal while a silent Kafka keeps it from draining",
    () =>
      Effect.gen(function*() {
        const program = yield* stoppingInSilence
        yield* program.signal("SIGINT")
        yield* endsWith(program, 130, 5)
      }),
    minutes(2)
  )
})

describe.skipIf(requireOrSkip("kafka", "postgres"))("the reference example", () => {
  it.live("exits with 0, for its tables agree with what was published", () =>
    Effect.gen(function*() {
      const program = yield* run("reference")
      yield* endsWith(program, 0, 120)
      assert.include(program.output(), "\nplaced: o-1 o-2 o-3\ninvoiced: o-1 o-2 o-3 o-5 o-6 o-7 o-8\n")
    }), minutes(3))
})

/** The console producer is a Java program; a Kafka that was given to us may have come without. */
const withoutJava = process.env.CI !== "true" && spawnSync("java", ["-version"]).error !== undefined

describe.skipIf(requireOrSkip("kafka") || withoutJava)("the interop example", () => {
  it.live(
    "exits with 0, for each foreign record was handled or lies in the dead-letter topic",
    () =>
      Effect.gen(function*() {
        const program = yield* run("interop")
        yield* endsWith(program, 0, 150)
        assert.match(program.output(), /^ok +CloudEvents, structured mode +handled +4712 /m)
        assert.match(program.output(), /^ {2}dl_error_tag: Undecodable$/m)
      }),
    minutes(3)
  )
})

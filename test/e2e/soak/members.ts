/** The members of a soak, as processes of their own: they join, leave, die and freeze, and are written down. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { createWriteStream } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { dieWithParent } from "../../../scripts/services/child.ts"
import type { Hole, Instance } from "./account.ts"
import type { Settings } from "./domain.ts"
import { fewestMembers, type MemberAccident, mostMembers } from "./plan.ts"

/** Log lines after which events may come again. */
const upsetting =
  /Partition lost|outlived the drain|A commit failed|A commit came after|session is over|built anew|failed and starts/

/** Reads what a member logs: what backed off when a partition was given back, alone, as a batch, or while the database was away. */
const makeLogReader = (holes: Array<Hole>) => {
  const backingOff = new Map<string, Omit<Hole, "millis">>()
  const field = (line: string, name: string) => new RegExp(` ${name}=(\\S+)`).exec(line)?.[1] ?? ""
  return (line: string): void => {
    const [topic, partition] = [field(line, "topic"), Number(field(line, "partition"))]
    if (/each half of it|The database does not answer/.test(line)) {
      const handler = field(line, "handler")
      for (const place of field(line, "from").split(",")) {
        const [partition, offset] = place.split("/").map(Number) as [number, number]
        backingOff.set(`${handler} ${topic} ${partition} ${offset}`, { handler, topic, partition, offset })
      }
      return
    }
    if (/will be tried again|The handler gave up/.test(line)) {
      const [handler, offset] = [field(line, "handler"), Number(field(line, "offset").replace("n", ""))]
      const name = `${handler} ${topic} ${partition} ${offset}`
      if (line.includes("gave up")) backingOff.delete(name)
      else backingOff.set(name, { handler, topic, partition, offset })
    } else if (/Partition drained|Consumers stopped/.test(line)) {
      const all = line.includes("Consumers stopped")
      const millis = Date.parse(/timestamp=(\S+)/.exec(line)![1]!)
      for (const [name, one] of backingOff) {
        if (!all && (one.topic !== topic || one.partition !== partition)) continue
        backingOff.delete(name)
        holes.push({ ...one, millis })
      }
    }
  }
}

/** What a member may take to stop: 20 s for its handlers, 5 s for interrupted ones, and to leave. */
const stopPatience = 40_000

/** Starts in a row that may fail: while a server is away, a member gives up after 10 s, and whoever runs it starts it again. */
const mostFailedStarts = 10

interface Member {
  readonly name: string
  readonly readyMillis: () => number | undefined
  readonly isRunning: () => boolean
  readonly upsets: Array<{ readonly from: number; readonly to: number }>
  readonly holes: Array<Hole>
  readonly signal: (signal: NodeJS.Signals) => void
  readonly exited: Promise<string>
  /** Its end is our doing. */
  ending: boolean
  frozen: boolean
}

export interface Members {
  readonly running: () => number
  /** Members that took part so far. */
  readonly instances: () => ReadonlyArray<Instance>
  readonly start: Effect.Effect<void>
  /** Carries out an accident, and says what it did. */
  readonly suffer: (accident: MemberAccident) => Effect.Effect<string>
  /** Every member that runs is ready. */
  readonly allReady: () => boolean
  /** Stops all gracefully. */
  readonly stopAll: Effect.Effect<void>
  /** What should not have happened. */
  readonly complaints: ReadonlyArray<string>
}

// house-rule-allow: moments are compared with those that other processes note
const now = () => Date.now()

export const make = Effect.fnUntraced(function*(
  settings: Settings,
  folder: string,
  say: (sentence: string) => void
): Effect.fn.Return<Members, never, Scope.Scope> {
  const all: Array<Member> = []
  let failedStarts = 0
  const complaints: Array<string> = []
  const complain = (sentence: string) => {
    complaints.push(sentence)
    say(sentence)
  }
  const live = () => all.filter((member) => member.isRunning() && !member.ending && !member.frozen)

  const launch = () => {
    const name = `m${all.length + 1}`
    const child = spawn(
      process.execPath,
      ["--conditions=effect-events-source", join(import.meta.dirname, "member.ts")],
      {
        detached: true,
        stdio: ["ignore", "pipe", "pipe"],
        env: {
          ...process.env,
          NODE_OPTIONS: "--disable-warning=TimeoutNegativeWarning",
          SOAK: JSON.stringify(settings),
          MEMBER: name
        }
      }
    )
    const log = createWriteStream(join(folder, `${name}.log`))
    let running = true
    let readyMillis: number | undefined
    const exited = new Promise<string>((resolve) => {
      child.once("exit", (code, signal) => {
        running = false
        resolve(signal ?? String(code))
        if (member.ending) return
        if (readyMillis === undefined && ++failedStarts <= mostFailedStarts) {
          say(`${name} could not start (${signal ?? code}); another one tries in a second`)
          setTimeout(launch, 1_000).unref()
        } else complain(`${name} ended by itself with ${signal ?? code}`)
      })
    })
    dieWithParent(child.pid!, exited.then(() => {}))
    const member: Member = {
      name,
      readyMillis: () => readyMillis,
      isRunning: () => running,
      upsets: [],
      holes: [],
      signal: (signal) => running && child.kill(signal),
      exited,
      ending: false,
      frozen: false
    }
    const readLog = makeLogReader(member.holes)
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on("line", (line) => {
        log.write(`${line}\n`)
        if (line === "ready") {
          readyMillis = now()
          failedStarts = 0
        }
        readLog(line)
        if (upsetting.test(line)) member.upsets.push({ from: now(), to: now() })
      })
    }
    all.push(member)
    return member
  }

  const end = (member: Member, signal: "SIGTERM" | "SIGKILL") =>
    Effect.gen(function*() {
      member.ending = true
      if (signal === "SIGKILL") member.upsets.push({ from: now(), to: now() })
      member.signal(signal)
      const how = yield* Effect.timeoutOption(Effect.promise(() => member.exited), stopPatience)
      if (how._tag === "None") {
        complain(`${member.name} has not stopped for ${stopPatience} ms`)
        member.upsets.push({ from: now(), to: now() })
        member.signal("SIGKILL")
      }
    })

  const freeze = (member: Member, forMillis: number) =>
    Effect.gen(function*() {
      const from = now()
      member.frozen = true
      member.signal("SIGSTOP")
      yield* Effect.sleep(forMillis)
      member.signal("SIGCONT")
      member.frozen = false
      member.upsets.push({ from, to: now() })
    })

  const suffer = (accident: MemberAccident): Effect.Effect<string> =>
    Effect.gen(function*() {
      const { _tag } = accident
      if (_tag === "join") {
        if (live().length >= mostMembers) return "nobody joins: the group is full"
        return `${launch().name} joins`
      }
      const able = live()
      if (able.length <= fewestMembers) return `${launch().name} joins, for there are few`
      const member = able[Math.floor(accident.pick * able.length)]!
      switch (_tag) {
        case "leave":
          yield* Effect.forkDetach(end(member, "SIGTERM"))
          return `${member.name} leaves`
        case "kill":
          yield* end(member, "SIGKILL")
          return `${member.name} is killed`
        case "freeze":
        case "nap":
          yield* freeze(member, accident.forMillis)
          return `${member.name} was frozen for ${accident.forMillis} ms`
      }
    })

  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      for (const member of all) {
        member.ending = true
        member.signal("SIGKILL")
      }
    })
  )
  return {
    running: () => all.filter((member) => member.isRunning()).length,
    instances: () =>
      all.map(({ ending, holes, isRunning, name, readyMillis, upsets }) => ({
        name,
        readyMillis: readyMillis(),
        survived: isRunning() && !ending,
        upsets,
        holes
      })),
    start: Effect.sync(() => void launch()),
    suffer,
    allReady: () => all.every((member) => !member.isRunning() || member.ending || member.readyMillis() !== undefined),
    stopAll: Effect.suspend(() => {
      const running = all.filter((member) => member.isRunning() && !member.ending)
      return Effect.forEach(running, (member) => end(member, "SIGTERM"), { concurrency: "unbounded", discard: true })
    }),
    complaints
  }
})

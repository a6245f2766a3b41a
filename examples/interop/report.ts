/** Compares what became of the foreign records with what should have. */
import { DateTime, Effect } from "effect"
import { Event } from "effect-events"
import type { Foreign } from "./foreign.ts"
import type { OrderPlaced } from "./orders.ts"

export type Fate =
  | { readonly _tag: "Handled"; readonly event: Event.Event<OrderPlaced> }
  | { readonly _tag: "DeadLetter"; readonly event: Event.Event<string> }

const isExpected = ({ fate: expected }: Foreign, fate: Fate | undefined): boolean => {
  if (expected._tag === "Handled") {
    return fate?._tag === "Handled" && expected.id.test(fate.event.id) && expected.type === fate.event.type &&
      expected.source === fate.event.source && expected.key === fate.event.key &&
      (expected.time ?? DateTime.formatIso(fate.event.time)) === DateTime.formatIso(fate.event.time)
  }
  return fate?._tag === "DeadLetter" &&
    Object.entries(expected.headers).every(([name, value]) => value.test(Event.header(fate.event, name) ?? ""))
}

const columns = [4, 30, 12, 44, 26] as const

const row = (cells: ReadonlyArray<string>): string =>
  cells.map((cell, i) => cell.padEnd(columns[i] ?? 0)).join(" ").trimEnd()

const describe = (fate: Fate | undefined): ReadonlyArray<string> =>
  fate === undefined
    ? ["nothing"]
    : fate._tag === "Handled"
    ? ["handled", fate.event.id, fate.event.type || "-", fate.event.source || "-"]
    : ["dead letter", fate.event.id, fate.event.type || "-", fate.event.source || "-"]

const headersOf = (event: Event.Event<unknown>): Array<string> =>
  Object.keys(event.headers).sort().map((name) => `  ${name}: ${Event.header(event, name)}`)

/** Prints a table, and the dead letter with its headers; true if each record met its expected fate. */
export const report = (records: ReadonlyArray<Foreign>, fates: ReadonlyMap<string, Fate>): Effect.Effect<boolean> =>
  Effect.sync(() => {
    const rows = records.map((record) => {
      const fate = fates.get(record.orderId)
      const expected = isExpected(record, fate)
      return { expected, line: row([expected ? "ok" : "NOT", record.name, ...describe(fate)]) }
    })
    const deadLetters = [...fates.values()].flatMap(({ _tag, event }) =>
      _tag === "DeadLetter" ? ["", `In ${event.topic}: ${event.payload}`, ...headersOf(event)] : []
    )
    const lines = [row(["", "record", "fate", "id", "type", "source"]), ...rows.map(({ line }) => line), ...deadLetters]
    process.stdout.write(`${lines.join("\n")}\n`)
    return rows.every(({ expected }) => expected)
  })

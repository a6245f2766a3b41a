/**
 * How values travel to MySQL: bytes, lists, and more than a packet holds.
 *
 * Owns: what its driver and its protocol ask for.
 *
 * @internal
 */
import { uuidV7Unsafe } from "effect/crypto/SecureRandom"
import type { OutboxRow, RowSelection } from "../../../MessageStore.ts"
import { maxIdleMillis, piecesOf, type Query, selected } from "./dialect.ts"

/** Bytes of payloads that one insert carries: a server refuses packets above 16 MB by default, some above 4. */
const maxInsertBytes = 2 * 1024 * 1024

/** The driver knows bytes as `Buffer` only. */
export const buffer = (bytes: Uint8Array | null): Buffer | null =>
  bytes === null ? null : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

export const placeholders = (count: number, one = "?"): string => new Array(count).fill(one).join(", ")

/** A text for each number of values, built once. */
export const byCount = (text: (count: number) => string) => {
  const texts = new Map<number, string>()
  return (count: number): string => {
    let known = texts.get(count)
    if (known === undefined) texts.set(count, known = text(count))
    return known
  }
}

/** Splits rows further, where their payloads are large. */
const byBytes = <A extends OutboxRow>(rows: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> => {
  const chunks: Array<Array<A>> = [[]]
  let bytes = 0
  for (const row of rows) {
    const own = row.payload?.length ?? 0
    if (bytes > 0 && bytes + own > maxInsertBytes) {
      chunks.push([])
      bytes = 0
    }
    chunks.at(-1)!.push(row)
    bytes += own
  }
  return chunks
}

/** Tells the marks of one claim from those of others; 48 bits, which a double holds. */
export const claimNumber = (): number => Number.parseInt(uuidV7Unsafe().slice(-12), 16)

/** Rows of one insert each: of few sizes, and no larger than a packet. */
export const pieces = <A extends OutboxRow>(rows: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  byBytes(rows).flatMap((chunk) => piecesOf(chunk))

/** A row as the values of an insert. */
export const valuesOf = (row: OutboxRow): Array<unknown> => [
  row.part,
  row.messageKey,
  row.topic,
  row.key,
  JSON.stringify(row.headers),
  buffer(row.payload)
]

/** Whether a parked row is selected; for `selectedTwice`. */
export const isSelected = `(? is null or message_id = unhex(replace(?, '-', '')))
and (? is null or topic = ?) and (? is null or \`key\` = ?)`

/** The rows of a table that a JSON list names: `[[part, id, reason?], …]`. */
export const listed = (from: string) =>
  `json_table(?, '$[*]' columns (
part int path '$[0]', id bigint unsigned path '$[1]', reason longtext path '$[2]'
)) as d straight_join ${from} as o on o.part = d.part and o.id = d.id`

/** What the statement before it has changed. Only `insert ignore` counts the same under every setting of the driver. */
export const changed: Query = { sql: "select row_count() as count", params: [] }

/** A selection as parameters of `isSelected`, which asks for each twice: whether it is given, and for it. */
export const selectedTwice = (selection: RowSelection): Array<unknown> =>
  selected(selection).flatMap((value) => [value, value])

/** Locks rows by their numbers, in ascending order. */
export const lockRows = (table: string, ids: ReadonlyArray<number>): Query => ({
  sql: `select id from ${table} where id in (${placeholders(ids.length)}) order by id for update`,
  params: ids
})

/** How long the connection may stand still by the program's own setting, while a transaction has another. */
export const patience = "@effect_events_wait_timeout"
/** What a transaction leaves behind it. */
export const restore = `SET autocommit = 1, SESSION wait_timeout = ${patience}`
/** The server ends the connection, and its transaction, when it has stood still for so long. */
export const loseAfter = (millis: number): Query => ({
  sql: "set session wait_timeout = least(@@session.wait_timeout, cast(? as unsigned))",
  params: [String(Math.ceil(Math.min(millis, maxIdleMillis) / 1_000))]
})

/**
 * All SQL for SQLite (3.42 and later).
 *
 * Invariant: the members stand in the order of `dialect.ts`. Insight: one
 * process writes at a time, so a single statement is its own fence and no row
 * lock is needed; a counter is, since an id that is made from those in the
 * table comes again once they are gone, and a late delete by id removes a row
 * that was never sent.
 *
 * Ids, keys and pairs travel as one JSON parameter; rows of the outbox as
 * multi-row `VALUES` in few sizes, for JSON holds no bytes. Times are
 * milliseconds since 1970.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type { Lease, OutboxRow } from "../../../MessageStore.ts"
import {
  dateOf,
  type Dialect,
  idOf,
  type Location,
  pairs,
  piecesOf,
  type Program,
  pruneChunk,
  type Query,
  type Row,
  scheduledOf,
  selected,
  single,
  tablesOf,
  textualRow,
  uuidOf
} from "./dialect.ts"
import { migrations, now } from "./sqliteTables.ts"

/** A row as the values of an insert. */
const valuesOf = (row: OutboxRow): Array<unknown> => [
  row.part,
  row.messageKey,
  row.topic,
  row.key,
  JSON.stringify(row.headers),
  row.payload
]

const lengthOf = (rows: ReadonlyArray<Row>): number => rows.length

/** @internal */
export const sqlite = ({ tablePrefix }: Location): Dialect => {
  const table = (name: string) => `"${tablePrefix}${name}"`
  const tables = tablesOf(table)
  const { consumer, inbox, instance, lease, outbox, parked, scheduled, sent } = tables
  const counter = table("outbox_counter")
  const tableNames = [...Object.values(tablesOf((name) => tablePrefix + name)), `${tablePrefix}outbox_counter`]

  /** Of statements whose text depends on how many rows they take. */
  const textOf = (make: (rows: number) => string) => {
    const texts = new Map<number, string>()
    return (rows: number): string => {
      const text = texts.get(rows) ?? make(rows)
      texts.set(rows, text)
      return text
    }
  }

  const appendText = textOf((rows) =>
    `insert into ${outbox} (part, id, message_id, topic, key, headers, payload)
select column1, last + column2, unhex(column3, '-'), column4, column5, column6, column7
from ${counter}, (values ${Array.from({ length: rows }, (_, i) => `(?, ${i + 1}, ?, ?, ?, ?, ?)`).join(", ")})`
  )

  /** The ids that were just given are taken. */
  const count = (rows: number): Query => ({ sql: `update ${counter} set last = last + ?`, params: [rows] })

  const scheduleText = textOf((rows) =>
    `insert into ${scheduled} (part, message_id, topic, key, headers, payload, due_at) values ` +
    new Array(rows).fill("(?, unhex(?, '-'), ?, ?, ?, ?, ?)").join(", ")
  )

  const readText = `select part, id, hex(message_id) as message_id, topic, key, headers, payload from ${outbox}
where part in (select value from json_each(?)) order by part, id limit ?`

  const deleteText = `delete from ${outbox} where (part, id) in (
  select d.value ->> 0, d.value ->> 1 from json_each(?) as d
  where d.value ->> 0 in (
    select l.part from json_each(?) as w
    join ${lease} as l on l.part = w.value ->> 0 and l.epoch = w.value ->> 1 and l.owner = ?
  )
) returning 1`

  const columns = "part, id, message_id, topic, key, headers, payload, created_at"

  const copyText = (to: string, more: string, values: string) =>
    `insert into ${to} (${columns}${more})
select o.part, o.id, o.message_id, o.topic, o.key, o.headers, o.payload, o.created_at${values}
from json_each(?) as d
join ${outbox} as o on o.id = d.value ->> 1 and o.part = d.value ->> 0
where o.part in (
  select l.part from json_each(?) as w
  join ${lease} as l on l.part = w.value ->> 0 and l.epoch = w.value ->> 1 and l.owner = ?
)
returning part, id`
  const parkText = copyText(parked, ", reason", ", d.value ->> 2")
  const keepText = copyText(sent, "", "")

  const deleteCopiedText = `delete from ${outbox} where (part, id) in (
  select value ->> 0, value ->> 1 from json_each(?)
)`

  /** Moves rows of parts that the owner holds out of the outbox. */
  const moved = (text: string, owner: string, leases: ReadonlyArray<Lease>, rows: string): Program<number> => (run) =>
    run.together(Effect.gen(function*() {
      const copied = yield* run.rows({
        sql: text,
        params: [rows, pairs(leases.map((held) => [held.part, held.epoch])), owner]
      })
      const ids = pairs(copied.map(({ id, part }) => [Number(part), BigInt(id as number | bigint)]))
      yield* run.rows({ sql: deleteCopiedText, params: [ids] })
      return copied.length
    }))

  const parkedKeysText = `select p.part, p.topic, p.key, min(p.id) as id from json_each(?) as w
join ${parked} as p on p.part = w.value ->> 0 and p.topic = w.value ->> 1 and p.key = w.value ->> 2
group by p.part, p.topic, p.key`

  const isSelected =
    `(?1 is null or message_id = unhex(?1, '-')) and (?2 is null or topic = ?2) and (?3 is null or key = ?3)`

  const listText = (from: string, more: string) =>
    `select part, id, hex(message_id) as message_id, topic, key, headers, payload, ${more} from ${from}
where ${isSelected} and (part, id) > (?4, ?5) order by part, id limit ?6`
  const listParkedText = listText(parked, "reason, parked_at")
  const listSentText = listText(sent, "sent_at")

  /** Moves parked rows back; their ids are their own. */
  const back = (which: string, params: ReadonlyArray<unknown>): Program<number> => (run) =>
    run.together(Effect.gen(function*() {
      const moved = yield* run.rows({
        sql:
          `insert into ${outbox} (${columns}) select ${columns} from ${parked} as p where ${which} returning part, id`,
        params
      })
      if (moved.length === 0) return 0
      yield* run.rows({
        sql: `delete from ${parked} where (part, id) in (select value ->> 0, value ->> 1 from json_each(?))`,
        params: [pairs(moved.map(({ id, part }) => [Number(part), BigInt(id as number | bigint)]))]
      })
      return moved.length
    }))

  const announceText = `insert into ${instance} (id, expires_at) values (?, ${now} + ?)
on conflict (id) do update set expires_at = excluded.expires_at`

  const takeText = `update ${lease}
set epoch = case when owner = ? then epoch else epoch + 1 end, owner = ?, expires_at = ${now} + ?
where part in (select value from json_each(?)) and (owner = ? or expires_at < ${now})`

  const claimText = `insert into ${inbox} (consumer, message_key)
select ?, unhex(value, '-') from json_each(?) where true
on conflict do nothing returning hex(message_key) as message_key`

  const prune = (from: string, key: string, time: string) =>
    `delete from ${from} where (${key}) in (
  select ${key} from ${from} where ${time} <= ${now} - ? order by ${time} limit ${pruneChunk}
) returning 1`
  const pruneMarksText = prune(inbox, "consumer, message_key", "processed_at")
  const pruneSentText = prune(sent, "part, id", "sent_at")

  return {
    name: "sqlite",

    begin: "BEGIN IMMEDIATE",

    guard: undefined,

    synchronous: true,

    prepare: [],

    migrations: migrations(tables, counter, table),

    migrationsTable: `${tablePrefix}migrations`,

    migrationLock: undefined,

    tableNames,

    findTables: {
      sql: `select name, 'main' as home from sqlite_master
where type = 'table' and name in (select value from json_each(?))`,
      params: [JSON.stringify(tableNames)]
    },

    appendRows: (rows) =>
      piecesOf(rows).flatMap((piece) => [
        { sql: appendText(piece.length), params: piece.flatMap(valuesOf) },
        count(piece.length)
      ]),

    lockKeys: () => undefined,

    readRows: (of, limit) => ({ rows }) => rows({ sql: readText, params: [JSON.stringify(of), limit] }),

    storedRow: textualRow,

    deleteRows: (owner, leases, rows) =>
      single({
        sql: deleteText,
        params: [
          pairs(rows.map((row) => [row.part, row.id])),
          pairs(leases.map((held) => [held.part, held.epoch])),
          owner
        ]
      }, lengthOf),

    parkRows: (owner, leases, rows) =>
      moved(
        parkText,
        owner,
        leases,
        `[${rows.map(({ id, part, reason }) => `[${part},${id},${JSON.stringify(reason)}]`).join(",")}]`
      ),

    parkedKeys: (of) =>
      single({
        sql: parkedKeysText,
        params: [JSON.stringify(of.map(({ key, part, topic }) => [part, topic, key]))]
      }, (rows) => rows),

    listParked: (selection, after, limit) => ({
      sql: listParkedText,
      params: [...selected(selection), after.part, after.id, limit]
    }),

    parkedRow: (row) => ({
      ...textualRow(row),
      reason: row.reason as string | null,
      parkedAt: dateOf(row.parked_at)
    }),

    releaseParked: (selection) => back(`reason is not null and ${isSelected}`, selected(selection)),

    freeParked: back(
      `reason is null and not exists (
  select 1 from ${parked} as b
  where b.part = p.part and b.topic = p.topic and b.key = p.key and b.id < p.id and b.reason is not null
)`,
      []
    ),

    editParked: (messageKey, payload) =>
      single({
        sql: `update ${parked} set payload = ?2 where message_id = unhex(?1, '-') returning 1`,
        params: [messageKey, payload]
      }, lengthOf),

    dropParked: (selection) =>
      single({ sql: `delete from ${parked} where ${isSelected} returning 1`, params: selected(selection) }, lengthOf),

    scheduleRows: (rows) =>
      piecesOf(rows).map((piece) => ({
        sql: scheduleText(piece.length),
        params: piece.flatMap((row) => [...valuesOf(row), Math.ceil(row.dueMillis)])
      })),

    nextDue: { sql: `select min(due_at) - ${now} as millis from ${scheduled}`, params: [] },

    moveDue: (limit) => (run) =>
      run.together(Effect.gen(function*() {
        const found = yield* run.rows({
          sql: `select id from ${scheduled} where due_at <= ${now} order by due_at, id limit ?`,
          params: [limit]
        })
        if (found.length === 0) return 0
        const params = [`[${found.map(({ id }) => String(id)).join(",")}]`]
        yield* run.rows({
          sql: `insert into ${outbox} (part, id, message_id, topic, key, headers, payload)
select part, last + row_number() over (order by due_at, id), message_id, topic, key, headers, payload
from ${counter}, ${scheduled} where id in (select value from json_each(?))`,
          params
        })
        yield* run.rows(count(found.length))
        yield* run.rows({ sql: `delete from ${scheduled} where id in (select value from json_each(?))`, params })
        return found.length
      })),

    listScheduled: (topic, limit) => ({
      sql: `select 0 as id, part, hex(message_id) as message_id, topic, key, headers, payload, due_at
from ${scheduled} as s where (?1 is null or topic = ?1) order by s.due_at, s.id limit ?2`,
      params: [topic, limit]
    }),

    scheduledRow: (row) => scheduledOf(textualRow(row), row),

    cancelScheduled: (messageKey) =>
      single(
        { sql: `delete from ${scheduled} where message_id = unhex(?, '-') returning 1`, params: [messageKey] },
        lengthOf
      ),

    keepRows: (owner, leases, rows) => moved(keepText, owner, leases, pairs(rows.map(({ id, part }) => [part, id]))),

    listSent: (selection, after, limit) => ({
      sql: listSentText,
      params: [...selected(selection), after.part, after.id, limit]
    }),

    sentRow: (row) => ({ ...textualRow(row), sentAt: dateOf(row.sent_at) }),

    pruneSent: (retentionMillis) => single({ sql: pruneSentText, params: [retentionMillis] }, lengthOf),

    countRows: {
      sql: `select count(*) as waiting, ${now} - min(created_at) as oldest_millis,
  (select count(*) from ${parked}) as parked, (select count(*) from ${scheduled}) as scheduled
from ${outbox}`,
      params: []
    },

    announceOwner: (owner, ttlMillis) => ({ sql: announceText, params: [owner, ttlMillis] }),

    forgetDeadOwners: { sql: `delete from ${instance} where expires_at < ${now} - 3600000`, params: [] },

    countOwners: { sql: `select count(*) as count from ${instance} where expires_at > ${now}`, params: [] },

    freeParts: { sql: `select part from ${lease} where expires_at < ${now} order by part`, params: [] },

    takeParts: (owner, ttlMillis, wanted) => ({
      sql: takeText,
      params: [owner, owner, ttlMillis, JSON.stringify(wanted), owner]
    }),

    ownedParts: (owner) => ({
      sql: `select part, epoch from ${lease} where owner = ? and expires_at > ${now} order by part`,
      params: [owner]
    }),

    partOwners: {
      sql: `select part, case when expires_at > ${now} then owner end as owner, epoch from ${lease} order by part`,
      params: []
    },

    releaseParts: (owner, of) => ({
      sql: `update ${lease} set owner = null, expires_at = 0
where owner = ? and part in (select value from json_each(?))`,
      params: [owner, JSON.stringify(of)]
    }),

    forgetOwner: (owner) => ({ sql: `delete from ${instance} where id = ?`, params: [owner] }),

    findConsumer: (group, handler) => ({
      sql: `select id from ${consumer} where consumer_group = ? and handler = ?`,
      params: [group, handler]
    }),

    registerConsumer: (group, handler) =>
      single({
        sql: `insert into ${consumer} (consumer_group, handler) values (?, ?)
on conflict (consumer_group, handler) do update set handler = excluded.handler returning id`,
        params: [group, handler]
      }, idOf),

    claimKeys: (of, sortedKeys) =>
      single(
        { sql: claimText, params: [of, JSON.stringify(sortedKeys)] },
        (rows) => rows.map((row) => uuidOf(row.message_key))
      ),

    pruneMarks: (retentionMillis) => single({ sql: pruneMarksText, params: [retentionMillis] }, lengthOf)
  }
}

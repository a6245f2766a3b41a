/**
 * All SQL for SQLite (3.42 and later).
 *
 * Invariant: the members stand in the order of `dialect.ts`. Insight: one
 * process writes at a time, so a single statement is its own fence and no row
 * lock is needed; `AUTOINCREMENT` is, since without it ids start again once
 * the table is empty, and a late delete by id removes a row that was never
 * sent.
 *
 * Ids, keys and pairs travel as one JSON parameter; rows of the outbox as
 * multi-row `VALUES` in few sizes, for JSON holds no bytes. Times are
 * milliseconds since 1970.
 *
 * @internal
 */
import { parts } from "../../../MessageStore.ts"
import { type Dialect, idOf, type Location, pairs, piecesOf, pruneChunk, type Row, single, uuidOf } from "./dialect.ts"

const now = "cast(unixepoch('subsec') * 1000 as integer)"

const lengthOf = (rows: ReadonlyArray<Row>): number => rows.length

/** @internal */
export const sqlite = ({ tablePrefix }: Location): Dialect => {
  const table = (name: string) => `"${tablePrefix}${name}"`
  const outbox = table("outbox")
  const lease = table("lease")
  const instance = table("instance")
  const inbox = table("inbox")
  const consumer = table("consumer")
  const tableNames = ["outbox", "lease", "instance", "inbox", "consumer"].map((name) => tablePrefix + name)

  const appendTexts = new Map<number, string>()
  const appendText = (rows: number): string => {
    let text = appendTexts.get(rows)
    if (text === undefined) {
      text = `insert into ${outbox} (part, message_id, topic, key, headers, payload) values ` +
        new Array(rows).fill("(?, unhex(?, '-'), ?, ?, ?, ?)").join(", ")
      appendTexts.set(rows, text)
    }
    return text
  }

  const readText = `select part, id, hex(message_id) as message_id, topic, key, headers, payload from ${outbox}
where part in (select value from json_each(?)) order by part, id limit ?`

  const deleteText = `delete from ${outbox} where id in (
  select o.id from json_each(?) as d
  join ${outbox} as o on o.id = d.value ->> 1 and o.part = d.value ->> 0
  where o.part in (
    select l.part from json_each(?) as w
    join ${lease} as l on l.part = w.value ->> 0 and l.epoch = w.value ->> 1 and l.owner = ?
  )
) returning 1`

  const announceText = `insert into ${instance} (id, expires_at) values (?, ${now} + ?)
on conflict (id) do update set expires_at = excluded.expires_at`

  const takeText = `update ${lease}
set epoch = case when owner = ? then epoch else epoch + 1 end, owner = ?, expires_at = ${now} + ?
where part in (select value from json_each(?)) and (owner = ? or expires_at < ${now})`

  const claimText = `insert into ${inbox} (consumer, message_key)
select ?, unhex(value, '-') from json_each(?) where true
on conflict do nothing returning hex(message_key) as message_key`

  const pruneText = `delete from ${inbox} where (consumer, message_key) in (
  select consumer, message_key from ${inbox} where processed_at <= ${now} - ? order by processed_at limit ${pruneChunk}
) returning 1`

  return {
    name: "sqlite",

    begin: "BEGIN IMMEDIATE",

    guard: undefined,

    synchronous: true,

    prepare: [],

    migrations: [{
      id: 1,
      name: "create_tables",
      statements: [
        `create table if not exists ${outbox} (
  id integer primary key autoincrement,
  part integer not null,
  message_id blob not null check (length(message_id) = 16),
  topic text not null,
  key text,
  headers text not null,
  payload blob,
  created_at integer not null default (${now})
) strict`,
        `create index if not exists ${table("outbox_part")} on ${outbox} (part)`,
        `create table if not exists ${lease} (
  part integer primary key,
  owner text,
  epoch integer not null default 0,
  expires_at integer not null default 0
) strict`,
        `with recursive n(part) as (select 0 union all select part + 1 from n where part < ${parts - 1})
insert or ignore into ${lease} (part) select part from n`,
        `create table if not exists ${instance} (
  id text primary key,
  expires_at integer not null
) strict, without rowid`,
        `create table if not exists ${consumer} (
  id integer primary key,
  consumer_group text not null,
  handler text not null,
  unique (consumer_group, handler)
) strict`,
        `create table if not exists ${inbox} (
  consumer integer not null,
  message_key blob not null check (length(message_key) = 16),
  processed_at integer not null default (${now}),
  primary key (consumer, message_key)
) strict, without rowid`,
        `create index if not exists ${table("inbox_processed_at")} on ${inbox} (processed_at)`
      ]
    }],

    migrationsTable: `${tablePrefix}migrations`,

    migrationLock: undefined,

    tableNames,

    findTables: {
      sql: `select name, 'main' as home from sqlite_master
where type = 'table' and name in (select value from json_each(?))`,
      params: [JSON.stringify(tableNames)]
    },

    appendRows: (rows) =>
      piecesOf(rows).map((piece) => ({
        sql: appendText(piece.length),
        params: piece.flatMap((row) => [
          row.part,
          row.messageKey,
          row.topic,
          row.key,
          JSON.stringify(row.headers),
          row.payload
        ])
      })),

    readRows: (of, limit) => ({ sql: readText, params: [JSON.stringify(of), limit] }),

    storedRow: (row: Row) => ({
      part: Number(row.part),
      id: BigInt(row.id as number | bigint),
      messageKey: uuidOf(row.message_id),
      topic: row.topic as string,
      key: row.key as string | null,
      headers: JSON.parse(row.headers as string) as { readonly [name: string]: string },
      payload: row.payload as Uint8Array | null
    }),

    deleteRows: (owner, leases, rows) =>
      single({
        sql: deleteText,
        params: [
          pairs(rows.map((row) => [row.part, row.id])),
          pairs(leases.map((held) => [held.part, held.epoch])),
          owner
        ]
      }, lengthOf),

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

    pruneMarks: (retentionMillis) => single({ sql: pruneText, params: [retentionMillis] }, lengthOf)
  }
}

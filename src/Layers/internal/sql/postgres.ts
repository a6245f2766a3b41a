/**
 * All SQL for Postgres.
 *
 * Invariant: the members stand in the order of `dialect.ts`. Insight: lists
 * travel as one array parameter each (`unnest`), so every statement has one
 * text for any number of rows, and a null beside bytes does not make another
 * prepared statement, as it does in multi-row `VALUES`. On `@effect/sql-pg`,
 * which sends arrays in binary, both are equally fast.
 *
 * Time is `clock_timestamp()`: `now()` is the transaction's start and may be
 * old. Only what prunes uses `statement_timestamp()`, which is stable and can
 * bound an index scan.
 *
 * @internal
 */
import type { Lease, OutboxRow, StoredRow } from "../../../MessageStore.ts"
import {
  countOf,
  dateOf,
  type Dialect,
  idOf,
  type Location,
  lockNumbers,
  maxIdleMillis,
  maxRows,
  pruneChunk,
  type Row,
  scheduledOf,
  selected,
  single,
  tablesOf
} from "./dialect.ts"
import { migrations } from "./postgresTables.ts"

/**
 * An array parameter. A driver takes the element type from the values, so an
 * array of nothing but nulls is sent as text, whose type the statement says.
 */
const nullable = <A>(values: ReadonlyArray<A | null>): ReadonlyArray<A | null> | string =>
  values.every((value) => value === null) ? `{${values.map(() => "NULL").join(",")}}` : values

const storedRow = (row: Row): StoredRow => ({
  part: Number(row.part),
  id: BigInt(row.id as number | bigint),
  messageKey: row.message_id as string,
  topic: row.topic as string,
  key: row.key as string | null,
  headers: row.headers as { readonly [name: string]: string },
  payload: row.payload as Uint8Array | null
})

/** As many rows as one insert carries. */
const chunksOf = <A>(rows: ReadonlyArray<A>): Array<ReadonlyArray<A>> => {
  const chunks: Array<ReadonlyArray<A>> = []
  for (let start = 0; start < rows.length; start += maxRows) chunks.push(rows.slice(start, start + maxRows))
  return chunks
}

/** Rows as the columns of \`unnest\`. */
const columnsOf = (rows: ReadonlyArray<OutboxRow>): Array<unknown> => [
  rows.map((row) => row.part),
  rows.map((row) => row.messageKey),
  rows.map((row) => row.topic),
  nullable(rows.map((row) => row.key)),
  rows.map((row) => JSON.stringify(row.headers)),
  nullable(rows.map((row) => row.payload))
]

const idleTimeout = "'idle_in_transaction_session_timeout'"

/** @internal */
export const postgres = ({ schema, tablePrefix }: Location): Dialect => {
  const table = (name: string) => (schema === undefined ? "" : `"${schema}".`) + `"${tablePrefix}${name}"`
  const tables = tablesOf(table)
  const { consumer, inbox, instance, lease, outbox, parked, scheduled, sent } = tables
  const tableNames = Object.values(tables)
  const later = (millis: string) => `clock_timestamp() + ${millis}::float8 * interval '1 millisecond'`

  const appendText = `insert into ${outbox} (part, message_id, topic, key, headers, payload)
select part, message_id, topic, key, headers::json, payload
from unnest($1::smallint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[])
  with ordinality as u(part, message_id, topic, key, headers, payload, n)
order by n`

  const readText = `select part, id, message_id, topic, key, headers, payload from ${outbox}
where part = any($1::smallint[]) order by part, id limit $2`

  /** Takes rows out of the outbox, of parts that the owner holds under these epochs, and moves them `to` another table. */
  const removal = (to?: string, reason = "") =>
    `with held as (
  select part from ${lease} as l join unnest($1::smallint[], $2::bigint[]) as w(part, epoch) using (part, epoch)
  where l.owner = $3 order by part for share of l
), gone as (
  delete from ${outbox} as o
  using held, unnest($4::smallint[], $5::bigint[]${reason && ", $6::text[]"}) as d(part, id${reason})
  where held.part = d.part and o.part = d.part and o.id = d.id returning o.*${reason && ", d.reason"}
)${
      to === undefined ? "" : `, moved as (
  insert into ${to} (part, id, message_id, topic, key, headers, payload, created_at${reason})
  select part, id, message_id, topic, key, headers, payload, created_at${reason} from gone
)`
    }
select count(*)::int as count from gone`

  const deleteText = removal()
  const parkText = removal(parked, ", reason")
  const keepText = removal(sent)

  const removed = (
    text: string,
    owner: string,
    leases: ReadonlyArray<Lease>,
    rows: ReadonlyArray<{ readonly part: number; readonly id: bigint }>,
    ...more: ReadonlyArray<unknown>
  ) =>
    single({
      sql: text,
      params: [
        leases.map((held) => held.part),
        leases.map((held) => held.epoch),
        owner,
        rows.map((row) => row.part),
        rows.map((row) => row.id),
        ...more
      ]
    }, countOf)

  const parkedKeysText = `select part, topic, key, min(id) as id from ${parked}
join unnest($1::smallint[], $2::text[], $3::text[]) as w(part, topic, key) using (part, topic, key)
group by part, topic, key`

  const isSelected =
    `($1::uuid is null or message_id = $1) and ($2::text is null or topic = $2) and ($3::text is null or key = $3)`

  const listText = (from: string, more: string) =>
    `select part, id, message_id, topic, key, headers, payload, ${more} from ${from}
where ${isSelected} and (part, id) > ($4, $5) order by part, id limit $6`
  const listParkedText = listText(parked, "reason, parked_at")
  const listSentText = listText(sent, "sent_at")

  /** Moves parked rows back; their ids are their own. */
  const back = (which: string) =>
    `with gone as (
  delete from ${parked} as p where ${which} returning p.*
), moved as (
  insert into ${outbox} (part, id, message_id, topic, key, headers, payload, created_at) overriding system value
  select part, id, message_id, topic, key, headers, payload, created_at from gone returning 1
)
select count(*)::int as count from moved`

  const releaseParkedText = back(`reason is not null and ${isSelected}`)

  const freeParkedText = back(`reason is null and not exists (
    select 1 from ${parked} as b
    where b.part = p.part and b.topic = p.topic and b.key = p.key and b.id < p.id and b.reason is not null
  )`)

  const dropParkedText = `with gone as (delete from ${parked} where ${isSelected} returning 1)
select count(*)::int as count from gone`

  const editParkedText = `with edited as (update ${parked} set payload = $2 where message_id = $1 returning 1)
select count(*)::int as count from edited`

  const scheduleText = `insert into ${scheduled} (part, message_id, topic, key, headers, payload, due_at)
select part, message_id, topic, key, headers::json, payload, to_timestamp(due_millis / 1000)
from unnest($1::smallint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::float8[])
  with ordinality as u(part, message_id, topic, key, headers, payload, due_millis, n)
order by n`

  const moveText = `with due as (
  select id from ${scheduled} where due_at <= clock_timestamp() order by due_at, id limit $1 for update
), gone as (
  delete from ${scheduled} as s using due where s.id = due.id returning s.*
), moved as (
  insert into ${outbox} (part, message_id, topic, key, headers, payload)
  select part, message_id, topic, key, headers, payload from gone order by due_at, id returning 1
)
select count(*)::int as count from moved`

  const listScheduledText = `select 0::smallint as id, part, message_id, topic, key, headers, payload,
  (extract(epoch from due_at) * 1000)::float8 as due_at
from ${scheduled} where ($1::text is null or topic = $1) order by due_at, ${scheduled}.id limit $2`

  const announceText = `insert into ${instance} (id, expires_at) values ($1, ${later("$2")})
on conflict (id) do update set expires_at = excluded.expires_at`

  const takeText = `with wanted as (
  select part from ${lease}
  where part = any($3::smallint[]) and (owner = $1 or expires_at < clock_timestamp())
  order by part for update
)
update ${lease} as l
set epoch = case when l.owner = $1 then l.epoch else l.epoch + 1 end, owner = $1, expires_at = ${later("$2")}
from wanted where l.part = wanted.part`

  const ownedText = `select part, epoch from ${lease} where owner = $1 and expires_at > clock_timestamp() order by part`

  const releaseText = `with mine as (
  select part from ${lease} where part = any($2::smallint[]) and owner = $1 order by part for update
)
update ${lease} as l set owner = null, expires_at = '-infinity' from mine where l.part = mine.part`

  const claimFrom = (source: string) =>
    `insert into ${inbox} (consumer, message_key)
select $1, message_key from unnest($2::uuid[]) as u(message_key)${source}
on conflict do nothing returning message_key`
  const claimText = claimFrom("")
  // For this transaction, and without a statement of its own.
  const claimBoundText = claimFrom(`,
  set_config(${idleTimeout}, case current_setting(${idleTimeout}) when '0' then $3::text
    else current_setting(${idleTimeout}) end, true)`)

  const prune = (from: string, time: string) =>
    `with gone as (
  delete from ${from} where ctid = any(array(
    select ctid from ${from}
    where ${time} <= statement_timestamp() - $1::float8 * interval '1 millisecond'
    order by ${time} limit ${pruneChunk}
  )) returning 1
)
select count(*)::int as count from gone`
  const pruneMarksText = prune(inbox, "processed_at")
  const pruneSentText = prune(sent, "sent_at")

  return {
    name: "postgres",

    begin: "BEGIN ISOLATION LEVEL READ COMMITTED",

    guard: undefined,

    synchronous: false,

    // "create schema if not exists" asks for rights on the database even where the schema exists
    prepare: schema === undefined ? [] : [
      `do $$ begin
  if to_regnamespace('"${schema}"') is null then
    create schema "${schema}";
  end if;
exception when duplicate_schema or unique_violation then null;
end $$`
    ],

    migrations: migrations(tables, tablePrefix),

    migrationsTable: (schema === undefined ? "" : `${schema}.`) + `${tablePrefix}migrations`,

    migrationLock: undefined,

    tableNames,

    findTables: {
      sql: `select t.name, n.nspname::text as home from unnest($1::text[]) as t(name)
join pg_catalog.pg_class c on c.oid = to_regclass(t.name)
join pg_catalog.pg_namespace n on n.oid = c.relnamespace`,
      params: [tableNames]
    },

    appendRows: (rows) => chunksOf(rows).map((chunk) => ({ sql: appendText, params: columnsOf(chunk) })),

    // Advisory locks are the database's: the table's number keeps those of other prefixes and schemas apart.
    lockKeys: (keys) => ({
      sql: `select pg_advisory_xact_lock('${outbox}'::regclass::int, n) from unnest($1::int[]) as n`,
      params: [lockNumbers(keys, 2n ** 31n).map(Number)]
    }),

    readRows: (of, limit) => ({ rows }) => rows({ sql: readText, params: [of, limit] }),

    storedRow,

    deleteRows: (owner, leases, rows) => removed(deleteText, owner, leases, rows),

    parkRows: (owner, leases, rows) => removed(parkText, owner, leases, rows, nullable(rows.map((row) => row.reason))),

    parkedKeys: (of) =>
      single({
        sql: parkedKeysText,
        params: [of.map(({ part }) => part), of.map(({ topic }) => topic), of.map(({ key }) => key)]
      }, (rows) => rows),

    listParked: (selection, after, limit) => ({
      sql: listParkedText,
      params: [...selected(selection), after.part, after.id, limit]
    }),

    parkedRow: (row) => ({
      ...storedRow(row),
      reason: row.reason as string | null,
      parkedAt: dateOf(row.parked_at)
    }),

    releaseParked: (selection) => single({ sql: releaseParkedText, params: selected(selection) }, countOf),

    freeParked: single({ sql: freeParkedText, params: [] }, countOf),

    editParked: (messageKey, payload) => single({ sql: editParkedText, params: [messageKey, payload] }, countOf),

    dropParked: (selection) => single({ sql: dropParkedText, params: selected(selection) }, countOf),

    scheduleRows: (rows) =>
      chunksOf(rows).map((chunk) => ({
        sql: scheduleText,
        params: [...columnsOf(chunk), chunk.map(({ dueMillis }) => dueMillis)]
      })),

    nextDue: {
      sql: `select (extract(epoch from min(due_at) - clock_timestamp()) * 1000)::float8 as millis from ${scheduled}`,
      params: []
    },

    moveDue: (limit) => single({ sql: moveText, params: [limit] }, countOf),

    listScheduled: (topic, limit) => ({ sql: listScheduledText, params: [topic, limit] }),

    scheduledRow: (row) => scheduledOf(storedRow(row), row),

    cancelScheduled: (messageKey) =>
      single({
        sql: `with gone as (delete from ${scheduled} where message_id = $1 returning 1)
select count(*)::int as count from gone`,
        params: [messageKey]
      }, countOf),

    keepRows: (owner, leases, rows) => removed(keepText, owner, leases, rows),

    listSent: (selection, after, limit) => ({
      sql: listSentText,
      params: [...selected(selection), after.part, after.id, limit]
    }),

    sentRow: (row) => ({ ...storedRow(row), sentAt: dateOf(row.sent_at) }),

    pruneSent: (retentionMillis) => single({ sql: pruneSentText, params: [retentionMillis] }, countOf),

    countRows: {
      sql: `select count(*) as waiting, extract(epoch from clock_timestamp() - min(created_at)) * 1000 as oldest_millis,
  (select count(*) from ${parked}) as parked, (select count(*) from ${scheduled}) as scheduled
from ${outbox}`,
      params: []
    },

    announceOwner: (owner, ttlMillis) => ({ sql: announceText, params: [owner, ttlMillis] }),

    forgetDeadOwners: {
      sql: `delete from ${instance} where expires_at < clock_timestamp() - interval '1 hour'`,
      params: []
    },

    countOwners: {
      sql: `select count(*)::int as count from ${instance} where expires_at > clock_timestamp()`,
      params: []
    },

    freeParts: { sql: `select part from ${lease} where expires_at < clock_timestamp() order by part`, params: [] },

    takeParts: (owner, ttlMillis, wanted) => ({ sql: takeText, params: [owner, ttlMillis, wanted] }),

    ownedParts: (owner) => ({ sql: ownedText, params: [owner] }),

    partOwners: {
      sql:
        `select part, case when expires_at > clock_timestamp() then owner end as owner, epoch from ${lease} order by part`,
      params: []
    },

    releaseParts: (owner, of) => ({ sql: releaseText, params: [owner, of] }),

    forgetOwner: (owner) => ({ sql: `delete from ${instance} where id = $1`, params: [owner] }),

    findConsumer: (group, handler) => ({
      sql: `select id from ${consumer} where consumer_group = $1 and handler = $2`,
      params: [group, handler]
    }),

    registerConsumer: (group, handler) =>
      single({
        sql: `insert into ${consumer} (consumer_group, handler) values ($1, $2)
on conflict (consumer_group, handler) do update set handler = excluded.handler returning id`,
        params: [group, handler]
      }, idOf),

    claimKeys: (of, sortedKeys, idleMillis) =>
      single(
        idleMillis === undefined || idleMillis > maxIdleMillis
          ? { sql: claimText, params: [of, sortedKeys] }
          : { sql: claimBoundText, params: [of, sortedKeys, String(idleMillis)] },
        (rows) => rows.map((row) => row.message_key as string)
      ),

    pruneMarks: (retentionMillis) => single({ sql: pruneMarksText, params: [retentionMillis] }, countOf)
  }
}

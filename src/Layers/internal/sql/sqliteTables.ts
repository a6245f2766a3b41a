/**
 * The tables on SQLite, step by step.
 *
 * Owns: their columns and indexes.
 *
 * @internal
 */
import { parts } from "../../../MessageStore.ts"
import type { MigrationScript, Tables } from "./dialect.ts"

/** Milliseconds since 1970. */
export const now = "cast(unixepoch('subsec') * 1000 as integer)"

/** The schema, as `Dialect.migrations` has it. `table` quotes the name of an index. */
export const migrations = (
  { consumer, inbox, instance, lease, outbox, parked, scheduled, sent }: Tables,
  counter: string,
  table: (name: string) => string
): ReadonlyArray<MigrationScript> => [{
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
}, {
  id: 2,
  name: "create_parked",
  statements: [
    `create table if not exists ${parked} (
  part integer not null,
  id integer not null,
  message_id blob not null check (length(message_id) = 16),
  topic text not null,
  key text,
  headers text not null,
  payload blob,
  created_at integer not null,
  reason text,
  parked_at integer not null default (${now}),
  primary key (part, id)
) strict, without rowid`
  ]
}, {
  id: 3,
  name: "create_scheduled",
  statements: [
    `create table if not exists ${scheduled} (
  id integer primary key autoincrement,
  part integer not null,
  message_id blob not null check (length(message_id) = 16),
  topic text not null,
  key text,
  headers text not null,
  payload blob,
  due_at integer not null
) strict`,
    `create index if not exists ${table("scheduled_due_at")} on ${scheduled} (due_at, id)`,
    `create index if not exists ${table("scheduled_message_id")} on ${scheduled} (message_id)`
  ]
}, {
  id: 4,
  name: "cluster_outbox",
  // Rows of a part lie side by side: where they were found by an index, each that was deleted dirtied a page of its
  // own, which took most of a drain's time. Ids come from a counter, which never goes back.
  statements: [
    `create table if not exists ${counter} (last integer not null) strict`,
    `insert into ${counter} (last)
select max(
  coalesce((select max(id) from ${outbox}), 0),
  coalesce((select max(id) from ${parked}), 0),
  coalesce((select max(seq) from sqlite_sequence where '"' || name || '"' = '${outbox}'), 0)
) where not exists (select 1 from ${counter})`,
    `create table if not exists ${table("outbox_by_part")} (
  part integer not null,
  id integer not null,
  message_id blob not null check (length(message_id) = 16),
  topic text not null,
  key text,
  headers text not null,
  payload blob,
  created_at integer not null default (${now}),
  primary key (part, id)
) strict, without rowid`,
    `insert or ignore into ${table("outbox_by_part")} (part, id, message_id, topic, key, headers, payload, created_at)
select part, id, message_id, topic, key, headers, payload, created_at from ${outbox}`,
    `drop table ${outbox}`,
    `alter table ${table("outbox_by_part")} rename to ${outbox}`
  ]
}, {
  id: 5,
  name: "create_sent",
  statements: [
    `create table if not exists ${sent} (
  part integer not null,
  id integer not null,
  message_id blob not null check (length(message_id) = 16),
  topic text not null,
  key text,
  headers text not null,
  payload blob,
  created_at integer not null,
  sent_at integer not null default (${now}),
  primary key (part, id)
) strict, without rowid`,
    `create index if not exists ${table("sent_at")} on ${sent} (sent_at)`
  ]
}]

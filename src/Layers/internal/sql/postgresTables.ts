/**
 * The tables on Postgres, step by step.
 *
 * Owns: their columns and indexes.
 *
 * @internal
 */
import { parts } from "../../../MessageStore.ts"
import type { MigrationScript, Tables } from "./dialect.ts"

/** The schema, as `Dialect.migrations` has it. `tablePrefix` begins the names of indexes, which live beside their tables. */
export const migrations = (
  { consumer, inbox, instance, lease, outbox, parked, scheduled, sent }: Tables,
  tablePrefix: string
): ReadonlyArray<MigrationScript> => [{
  id: 1,
  name: "create_tables",
  statements: [
    `create table if not exists ${outbox} (
  part smallint not null,
  id bigint generated always as identity,
  message_id uuid not null,
  topic text not null,
  key text,
  headers json not null,
  payload bytea,
  created_at timestamptz not null default clock_timestamp(),
  primary key (part, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0)`,
    `create table if not exists ${lease} (
  part smallint primary key,
  owner text,
  epoch bigint not null default 0,
  expires_at timestamptz not null default '-infinity'
) with (fillfactor = 50)`,
    `insert into ${lease} (part) select generate_series(0, ${parts - 1}) on conflict do nothing`,
    `create table if not exists ${instance} (
  id text primary key,
  expires_at timestamptz not null
)`,
    `create table if not exists ${consumer} (
  id int generated always as identity primary key,
  consumer_group text not null,
  handler text not null,
  unique (consumer_group, handler)
)`,
    `create table if not exists ${inbox} (
  consumer int not null,
  message_key uuid not null,
  processed_at timestamptz not null default now(),
  primary key (consumer, message_key)
)`,
    `create index if not exists "${tablePrefix}inbox_processed_at" on ${inbox} (processed_at)`
  ]
}, {
  id: 2,
  name: "create_parked",
  statements: [
    `create table if not exists ${parked} (
  part smallint not null,
  id bigint not null,
  message_id uuid not null,
  topic text not null,
  key text,
  headers json not null,
  payload bytea,
  created_at timestamptz not null,
  reason text,
  parked_at timestamptz not null default clock_timestamp(),
  primary key (part, id)
)`
  ]
}, {
  id: 3,
  name: "create_scheduled",
  statements: [
    `create table if not exists ${scheduled} (
  id bigint generated always as identity primary key,
  part smallint not null,
  message_id uuid not null,
  topic text not null,
  key text,
  headers json not null,
  payload bytea,
  due_at timestamptz not null
)`,
    `create index if not exists "${tablePrefix}scheduled_due_at" on ${scheduled} (due_at, id)`,
    `create index if not exists "${tablePrefix}scheduled_message_id" on ${scheduled} (message_id)`
  ]
}, {
  id: 5,
  name: "create_sent",
  statements: [
    `create table if not exists ${sent} (
  part smallint not null,
  id bigint not null,
  message_id uuid not null,
  topic text not null,
  key text,
  headers json not null,
  payload bytea,
  created_at timestamptz not null,
  sent_at timestamptz not null default clock_timestamp(),
  primary key (part, id)
)`,
    `create index if not exists "${tablePrefix}sent_at" on ${sent} (sent_at)`
  ]
}]

/**
 * The tables on MySQL and MariaDB, step by step.
 *
 * Owns: their columns and keys. Invariant: texts that are compared are bytes,
 * since every collation takes some different keys for the same one, if only
 * those that end in spaces; ids of messages have
 * a fixed length, since `insert ignore` would cut a longer one.
 *
 * @internal
 */
import { parts } from "../../../MessageStore.ts"
import type { MigrationScript, Tables } from "./dialect.ts"

/** The time, whatever the session's time zone. */
export const now = "utc_timestamp(6)"
/** So many milliseconds from now. */
export const later = `${now} + interval ? * 1000 microsecond`
/** Before any time. */
export const never = "'1970-01-01'"

/** Rows that stand for keys: as many keys may be published at a time as do not meet on one. One more is for the schedule. */
export const keyLocks = 1_024

/** The schema, as `Dialect.migrations` has it. */
export const migrations = (
  { consumer, inbox, instance, lease, outbox, parked, scheduled, sent }: Tables,
  keyLock: string
): ReadonlyArray<MigrationScript> => [{
  id: 1,
  name: "create_tables",
  statements: [
    `create table if not exists ${outbox} (
  part smallint unsigned not null,
  id bigint unsigned not null auto_increment,
  message_id binary(16) not null,
  topic varchar(255) character set ascii collate ascii_bin not null,
  \`key\` longtext character set utf8mb4 collate utf8mb4_bin null,
  headers longtext character set utf8mb4 collate utf8mb4_bin not null,
  payload longblob null,
  created_at datetime(6) not null default (${now}),
  primary key (part, id),
  key (id)
) engine = InnoDB`,
    `create table if not exists ${lease} (
  part smallint unsigned not null primary key,
  owner varchar(64) character set ascii collate ascii_bin null,
  epoch bigint not null default 0,
  expires_at datetime(6) not null default ${never}
) engine = InnoDB`,
    `insert ignore into ${lease} (part) values ${Array.from({ length: parts }, (_, part) => `(${part})`).join(", ")}`,
    `create table if not exists ${instance} (
  id varchar(64) character set ascii collate ascii_bin not null primary key,
  expires_at datetime(6) not null
) engine = InnoDB`,
    `create table if not exists ${consumer} (
  id int unsigned not null auto_increment primary key,
  consumer_group varbinary(1000) not null,
  handler varbinary(1000) not null,
  unique key (consumer_group, handler)
) engine = InnoDB`,
    `create table if not exists ${inbox} (
  consumer int unsigned not null,
  message_key binary(16) not null,
  claim bigint unsigned not null,
  processed_at datetime(6) not null default (${now}),
  primary key (consumer, message_key),
  key (processed_at)
) engine = InnoDB`
  ]
}, {
  id: 2,
  name: "create_parked",
  statements: [
    `create table if not exists ${parked} (
  part smallint unsigned not null,
  id bigint unsigned not null,
  message_id binary(16) not null,
  topic varchar(255) character set ascii collate ascii_bin not null,
  \`key\` longblob null,
  headers longtext character set utf8mb4 collate utf8mb4_bin not null,
  payload longblob null,
  created_at datetime(6) not null,
  reason longtext character set utf8mb4 collate utf8mb4_bin null,
  parked_at datetime(6) not null default (${now}),
  primary key (part, id)
) engine = InnoDB`
  ]
}, {
  id: 3,
  name: "create_scheduled",
  statements: [
    `create table if not exists ${scheduled} (
  id bigint unsigned not null auto_increment primary key,
  part smallint unsigned not null,
  message_id binary(16) not null,
  topic varchar(255) character set ascii collate ascii_bin not null,
  \`key\` longtext character set utf8mb4 collate utf8mb4_bin null,
  headers longtext character set utf8mb4 collate utf8mb4_bin not null,
  payload longblob null,
  due_at datetime(6) not null,
  key (due_at, id),
  key (message_id)
) engine = InnoDB`,
    // Locks by name belong to the connection, and outlive the transaction.
    `create table if not exists ${keyLock} (id smallint unsigned not null primary key) engine = InnoDB`,
    `insert ignore into ${keyLock} (id) values ${Array.from({ length: keyLocks + 1 }, (_, id) => `(${id})`).join(", ")}`
  ]
}, {
  id: 5,
  name: "create_sent",
  statements: [
    `create table if not exists ${sent} (
  part smallint unsigned not null,
  id bigint unsigned not null,
  message_id binary(16) not null,
  topic varchar(255) character set ascii collate ascii_bin not null,
  \`key\` longblob null,
  headers longtext character set utf8mb4 collate utf8mb4_bin not null,
  payload longblob null,
  created_at datetime(6) not null,
  sent_at datetime(6) not null default (${now}),
  primary key (part, id),
  key (sent_at)
) engine = InnoDB`
  ]
}]

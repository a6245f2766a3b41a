/**
 * All SQL for MySQL (8.0.4 and later) and MariaDB (10.6 and later), in what
 * both understand: no `RETURNING`, no foreign keys, no reliance on gap locks.
 *
 * Invariant: the members stand in the order of `dialect.ts`. Insight: after a
 * deadlock InnoDB has rolled back and *left* the transaction, so that what
 * follows would commit by itself; `guard` puts an end to that. And sent rows
 * are deleted by a join from a JSON list, since with `in (…)` the optimizer
 * scans a small table, and waits there for every writer.
 *
 * Lists of parts are placeholders, which the optimizer turns into ranges of the
 * primary key. Numbers beyond 2^53 travel as text or JSON: a prepared statement
 * of mysql2 carries them as doubles. Time is `utc_timestamp`: `now` depends on
 * the session's time zone.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type { RowSelection } from "../../../MessageStore.ts"
import {
  countOf,
  dateOf,
  type Dialect,
  idOf,
  type Location,
  lockNumbers,
  pairs,
  piecesOf,
  type Program,
  pruneChunk,
  type Query,
  type Runner,
  scheduledOf,
  tablesOf,
  textualRow,
  uuidOf
} from "./dialect.ts"
import {
  buffer,
  byCount,
  changed,
  claimNumber,
  isSelected,
  listed,
  lockRows,
  loseAfter,
  patience,
  pieces,
  placeholders,
  restore,
  selectedTwice,
  valuesOf
} from "./mysqlParameters.ts"
import { reading } from "./mysqlRead.ts"
import { removal } from "./mysqlRemoval.ts"
import { keyLocks, later, migrations, never, now } from "./mysqlTables.ts"

/** Keys that one statement claims. */
const mostClaimed = 1_000

/** @internal */
export const mysql = ({ tablePrefix }: Location): Dialect => {
  const table = (name: string) => `\`${tablePrefix}${name}\``
  const tables = tablesOf(table)
  const { consumer, inbox, instance, lease, outbox, parked, scheduled, sent } = tables
  const keyLock = table("key_lock")
  const tableNames = [...Object.values(tablesOf((name) => tablePrefix + name)), `${tablePrefix}key_lock`]

  const appendText = byCount((count) =>
    `insert into ${outbox} (part, message_id, topic, \`key\`, headers, payload) values ` +
    placeholders(count, "(?, unhex(replace(?, '-', '')), ?, ?, ?, ?)")
  )

  const scheduleText = byCount((count) =>
    `insert into ${scheduled} (part, message_id, topic, \`key\`, headers, payload, due_at) values ` +
    placeholders(count, `(?, unhex(replace(?, '-', '')), ?, ?, ?, ?, timestampadd(microsecond, ? * 1000, ${never}))`)
  )

  const removing = removal({ lease, outbox })

  const columns = "part, id, message_id, topic, `key`, headers, payload, created_at"
  const columnsOfListed = columns.split(", ").map((column) => `o.${column}`).join(", ")

  const parkText = `insert into ${parked} (${columns}, reason)
select ${columnsOfListed}, d.reason from ${listed(outbox)}`
  const keepText = `insert into ${sent} (${columns}) select ${columnsOfListed} from ${listed(outbox)}`

  const parkedKeysText = byCount((count) =>
    `select part, topic, convert(p.\`key\` using utf8mb4) as \`key\`, min(id) as id from ${parked} as p
where (part, topic, p.\`key\`) in (${placeholders(count, "(?, ?, ?)")}) group by part, topic, p.\`key\``
  )

  const millisOf = (time: string) => `timestampdiff(microsecond, '1970-01-01', ${time}) div 1000 as ${time}`
  const listText = (from: string, more: string) =>
    `select part, id, hex(message_id) as message_id, topic,
  convert(\`key\` using utf8mb4) as \`key\`, headers, payload, ${more}
from ${from} where ${isSelected} and (part > ? or (part = ? and id > ?)) order by part, id limit ?`
  const listParkedText = listText(parked, `reason, ${millisOf("parked_at")}`)
  const listSentText = listText(sent, millisOf("sent_at"))
  const pageOf = (selection: RowSelection, after: { readonly part: number; readonly id: bigint }, limit: number) => [
    ...selectedTwice(selection),
    after.part,
    after.part,
    String(after.id),
    String(limit)
  ]

  const placesOf = (rows: ReadonlyArray<{ readonly part?: unknown; readonly id?: unknown }>) => [
    pairs(rows.map(({ id, part }) => [Number(part), BigInt(id as number | bigint | string)]))
  ]

  /** Moves the parked rows that a statement finds back; their ids are their own. */
  const back = (run: Runner, find: Query) =>
    run.together(Effect.gen(function*() {
      const found = yield* run.rows(find)
      if (found.length === 0) return 0
      const params = placesOf(found)
      yield* run.rows({
        sql: `insert into ${outbox} (${columns}) select ${columnsOfListed} from ${listed(parked)}`,
        params
      })
      yield* run.rows({ sql: `delete o from ${listed(parked)}`, params })
      return found.length
    }))

  const takeText = byCount((count) =>
    `update ${lease}
set epoch = case when owner = ? then epoch else epoch + 1 end, owner = ?, expires_at = ${later}
where part in (${placeholders(count)}) and (owner = ? or expires_at < ${now}) order by part`
  )

  const releaseText = byCount((count) =>
    `update ${lease} set owner = null, expires_at = ${never}
where owner = ? and part in (${placeholders(count)}) order by part`
  )

  // A list instead of placeholders: one statement for any number of keys, and the driver packs one value.
  const keysListed = "json_table(?, '$[*]' columns (message_key char(36) path '$')) as d"
  const keyListed = "unhex(replace(d.message_key, '-', ''))"
  const claimText = `insert ignore into ${inbox} (consumer, message_key, claim)
select ?, ${keyListed}, ? from ${keysListed}`
  const claimedText = `select hex(i.message_key) as message_key from ${keysListed}
straight_join ${inbox} as i on i.consumer = ? and i.message_key = ${keyListed} and i.claim = ?`

  const prune = (from: string, time: string) => (retentionMillis: number): Program<number> => (run) =>
    run.together(Effect.andThen(
      run.rows({
        sql: `delete from ${from} where ${time} <= ${now} - interval ? * 1000 microsecond
order by ${time} limit ${pruneChunk}`,
        params: [retentionMillis]
      }),
      Effect.map(run.rows(changed), countOf)
    ))

  return {
    name: "mysql",

    begin: "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION",

    // What follows a transaction that the server has ended opens another, without the savepoint: `leave` fails.
    // `claimKeys` shortens how long the connection may stand still, for as long as the transaction.
    guard: {
      enter: `SET autocommit = 0, ${patience} = @@session.wait_timeout; SAVEPOINT effect_events`,
      leave: `RELEASE SAVEPOINT effect_events; COMMIT; ${restore}`,
      abandon: `ROLLBACK; ${restore}`
    },

    synchronous: false,

    prepare: [],

    migrations: migrations(tables, keyLock),

    migrationsTable: `${tablePrefix}migrations`,

    migrationLock: {
      take: { sql: `select get_lock(md5(concat(database(), ?)), 60) as count`, params: [`.${tablePrefix}migrations`] },
      giveBack: { sql: `select release_lock(md5(concat(database(), ?)))`, params: [`.${tablePrefix}migrations`] }
    },

    tableNames,

    findTables: {
      sql: `select table_name as name, table_schema as home from information_schema.tables
where table_schema = database() and table_name in (${placeholders(tableNames.length)})`,
      params: tableNames
    },

    appendRows: (rows) =>
      pieces(rows).map((piece) => ({ sql: appendText(piece.length), params: piece.flatMap(valuesOf) })),

    lockKeys: (keys) => lockRows(keyLock, lockNumbers(keys, BigInt(keyLocks)).map(Number)),

    readRows: reading(outbox),

    storedRow: textualRow,

    deleteRows: (owner, leases, rows) => removing(owner, leases, rows, () => Effect.void),

    parkRows: (owner, leases, rows) =>
      removing(owner, leases, rows, (run, ours) => {
        const list = ours.map(({ id, part, reason }) =>
          `[${part},${id}${reason === null ? "" : `,${JSON.stringify(reason)}`}]`
        )
        return run.rows({ sql: parkText, params: [`[${list.join(",")}]`] })
      }),

    parkedKeys: (of) => (run) =>
      Effect.map(
        Effect.forEach(piecesOf(of), (piece) =>
          run.rows({
            sql: parkedKeysText(piece.length),
            params: piece.flatMap(({ key, part, topic }) => [part, topic, key])
          })),
        (pieces) => pieces.flat()
      ),

    listParked: (selection, after, limit) => ({ sql: listParkedText, params: pageOf(selection, after, limit) }),

    parkedRow: (row) => ({
      ...textualRow(row),
      reason: row.reason as string | null,
      parkedAt: dateOf(row.parked_at)
    }),

    releaseParked: (selection) => (run) =>
      back(run, {
        sql: `select part, id from ${parked} where reason is not null and ${isSelected} order by part, id for update`,
        params: selectedTwice(selection)
      }),

    freeParked: (run) =>
      back(run, {
        sql: `select part, id from ${parked} as p where reason is null and not exists (
  select 1 from ${parked} as b
  where b.part = p.part and b.topic = p.topic and b.\`key\` = p.\`key\` and b.id < p.id and b.reason is not null
) order by part, id for update`,
        params: []
      }),

    editParked: (messageKey, payload) => (run) =>
      run.together(Effect.andThen(
        run.rows({
          sql: `update ${parked} set payload = ? where message_id = unhex(replace(?, '-', ''))`,
          params: [buffer(payload), messageKey]
        }),
        Effect.map(
          run.rows({
            sql: `select count(*) as count from ${parked} where message_id = unhex(replace(?, '-', ''))`,
            params: [messageKey]
          }),
          countOf
        )
      )),

    dropParked: (selection) => (run) =>
      run.together(Effect.andThen(
        run.rows({ sql: `delete from ${parked} where ${isSelected}`, params: selectedTwice(selection) }),
        Effect.map(run.rows(changed), countOf)
      )),

    scheduleRows: (rows) =>
      pieces(rows).map((piece) => ({
        sql: scheduleText(piece.length),
        params: piece.flatMap((row) => [...valuesOf(row), row.dueMillis])
      })),

    nextDue: {
      sql: `select timestampdiff(microsecond, ${now}, min(due_at)) / 1000 as millis from ${scheduled}`,
      params: []
    },

    moveDue: (limit) => (run) =>
      run.together(Effect.gen(function*() {
        // Two that lock rows by their time, and then delete them by their number, deadlock.
        yield* run.rows(lockRows(keyLock, [keyLocks]))
        const found = yield* run.rows({
          sql: `select part, id from ${scheduled} where due_at <= ${now} order by due_at, id limit ? for update`,
          params: [String(limit)]
        })
        if (found.length === 0) return 0
        const params = placesOf(found)
        yield* run.rows({
          sql: `insert into ${outbox} (part, message_id, topic, \`key\`, headers, payload)
select o.part, o.message_id, o.topic, o.\`key\`, o.headers, o.payload from ${
            listed(scheduled)
          } order by o.due_at, o.id`,
          params
        })
        yield* run.rows({ sql: `delete o from ${listed(scheduled)}`, params })
        return found.length
      })),

    listScheduled: (topic, limit) => ({
      sql: `select 0 as id, part, hex(message_id) as message_id, topic, \`key\`, headers, payload,
  timestampdiff(microsecond, '1970-01-01', due_at) / 1000 as due_at
from ${scheduled} as s where (? is null or topic = ?) order by s.due_at, s.id limit ?`,
      params: [topic, topic, String(limit)]
    }),

    scheduledRow: (row) => scheduledOf(textualRow(row), row),

    cancelScheduled: (messageKey) => (run) =>
      run.together(Effect.andThen(
        run.rows({
          sql: `delete from ${scheduled} where message_id = unhex(replace(?, '-', ''))`,
          params: [messageKey]
        }),
        Effect.map(run.rows(changed), countOf)
      )),

    keepRows: (owner, leases, rows) =>
      removing(owner, leases, rows, (run, ours) => run.rows({ sql: keepText, params: placesOf(ours) })),

    listSent: (selection, after, limit) => ({ sql: listSentText, params: pageOf(selection, after, limit) }),

    sentRow: (row) => ({ ...textualRow(row), sentAt: dateOf(row.sent_at) }),

    pruneSent: prune(sent, "sent_at"),

    countRows: {
      sql: `select count(*) as waiting, timestampdiff(microsecond, min(created_at), ${now}) / 1000 as oldest_millis,
  (select count(*) from ${parked}) as parked, (select count(*) from ${scheduled}) as scheduled
from ${outbox}`,
      params: []
    },

    announceOwner: (owner, ttlMillis) => ({
      sql: `insert into ${instance} (id, expires_at) values (?, ${later})
on duplicate key update expires_at = values(expires_at)`,
      params: [owner, ttlMillis]
    }),

    forgetDeadOwners: { sql: `delete from ${instance} where expires_at < ${now} - interval 1 hour`, params: [] },

    countOwners: { sql: `select count(*) as count from ${instance} where expires_at > ${now}`, params: [] },

    freeParts: { sql: `select part from ${lease} where expires_at < ${now} order by part`, params: [] },

    takeParts: (owner, ttlMillis, wanted) => ({
      sql: takeText(wanted.length),
      params: [owner, owner, ttlMillis, ...wanted, owner]
    }),

    ownedParts: (owner) => ({
      sql: `select part, epoch from ${lease} where owner = ? and expires_at > ${now} order by part`,
      params: [owner]
    }),

    partOwners: {
      sql: `select part, case when expires_at > ${now} then owner end as owner, epoch from ${lease} order by part`,
      params: []
    },

    releaseParts: (owner, of) => ({ sql: releaseText(of.length), params: [owner, ...of] }),

    forgetOwner: (owner) => ({ sql: `delete from ${instance} where id = ?`, params: [owner] }),

    findConsumer: (group, handler) => ({
      sql: `select id from ${consumer} where consumer_group = ? and handler = ?`,
      params: [group, handler]
    }),

    registerConsumer: (group, handler) => (run) =>
      run.together(Effect.andThen(
        run.rows({
          sql: `insert into ${consumer} (consumer_group, handler) values (?, ?)
on duplicate key update id = last_insert_id(id)`,
          params: [group, handler]
        }),
        Effect.map(run.rows({ sql: "select last_insert_id() as id", params: [] }), idOf)
      )),

    claimKeys: (of, sortedKeys, idleMillis) => (run) =>
      run.together(Effect.gen(function*() {
        if (idleMillis !== undefined) yield* run.rows(loseAfter(idleMillis))
        const fresh: Array<string> = []
        for (const keys of Arr.chunksOf(sortedKeys, mostClaimed)) {
          const claim = claimNumber()
          const list = JSON.stringify(keys)
          yield* run.rows({ sql: claimText, params: [of, claim, list] })
          const count = countOf(yield* run.rows(changed))
          if (count === keys.length) fresh.push(...keys)
          else if (count > 0) {
            const rows = yield* run.rows({ sql: claimedText, params: [list, of, claim] })
            for (const row of rows) fresh.push(uuidOf(row.message_key))
          }
        }
        return fresh
      })),

    pruneMarks: prune(inbox, "processed_at")
  }
}

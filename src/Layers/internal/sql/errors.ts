/**
 * What a database's error means to the outbox and the consumer.
 *
 * Owns: the translation of `SqlError` into the reasons of `MessageStoreError`.
 * Invariant: every SqlError has exactly one reason, and what may simply run
 * again is `Conflict` and nothing else. Insight: the reason that Effect's
 * drivers give is not enough. It has no class for a server that shuts down
 * (57P01), is full (53300) or became a standby (25006), none for a missing
 * table, and `node:sqlite` says `ERR_SQLITE_ERROR` for everything; the code
 * of the driver's own error decides there.
 *
 * @internal
 */
import * as Predicate from "effect/Predicate"
import type * as Migrator from "effect/sql/Migrator"
import * as SqlError from "effect/sql/SqlError"
import * as MessageStore from "../../../MessageStore.ts"

type ReasonTag = MessageStore.MessageStoreErrorReason["_tag"]

const classes = {
  StoreUnreachable: MessageStore.StoreUnreachable,
  StoreDenied: MessageStore.StoreDenied,
  TablesMissing: MessageStore.TablesMissing,
  Conflict: MessageStore.Conflict,
  StoreFull: MessageStore.StoreFull,
  StoreFailed: MessageStore.StoreFailed
}

/** SQLSTATEs of Postgres, by code or by class (two characters). */
const byPostgresCode: { readonly [code: string]: ReasonTag } = {
  "40001": "Conflict",
  "40P01": "Conflict",
  "55P03": "Conflict",
  "08": "StoreUnreachable",
  "57P01": "StoreUnreachable",
  "57P02": "StoreUnreachable",
  "57P03": "StoreUnreachable",
  "25P03": "StoreUnreachable",
  "53300": "StoreUnreachable",
  "25006": "StoreUnreachable",
  "3D000": "StoreUnreachable",
  "53100": "StoreFull",
  "28": "StoreDenied",
  "42501": "StoreDenied",
  "42P01": "TablesMissing",
  "3F000": "TablesMissing"
}

/** Error numbers of MySQL and MariaDB. */
const byMysqlNumber: { readonly [errno: number]: ReasonTag } = {
  1020: "Conflict",
  1205: "Conflict",
  1213: "Conflict",
  3572: "Conflict",
  1040: "StoreUnreachable",
  1049: "StoreUnreachable",
  1053: "StoreUnreachable",
  1203: "StoreUnreachable",
  1290: "StoreUnreachable",
  1792: "StoreUnreachable",
  1836: "StoreUnreachable",
  1927: "StoreUnreachable",
  2006: "StoreUnreachable",
  2013: "StoreUnreachable",
  4031: "StoreUnreachable",
  1044: "StoreDenied",
  1045: "StoreDenied",
  1142: "StoreDenied",
  1143: "StoreDenied",
  1227: "StoreDenied",
  1698: "StoreDenied",
  1146: "TablesMissing",
  1021: "StoreFull",
  1114: "StoreFull"
}

/** What sockets, and mysql2, say of a connection; the codes of Postgres and of SQLite are others. */
const lostConnection =
  /^(ECONN|EPIPE|ETIMEDOUT|EHOST|ENET|ENOTFOUND|EAI_|PROTOCOL_CONNECTION_LOST|PROTOCOL_SEQUENCE_TIMEOUT|POOL_CLOSED)/

/** The savepoint at the start of a transaction is gone, and with it the transaction. */
const endedBehindItsBack = /SAVEPOINT effect_events does not exist/

/** What our patch of SQLite's driver says of whatever follows such an error in the transaction. */
const rolledBack = /SQLite has rolled the transaction back/

/** Primary result codes of SQLite: the low byte of an extended one. */
const bySqliteCode: { readonly [code: number]: ReasonTag } = {
  3: "StoreDenied",
  5: "Conflict",
  6: "Conflict",
  8: "StoreDenied",
  13: "StoreFull",
  14: "StoreUnreachable",
  23: "StoreDenied"
}

const byReason: { readonly [Tag in SqlError.SqlErrorReason["_tag"]]?: ReasonTag } = {
  ConnectionError: "StoreUnreachable",
  AuthenticationError: "StoreDenied",
  AuthorizationError: "StoreDenied",
  DeadlockError: "Conflict",
  SerializationError: "Conflict",
  LockTimeoutError: "Conflict"
}

const stringAt = (u: unknown, key: string): string | undefined =>
  Predicate.hasProperty(u, key) && Predicate.isString(u[key]) ? u[key] : undefined

const sqliteCode = (cause: unknown): number | undefined => {
  for (const key of ["errcode", "errno", "code"]) {
    if (Predicate.hasProperty(cause, key) && Predicate.isNumber(cause[key]) && cause[key] > 0) {
      return cause[key] & 0xff
    }
  }
}

const mysqlTag = (cause: unknown): ReasonTag | undefined => {
  if (Predicate.hasProperty(cause, "sqlState") && Predicate.hasProperty(cause, "errno")) {
    const known = byMysqlNumber[Number(cause.errno)]
    if (known !== undefined) return known
    if (endedBehindItsBack.test(stringAt(cause, "message") ?? "")) return "Conflict"
  }
  return Predicate.hasProperty(cause, "fatal") && cause.fatal === true ? "StoreUnreachable" : undefined
}

const tagOf = (reason: SqlError.SqlErrorReason): ReasonTag => {
  const code = stringAt(reason.cause, "code")
  const byCode = code === undefined ? undefined : byPostgresCode[code] ?? byPostgresCode[code.slice(0, 2)]
  if (byCode !== undefined) {
    return byCode
  }
  const byDriver = mysqlTag(reason.cause) ??
    (code !== undefined && lostConnection.test(code) ? "StoreUnreachable" : undefined)
  if (byDriver !== undefined) {
    return byDriver
  }
  const known = byReason[reason._tag]
  if (known !== undefined) {
    return known
  }
  if (stringAt(reason.cause, "message")?.startsWith("no such table")) {
    return "TablesMissing"
  }
  if (rolledBack.test(stringAt(reason.cause, "message") ?? "")) return "StoreFull"
  const numeric = sqliteCode(reason.cause)
  return (numeric === undefined ? undefined : bySqliteCode[numeric]) ?? "StoreFailed"
}

/** The server's own words; the driver's ("Query failed") say less. */
const detailOf = (reason: SqlError.SqlErrorReason): string => {
  if (endedBehindItsBack.test(stringAt(reason.cause, "message") ?? "")) {
    return "the server had ended the transaction before, by a deadlock whose error was swallowed, " +
      "or by a statement that commits by itself, such as CREATE TABLE"
  }
  const said = stringAt(reason.cause, "message") || reason.message || reason._tag
  const code = stringAt(reason.cause, "code")
  return code === undefined || code === "ERR_SQLITE_ERROR" || said.includes(code) ? said : `${said} (${code})`
}

/** @internal */
export const failure = (
  tag: ReasonTag,
  operation: string,
  detail: string,
  cause: unknown = new Error(detail)
): MessageStore.MessageStoreError =>
  new MessageStore.MessageStoreError({ reason: new classes[tag]({ operation, detail, cause }) })

/** @internal */
export const fromSqlError = (error: SqlError.SqlError, operation: string): MessageStore.MessageStoreError =>
  failure(tagOf(error.reason), operation, detailOf(error.reason), error)

/** @internal */
export const fromMigrationError = (
  error: Migrator.MigrationError | SqlError.SqlError,
  operation: string
): MessageStore.MessageStoreError => {
  const sqlError = SqlError.isSqlError(error) ? error : error.cause
  return SqlError.isSqlError(sqlError)
    ? fromSqlError(sqlError, operation)
    : failure("StoreFailed", operation, error.message, error)
}

/** @internal */
export const isConflict = (error: unknown): boolean =>
  MessageStore.isMessageStoreError(error)
    ? error.reason._tag === "Conflict"
    : SqlError.isSqlError(error)
    ? tagOf(error.reason) === "Conflict"
    : SqlError.isSqlErrorReason(error) && tagOf(error) === "Conflict"

/** SQLSTATE `in_failed_sql_transaction`: what every statement after a failed one is answered with. */
const afterFailure = "25P02"

const isAway = (tag: ReasonTag): boolean => tag === "StoreUnreachable" || tag === "StoreFull"

/** @internal */
export const isTransactionWide = (error: unknown): boolean =>
  MessageStore.isMessageStoreError(error)
    ? isAway(error.reason._tag) || error.reason._tag === "Conflict"
    : SqlError.isSqlError(error) &&
      (stringAt(error.reason.cause, "code") === afterFailure || isAway(tagOf(error.reason)))

/** @internal */
export const isOutage = (error: unknown): boolean =>
  MessageStore.isMessageStoreError(error)
    ? error.reason._tag !== "Conflict"
    : SqlError.isSqlError(error) && isAway(tagOf(error.reason))

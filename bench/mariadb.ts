/** The database side of `exactly-once-batch mariadb`: a database for each round, and the statements of the twin. */
import { Redacted } from "effect"
import { createPool, type Pool, type PoolConnection, type RowDataPacket } from "mysql2/promise"
import { type Slice, totalsOf } from "./applying.ts"
import { mariadbAt, name, urlIn } from "./databases.ts"
import type { Round } from "./harness.ts"
import { sumOf } from "./orders.ts"

/** Broker and store of our side. */
export const layer = (database: string) => mariadbAt(database).layer

const poolOf = (connectionLimit: number, database?: string): Pool =>
  createPool({ uri: Redacted.value(urlIn("MARIADB_URL", database)), connectionLimit })

/** The twin's pool, with an inbox as ours is, and at the isolation level of ours. */
export const poolWithInbox = async (database: string, max: number): Promise<Pool> => {
  const pool = poolOf(max, database)
  pool.pool.on("connection", (connection) => connection.query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"))
  await pool.query(`CREATE TABLE inbox (
    consumer int unsigned NOT NULL, message_key binary(16) NOT NULL,
    processed_at datetime(6) NOT NULL DEFAULT (utc_timestamp(6)),
    PRIMARY KEY (consumer, message_key), KEY (processed_at))`)
  return pool
}

/** Adds to the totals of customers. */
export const upsert = `INSERT INTO totals (customer, total)
  SELECT c, t FROM json_table(?, '$[*]' COLUMNS (c varchar(50) PATH '$[0]', t bigint PATH '$[1]')) AS new
  ON DUPLICATE KEY UPDATE total = total + VALUES(total)`

const claim = "INSERT IGNORE INTO inbox (consumer, message_key) VALUES ? RETURNING message_key"

interface Claimed extends RowDataPacket {
  readonly message_key: Buffer
}

const bytesOf = (id: string): Buffer => Buffer.from(id.replaceAll("-", ""), "hex")

const attempt = async (connection: PoolConnection, { ids, ordersOf }: Slice): Promise<void> => {
  await connection.query("START TRANSACTION")
  const [claimed] = await connection.query<Array<Claimed>>(claim, [ids.map((id) => [1, bytesOf(id)])])
  const fresh = new Set(claimed.map(({ message_key }) => message_key.toString("hex")))
  const orders = ordersOf((id) => fresh.has(id.replaceAll("-", "")))
  await connection.execute(upsert, [JSON.stringify(totalsOf(orders))])
  await connection.query("COMMIT")
}

const isDeadlock = (error: unknown): boolean => (error as { readonly errno?: number }).errno === 1213

/** The twin's transaction of one slice, again after a deadlock. */
export const applyByHand = (pool: Pool) => async (slice: Slice): Promise<void> => {
  const connection = await pool.getConnection()
  try {
    for (;;) {
      try {
        return await attempt(connection, slice)
      } catch (error) {
        await connection.query("ROLLBACK")
        if (!isDeadlock(error)) throw error
      }
    }
  } finally {
    connection.release()
  }
}

/** Runs one side with a database of its own, and checks what it wrote. */
export const inDatabase = async (events: number, side: (database: string) => Promise<Round>): Promise<Round> => {
  const database = name()
  const admin = poolOf(1)
  await admin.query(`CREATE DATABASE ${database}`)
  await admin.query(`CREATE TABLE ${database}.totals (customer varchar(50) PRIMARY KEY, total bigint NOT NULL)`)
  try {
    const round = await side(database)
    const [rows] = await admin.query<Array<RowDataPacket>>(`SELECT sum(total) AS sum FROM ${database}.totals`)
    const sum = Number(rows[0]!.sum)
    if (sum !== sumOf(events)) throw new Error(`The sum is ${sum} and should be ${sumOf(events)}`)
    return round
  } finally {
    await admin.query(`DROP DATABASE ${database}`)
    await admin.end()
  }
}

/** The database side of the exactly-once benchmarks: a schema for each round, and the statements of the twins. */
import { PgClient } from "@effect/sql-pg"
import { Layer, Redacted } from "effect"
import * as SqlStore from "effect-events/Layers/SqlStore"
import { Pool, type PoolClient } from "pg"
import { type Slice, totalsOf } from "./applying.ts"
import type { Round } from "./harness.ts"
import { type Client, layerOf, sumOf, unique } from "./orders.ts"

const url = (): string => {
  const url = process.env.POSTGRES_URL
  if (url === undefined) throw new Error("POSTGRES_URL is not set; run this with npm run bench")
  return url
}

/** Broker and store of our side. */
export const layer = (schema: string, client: Client = "KafkaJs") =>
  SqlStore.layerWith({ schema }).pipe(
    Layer.provideMerge(PgClient.layer({ url: Redacted.make(url()) })),
    Layer.merge(layerOf(client))
  )

/** The twins' pool, with an inbox as ours is. */
export const poolWithInbox = async (schema: string, max: number): Promise<Pool> => {
  const pool = new Pool({ connectionString: url(), max })
  await pool.query(`CREATE TABLE ${schema}.inbox (
    consumer int NOT NULL, message_key uuid NOT NULL, processed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, message_key))`)
  return pool
}

/** Totals as the upsert takes them. */
export const columnsOf = (totals: ReturnType<typeof totalsOf>): [Array<string>, Array<number>] => [
  totals.map(([customer]) => customer),
  totals.map(([, total]) => total)
]

/** Adds to the totals of customers. */
export const upsert = (schema: string) =>
  `INSERT INTO ${schema}.totals (customer, total) SELECT * FROM unnest($1::text[], $2::bigint[])
   ON CONFLICT (customer) DO UPDATE SET total = totals.total + excluded.total`

/** Adds to the total of one customer. */
export const upsertOne = (schema: string) =>
  `INSERT INTO ${schema}.totals (customer, total) VALUES ($1, $2)
   ON CONFLICT (customer) DO UPDATE SET total = totals.total + excluded.total`

const claim = (schema: string) =>
  `INSERT INTO ${schema}.inbox (consumer, message_key) SELECT 1, m FROM unnest($1::uuid[]) m
   ON CONFLICT DO NOTHING RETURNING message_key`

export const inTransaction = async <A>(pool: Pool, work: (client: PoolClient) => Promise<A>): Promise<A> => {
  const client = await pool.connect()
  try {
    await client.query("BEGIN")
    const result = await work(client)
    await client.query("COMMIT")
    return result
  } catch (error) {
    await client.query("ROLLBACK")
    throw error
  } finally {
    client.release()
  }
}

/** The twins' transaction of one slice. */
export const applyByHand = (pool: Pool, schema: string) => ({ ids, ordersOf }: Slice): Promise<void> =>
  inTransaction(pool, async (client) => {
    const { rows } = await client.query<{ message_key: string }>({
      name: "claim",
      text: claim(schema),
      values: [ids]
    })
    const fresh = new Set(rows.map((row) => row.message_key))
    const totals = totalsOf(ordersOf((id) => fresh.has(id)))
    await client.query({ name: "upsert", text: upsert(schema), values: columnsOf(totals) })
  })

/** Runs one side with a schema of its own, and checks what it wrote. */
export const inSchema = async (events: number, side: (schema: string) => Promise<Round>): Promise<Round> => {
  const schema = unique("eo").replaceAll("-", "_")
  const admin = new Pool({ connectionString: url(), max: 1 })
  await admin.query(`CREATE SCHEMA ${schema}`)
  await admin.query(`CREATE TABLE ${schema}.totals (customer text PRIMARY KEY, total bigint NOT NULL)`)
  try {
    const round = await side(schema)
    const { rows } = await admin.query<{ sum: string }>(`SELECT sum(total) FROM ${schema}.totals`)
    if (Number(rows[0]!.sum) !== sumOf(events)) {
      throw new Error(`The sum is ${rows[0]!.sum} and should be ${sumOf(events)}`)
    }
    return round
  } finally {
    await admin.query(`DROP SCHEMA ${schema} CASCADE`)
    await admin.end()
  }
}

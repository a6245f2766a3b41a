/** The outbox of `pipeline`, by hand: a table, an insert, and a loop that polls. */
import type { Producer } from "kafkajs"
import { setTimeout } from "node:timers/promises"
import type { Pool, PoolClient } from "pg"
import { headersOf, type Order } from "./orders.ts"
import { inTransaction } from "./postgres.ts"

export const relayBatch = 500
const pollMillis = 20

export const createOutbox = (pool: Pool, schema: string) =>
  pool.query(`CREATE TABLE ${schema}.outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key text NOT NULL, headers json NOT NULL, payload bytea NOT NULL)`)

/** One insert for all. */
export const append = (client: PoolClient, schema: string, orders: ReadonlyArray<Order>) =>
  client.query({
    name: "append",
    text: `INSERT INTO ${schema}.outbox (key, headers, payload)
      SELECT key, headers::json, payload FROM unnest($1::text[], $2::text[], $3::bytea[]) AS new (key, headers, payload)`,
    values: [
      orders.map((order) => order.customer),
      orders.map((_, i) => JSON.stringify(headersOf(i))),
      orders.map((order) => Buffer.from(JSON.stringify(order)))
    ]
  })

interface Row {
  readonly id: string
  readonly key: string
  readonly headers: { readonly [name: string]: string }
  readonly payload: Buffer
}

interface Relay {
  readonly pool: Pool
  readonly producer: Producer
  readonly schema: string
  readonly topic: string
  readonly signal: AbortSignal
}

/** Sends and deletes what is there, a batch per transaction; waits only when it has found less than a batch. */
export const relayByHand = async ({ pool, producer, schema, signal, topic }: Relay): Promise<void> => {
  while (!signal.aborted) {
    const sent = await inTransaction(pool, async (client) => {
      const { rows } = await client.query<Row>({
        name: "read",
        text: `SELECT id, key, headers, payload FROM ${schema}.outbox ORDER BY id LIMIT ${relayBatch}
          FOR UPDATE SKIP LOCKED`
      })
      if (rows.length === 0) return 0
      await producer.send({
        topic,
        acks: -1,
        messages: rows.map(({ headers, key, payload }) => ({ key, headers, value: payload }))
      })
      await client.query({
        name: "delete",
        text: `DELETE FROM ${schema}.outbox WHERE id = ANY ($1::bigint[])`,
        values: [rows.map(({ id }) => id)]
      })
      return rows.length
    })
    if (sent < relayBatch) await setTimeout(pollMillis)
  }
}

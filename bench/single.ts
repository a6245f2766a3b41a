/** The hand-written loop with one transaction per message: KafkaJS `eachMessage` and `pg`. */
import { measure, type Round } from "./harness.ts"
import { kafka, type Order, unique } from "./orders.ts"
import { inSchema, poolWithInbox, upsertOne } from "./postgres.ts"

const claimOne = (schema: string) =>
  `INSERT INTO ${schema}.inbox (consumer, message_key) VALUES (1, $1) ON CONFLICT DO NOTHING`

/** Reads a topic of `events` orders, so many partitions at a time. */
export const single = (topic: string, events: number, partitionsConsumedConcurrently: number): Promise<Round> =>
  inSchema(events, (schema) =>
    measure(events, async (started) => {
      const pool = await poolWithInbox(schema, partitionsConsumedConcurrently)
      const consumer = kafka.consumer({ groupId: unique("group"), maxBytesPerPartition: 1024 * 1024 })
      await consumer.connect()
      await consumer.subscribe({ topic, fromBeginning: true })
      let running = false
      let count = 0
      await new Promise<void>((resolve, reject) => {
        consumer.run({
          partitionsConsumedConcurrently,
          autoCommitInterval: 1_000,
          eachMessage: async ({ message: { headers, value } }) => {
            if (!running) started()
            running = true
            const client = await pool.connect()
            try {
              await client.query("BEGIN")
              const claimed = await client.query({
                name: "claim",
                text: claimOne(schema),
                values: [headers!.ce_id!.toString()]
              })
              if (claimed.rowCount === 1) {
                const { customer, total } = JSON.parse(value!.toString()) as Order
                await client.query({ name: "upsert", text: upsertOne(schema), values: [customer, total] })
              }
              await client.query("COMMIT")
            } catch (error) {
              await client.query("ROLLBACK")
              throw error
            } finally {
              client.release()
            }
            if (++count === events) resolve()
          }
        }).catch(reject)
      })
      await consumer.disconnect()
      await pool.end()
    }))

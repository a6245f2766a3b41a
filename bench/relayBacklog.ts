/**
 * `relay-backlog`: what the relay's read and delete of a batch cost when a
 * million rows wait, against a thousand.
 */
import { Duration, Effect, ManagedRuntime } from "effect"
import { MessageStore } from "effect-events"
import { SqlClient } from "effect/sql"
import { postgres } from "./databases.ts"
import { alike, type Benchmark, measure, type Round, type Side, sized } from "./harness.ts"

const batch = 500
const batches = 40
const many = sized(1_000_000, 50_000)
const few = 1_000
const owner = "bench"
const everyPart = Array.from({ length: MessageStore.parts }, (_, part) => part)

const fill = (outbox: string, rows: number) =>
  SqlClient.SqlClient.use((sql) =>
    sql.unsafe(
      `insert into ${outbox} (part, message_id, topic, key, headers, payload)
select n % $1, gen_random_uuid(), 'orders', 'customer-' || n % 5000,
  json_build_object('ce_type', 'bench', 'ce_source', 'bench', 'ce_time', '2026-01-01T00:00:00.000Z'),
  convert_to(repeat('x', 200), 'UTF8')
from generate_series(1, $2::int) as n`,
      [MessageStore.parts, rows]
    )
  )

const prepare = async (rows: number): Promise<Side> => {
  const database = postgres()
  const runtime = ManagedRuntime.make(database.layer)
  const { leases, outbox } = await runtime.runPromise(MessageStore.MessageStore)
  await runtime.runPromise(fill(database.outbox, rows))
  await runtime.runPromise(SqlClient.SqlClient.use((sql) => sql.unsafe(`vacuum analyze ${database.outbox}`)))
  const held = await runtime.runPromise(leases.hold({ owner, ttl: Duration.days(1), parts: everyPart }))
  let waiting = rows
  let after = -1
  /** As the relay does: the next read goes on above the last part that was seen. */
  const relay = Effect.gen(function*() {
    const above = everyPart.filter((part) => part > after)
    const [first = 0, ...others] = above.length > 0 ? above : everyPart
    const found = yield* outbox.read({ parts: [first, ...others], limit: batch })
    after = found.length < batch ? -1 : found[batch - 1]!.part
    const [row, ...rows] = found
    return row === undefined ? 0 : yield* outbox.remove({ owner, leases: held, rows: [row, ...rows] })
  })
  const round = async (): Promise<Round> => {
    const total = { events: 0, wallMillis: 0, cpuMicros: 0 }
    while (total.events < batches * batch) {
      if (waiting === 0) {
        await runtime.runPromise(fill(database.outbox, rows))
        waiting = rows
      }
      let gone = 0
      const { cpuMicros, wallMillis } = await measure(batch, async () => {
        gone = await runtime.runPromise(relay)
      })
      waiting -= gone
      total.events += gone
      total.wallMillis += wallMillis
      total.cpuMicros += cpuMicros
    }
    return total
  }
  return { round, close: () => runtime.dispose() }
}

export const relayBacklog: Benchmark = {
  name: "relay-backlog pg",
  aim: 0.77,
  settings: {
    batch,
    batches,
    payloadBytes: 200,
    ours: `read and delete a batch while up to ${many} rows wait`,
    twin: `the same with ${few}`
  },
  open: alike(prepare, many, few)
}

/** What a read of the outbox touches on Postgres does not grow with what was sent before, nor with what waits. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as SqlClient from "effect/sql/SqlClient"
import { postgres } from "../../../src/Layers/internal/sql/postgres.ts"
import { requireOrSkip } from "../../support/services.ts"
import { freshSchema, postgresInstance } from "./databases.ts"

const waiting = 100_000
const limit = 500

interface Plan {
  readonly "Actual Rows": number
  readonly "Shared Hit Blocks": number
  readonly "Shared Read Blocks": number
  readonly "Node Type": string
  readonly Plans?: ReadonlyArray<Plan>
}

/** The blocks that a read of one part touches. */
const touched = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, schema: string) {
  const [row] = yield* postgres({ schema, tablePrefix: "effect_events_" }).readRows([7], limit)({
    rows: (query) => sql.unsafe(`explain (analyze, buffers, format json) ${query.sql}`, query.params),
    together: (program) => program
  })
  const [{ Plan: plan }] = row!["QUERY PLAN"] as [{ readonly Plan: Plan }]
  assert.strictEqual(plan["Actual Rows"], limit)
  assert.notInclude(JSON.stringify(plan), "Seq Scan")
  return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
})

describe.skipIf(requireOrSkip("postgres"))("a read of the outbox", () => {
  it.live(
    "touches about as many entries as it returns, also when most of what waited has been deleted",
    () =>
      Effect.gen(function*() {
        const schema = yield* freshSchema
        const { sql } = yield* postgresInstance(schema)
        const outbox = sql(`${schema}.effect_events_outbox`)
        yield* sql`alter table ${outbox} set (autovacuum_enabled = off)`
        yield* sql`insert into ${outbox} (part, message_id, topic, key, headers, payload)
        select n % 8, gen_random_uuid(), 'orders', 'k' || n, '{}', decode(repeat('ab', 100), 'hex')
        from generate_series(1, ${waiting}) as n`
        yield* sql`analyze ${outbox}`
        const full = yield* touched(sql, schema)
        yield* sql`delete from ${outbox} where id <= ${waiting * 0.8}`
        // A block of the table for each row, and those of the index.
        assert.isBelow(full, 1.3 * limit)
        // A read marks what is dead, and the next one passes over it; nothing else has to. What a transaction that is
        // older than the delete might still see is not dead yet: another test's, or an autovacuum's analysis.
        yield* touched(sql, schema).pipe(
          Effect.repeat({ until: (blocks) => blocks < 1.3 * limit }),
          Effect.timeoutOrElse({
            duration: "60 seconds",
            orElse: () => Effect.die(new Error("a read still touches what has been deleted"))
          })
        )
      }),
    120_000
  )
})

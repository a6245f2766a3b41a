/**
 * Taking rows out of the outbox on MySQL and MariaDB, where one statement
 * cannot look at the leases and delete.
 *
 * Invariant: the leases are locked before anything is taken, and until the
 * transaction ends, so that nobody takes a part over in between.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import type * as SqlError from "effect/sql/SqlError"
import type { Lease } from "../../../MessageStore.ts"
import { countOf, pairs, type Program, type Query, type Runner, type Tables } from "./dialect.ts"
import { changed, listed, placeholders } from "./mysqlParameters.ts"

/** Takes rows of parts that `owner` holds under these epochs; `first` does something with them before. */
export const removal = ({ lease, outbox }: Pick<Tables, "lease" | "outbox">) => {
  const fence = (owner: string, leases: ReadonlyArray<Lease>): Query => ({
    sql: `select part, epoch from ${lease} where owner = ? and part in (${placeholders(leases.length)})
order by part lock in share mode`,
    params: [owner, ...leases.map(({ part }) => part)]
  })
  const deleteText = `delete o from ${listed(outbox)}`

  return <A extends { readonly part: number; readonly id: bigint }>(
    owner: string,
    leases: ReadonlyArray<Lease>,
    rows: ReadonlyArray<A>,
    first: (run: Runner, ours: ReadonlyArray<A>) => Effect.Effect<unknown, SqlError.SqlError>
  ): Program<number> =>
  (run) =>
    run.together(Effect.gen(function*() {
      const found = yield* run.rows(fence(owner, leases))
      const epochs = new Map(found.map(({ epoch, part }) => [Number(part), BigInt(epoch as number | string)]))
      const held = new Set(leases.filter(({ epoch, part }) => epochs.get(part) === epoch).map(({ part }) => part))
      const ours = rows.filter(({ part }) => held.has(part))
      if (ours.length === 0) return 0
      yield* first(run, ours)
      yield* run.rows({ sql: deleteText, params: [pairs(ours.map((row) => [row.part, row.id]))] })
      return countOf(yield* run.rows(changed))
    }))
}

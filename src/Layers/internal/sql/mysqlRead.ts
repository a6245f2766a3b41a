/**
 * The relay's read of the outbox on MySQL and MariaDB.
 *
 * Invariant: a row is read with every row of its key that was committed before
 * it and is there still.
 *
 * The insight: MariaDB (10.3 and later) takes a snapshot while transactions
 * commit. It walks over those that run, one by one. When it has met one that
 * commits right after, and a second one that waited for its lock commits, too,
 * before the walk comes to it, the snapshot hides the first and shows the
 * second (seen about once in 10,000 transactions of 24 writers on two cores,
 * and not on MySQL 8). The first had committed before the first statement
 * ended, so a second statement sees it: it counts the rows up to where the
 * first one came. Where it finds more, a third one reads them, and of each key
 * goes no further than the first did, since its own snapshot may have gaps
 * behind that.
 *
 * @internal
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import type { Program, Query, Row } from "./dialect.ts"
import { byCount, placeholders } from "./mysqlParameters.ts"

/** How far a read came in one part. */
interface Extent {
  readonly part: number
  readonly last: bigint
  readonly rows: ReadonlyArray<Row>
}

const idOf = ({ id }: Row): bigint => BigInt(id as number | string)

const extentsOf = (rows: ReadonlyArray<Row>): ReadonlyArray<Extent> =>
  Object.values(Arr.groupBy(rows, ({ part }) => String(part))).map((ofPart) => ({
    part: Number(ofPart[0].part),
    last: idOf(ofPart.at(-1)!),
    rows: ofPart
  }))

const paramsOf = (extents: ReadonlyArray<Extent>) => extents.flatMap(({ last, part }) => [part, last.toString()])

const keyOf = ({ key, topic }: Row): string => JSON.stringify([topic, key])

/** Of each key what lies up to where `seen` came. */
const upTo = (seen: ReadonlyArray<Row>, rows: ReadonlyArray<Row>): ReadonlyArray<Row> => {
  const last = new Map(seen.map((row) => [keyOf(row), idOf(row)]))
  return rows.filter((row) => idOf(row) <= (last.get(keyOf(row)) ?? -1n))
}

/** Reads rows of parts by part and id; now and then some more than `limit`, to be complete. */
export const reading = (outbox: string) => {
  const columns = "part, id, hex(message_id) as message_id, topic, `key`, headers, payload"
  const up = (count: number) => Array.from({ length: count }, () => "(part = ? and id <= ?)").join(" or ")
  const readText = byCount((count) =>
    `select ${columns} from ${outbox}
where part in (${placeholders(count)}) order by part, id limit ?`
  )
  const countText = byCount((count) =>
    `select part, count(*) as found from ${outbox}
where ${up(count)} group by part`
  )
  const againText = byCount((count) =>
    `select ${columns} from ${outbox}
where ${up(count)} order by part, id`
  )

  const first = (of: ReadonlyArray<number>, limit: number): Query => ({
    sql: readText(of.length),
    params: [...of, String(limit)]
  })

  return (of: ReadonlyArray<number>, limit: number): Program<ReadonlyArray<Row>> => (run) =>
    Effect.gen(function*() {
      const seen = yield* run.rows(first(of, limit))
      const extents = extentsOf(seen)
      if (extents.length === 0) return seen
      const counted = yield* run.rows({ sql: countText(extents.length), params: paramsOf(extents) })
      const counts = new Map(counted.map(({ found, part }) => [Number(part), Number(found)]))
      const open = extents.filter(({ part, rows }) => (counts.get(part) ?? 0) > rows.length)
      if (open.length === 0) return seen
      const again = yield* run.rows({ sql: againText(open.length), params: paramsOf(open) })
      const openParts = new Set(open.map(({ part }) => part))
      return extents.flatMap(({ part, rows }) =>
        openParts.has(part) ? upTo(rows, again.filter((row) => Number(row.part) === part)) : rows
      )
    })
}

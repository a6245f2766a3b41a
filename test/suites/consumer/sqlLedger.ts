/** The ledger as a table of a SQL database. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import { Ledger } from "./support.ts"

/** Creates the table in the connection's first schema. */
export const sqlLedger = Layer.effect(
  Ledger,
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql.onDialectOrElse({
      pg: () => sql`create table ledger (id bigint generated always as identity primary key, page text, line text)`,
      mysql: () => sql`create table ledger (id bigint auto_increment primary key, page text, line text)`,
      orElse: () => sql`create table ledger (id integer primary key autoincrement, page text, line text)`
    })
    return Ledger.of({
      write: (page, line) => Effect.asVoid(sql`insert into ledger (page, line) values (${page}, ${line})`),
      read: (page) =>
        Effect.map(
          sql<{ readonly line: string }>`select line from ledger where page = ${page} order by id`,
          (rows) => rows.map((row) => row.line)
        )
    })
  })
)

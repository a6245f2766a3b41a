/** The business table that takes part in the store's transactions, for the suites. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"

export const business = {
  table: Layer.effectDiscard(
    SqlClient.SqlClient.use((sql) =>
      sql`create table business (name varchar(255) not null primary key, value text not null)`
    )
  ),

  write: (name: string, value: string) =>
    SqlClient.SqlClient.use((sql) =>
      Effect.asVoid(
        sql`insert into business (name, value) values (${name}, ${value}) ${
          sql.onDialectOrElse({
            mysql: () => sql`on duplicate key update value = values(value)`,
            orElse: () => sql`on conflict (name) do update set value = excluded.value`
          })
        }`
      )
    ),

  read: (name: string) =>
    SqlClient.SqlClient.use((sql) =>
      Effect.map(sql<{ value: string }>`select value from business where name = ${name}`, ([row]) => row?.value)
    )
}

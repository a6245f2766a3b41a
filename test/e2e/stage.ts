/** What the programs of a case run on, and the case looks at: topics, a group and a schema of its own. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as SqlClient from "effect/sql/SqlClient"
import { freshSchema, mariadb, urlOf } from "../layers/sql/databases.ts"
import { freshPrefix } from "../suites/consumer/kafka.ts"
import { freshGroup } from "../suites/consumer/support.ts"
import { kafkaBrokers, mariadbUrl, postgresUrl } from "../support/services.ts"
import { type Database, kafka, type Settings, silent, store } from "./programs/services.ts"

/** A schema on Postgres that nobody else uses. */
export const freshPostgres = Effect.map(
  freshSchema,
  (schema): Database => ({ _tag: "Postgres", url: postgresUrl!, schema })
)

/** A database on MariaDB that nobody else uses. */
export const freshMariadb = Effect.map(
  mariadb.freshDatabase,
  (name): Database => ({ _tag: "MariaDB", url: Redacted.value(urlOf((url) => (url.pathname = name), mariadbUrl)) })
)

/** A database, a topic prefix and a group that nobody else uses. */
export const freshSettingsOn = Effect.fnUntraced(function*<R>(freshDatabase: Effect.Effect<Database, never, R>) {
  const settings: Settings = {
    brokers: kafkaBrokers!,
    topicPrefix: yield* freshPrefix,
    database: yield* freshDatabase,
    group: yield* freshGroup,
    hold: false
  }
  return settings
})

/** The same, on Postgres. */
export const freshSettings = freshSettingsOn(freshPostgres)

/** The services of the programs. */
export const services = (settings: Settings) => Layer.mergeAll(kafka(settings), store(settings), silent)

/** The same with the table that they write to; on Postgres. */
export const servicesWithTable = (settings: Settings) =>
  Layer.effectDiscard(
    SqlClient.SqlClient.use((sql) =>
      sql`create table applied (id bigint generated always as identity, n int not null, message text not null)`
    )
  ).pipe(Layer.provideMerge(services(settings)))

/** What they have applied, in the order in which they did. */
export const applied = SqlClient.SqlClient.use((sql) =>
  Effect.map(sql<{ readonly n: number }>`select n from applied order by id`, (rows) => rows.map((row) => row.n))
)

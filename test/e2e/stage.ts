/** What the programs of a case run on, and the case looks at: topics, a group and a schema of its own. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqlClient from "effect/sql/SqlClient"
import { freshSchema } from "../layers/sql/databases.ts"
import { freshPrefix } from "../suites/consumer/kafka.ts"
import { freshGroup } from "../suites/consumer/support.ts"
import { kafkaBrokers, postgresUrl } from "../support/services.ts"
import { kafka, type Settings, silent, store } from "./programs/services.ts"

/** A schema, a topic prefix and a group that nobody else uses. */
export const freshSettings = Effect.gen(function*() {
  const settings: Settings = {
    brokers: kafkaBrokers!,
    topicPrefix: yield* freshPrefix,
    postgresUrl: postgresUrl!,
    schema: yield* freshSchema,
    group: yield* freshGroup,
    hold: false
  }
  return settings
})

/** The services of the programs, with the table that they write to. */
export const services = (settings: Settings) =>
  Layer.effectDiscard(
    SqlClient.SqlClient.use((sql) =>
      sql`create table applied (id bigint generated always as identity, n int not null, message text not null)`
    )
  ).pipe(Layer.provideMerge(Layer.mergeAll(kafka(settings), store(settings), silent)))

/** What they have applied, in the order in which they did. */
export const applied = SqlClient.SqlClient.use((sql) =>
  Effect.map(sql<{ readonly n: number }>`select n from applied order by id`, (rows) => rows.map((row) => row.n))
)

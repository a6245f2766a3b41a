/** SqlStore on Postgres against the conformance suite. */
import { describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as SqlClient from "effect/sql/SqlClient"
import * as SqlStore from "../../src/Layers/SqlStore.ts"
import { storeSuite } from "../suites/store/index.ts"
import { requireOrSkip } from "../support/services.ts"
import { business } from "./sql/business.ts"
import { freshSchema, postgres } from "./sql/databases.ts"

const onPostgres = Layer.unwrap(
  Effect.map(freshSchema, (schema) =>
    business.table.pipe(
      Layer.provideMerge(SqlStore.layerWith({ schema })),
      Layer.provideMerge(postgres({ startupParameters: { search_path: schema } }))
    ))
)

describe.skipIf(requireOrSkip("postgres"))(
  "Postgres",
  () =>
    storeSuite<SqlClient.SqlClient, unknown>("SqlStore on Postgres", onPostgres, { ...SqlStore.features.pg, business })
)

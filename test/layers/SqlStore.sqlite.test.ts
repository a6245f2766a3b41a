/** SqlStore on SQLite against the conformance suite. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as SqlClient from "effect/sql/SqlClient"
import * as SqlStore from "../../src/Layers/SqlStore.ts"
import { storeSuite } from "../suites/store/index.ts"
import { business } from "./sql/business.ts"
import { freshFile } from "./sql/databases.ts"

const onSqlite = Layer.unwrap(
  Effect.map(freshFile, (filename) =>
    business.table.pipe(
      Layer.provideMerge(SqlStore.layer),
      Layer.provideMerge(SqliteClient.layer({ filename }))
    ))
)

storeSuite<SqlClient.SqlClient, unknown>("SqlStore on SQLite", onSqlite, { ...SqlStore.features.sqlite, business })

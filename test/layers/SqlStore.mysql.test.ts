/** SqlStore on MySQL and on MariaDB against the conformance suite. */
import { describe } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as SqlClient from "effect/sql/SqlClient"
import * as SqlStore from "../../src/Layers/SqlStore.ts"
import { storeSuite } from "../suites/store/index.ts"
import { business } from "./sql/business.ts"
import { mysqlServers } from "./sql/databases.ts"

for (const { client, freshDatabase, name, skip } of mysqlServers) {
  const services = Layer.unwrap(
    Effect.map(freshDatabase, (database) =>
      business.table.pipe(
        Layer.provideMerge(SqlStore.layer),
        Layer.provideMerge(client(database))
      ))
  )
  describe.skipIf(skip)(name, () => {
    storeSuite<SqlClient.SqlClient, unknown>(`SqlStore on ${name}`, services, { ...SqlStore.features.mysql, business })
  })
}

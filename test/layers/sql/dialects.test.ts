import { assert, describe, it } from "@effect/vitest"
import { piecesOf } from "../../../src/Layers/internal/sql/dialect.ts"
import { mysql } from "../../../src/Layers/internal/sql/mysql.ts"
import { postgres } from "../../../src/Layers/internal/sql/postgres.ts"
import { sqlite } from "../../../src/Layers/internal/sql/sqlite.ts"

const location = { schema: undefined, tablePrefix: "effect_events_" }

describe("SQL dialects", () => {
  it("have the same statements in the same order, so that they can be read side by side", () => {
    for (const dialect of [mysql, sqlite]) {
      assert.deepStrictEqual(Object.keys(dialect(location)), Object.keys(postgres(location)))
    }
  })

  it("have the same migrations under the same numbers; a step that others have no need of is left out there", () => {
    const names = new Map<number, string>()
    for (const dialect of [postgres, mysql, sqlite]) {
      const steps = dialect(location).migrations
      assert.deepStrictEqual(steps.map(({ id }) => id), steps.map(({ id }) => id).sort((a, b) => a - b))
      for (const { id, name } of steps) {
        assert.strictEqual(names.get(id) ?? name, name)
        names.set(id, name)
      }
    }
    assert.deepStrictEqual([...names.keys()].sort((a, b) => a - b), [1, 2, 3, 4, 5])
  })

  it("insert any number of rows with at most nine texts, in order", () => {
    const sizes = new Set<number>()
    for (let count = 1; count <= 1_100; count++) {
      const items = Array.from({ length: count }, (_, n) => n)
      const pieces = piecesOf(items)
      assert.deepStrictEqual(pieces.flat(), items)
      for (const piece of pieces) {
        sizes.add(piece.length)
      }
    }
    assert.deepStrictEqual([...sizes].sort((a, b) => a - b), [1, 2, 4, 8, 16, 32, 64, 128, 256])
  })
})

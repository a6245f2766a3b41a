/**
 * A snapshot of MariaDB may show a transaction and hide one that had committed
 * before it. What a relay reads has no such gap. MariaDB does so too seldom to
 * be awaited (`e2e/manyRelays` met it), so its answers are given here.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type { Row, Runner } from "../../../src/Layers/internal/sql/dialect.ts"
import { reading } from "../../../src/Layers/internal/sql/mysqlRead.ts"

const stored = (part: number, id: number, key: string | null = `key of ${part}`): Row => ({
  part,
  id: String(id),
  message_id: `m${id}`,
  topic: "orders",
  key,
  headers: "{}",
  payload: null
})

/** Answers statements in turn, each as its snapshot sees the rows. */
const answering = (...answers: ReadonlyArray<ReadonlyArray<Row>>): Runner => {
  let turn = 0
  return {
    rows: () => Effect.succeed(answers[turn++] ?? []),
    together: (program) => program
  }
}

const counts = (counted: Readonly<Record<number, number>>): ReadonlyArray<Row> =>
  Object.entries(counted).map(([part, found]) => ({ part: Number(part), found }))

const read = (runner: Runner) =>
  Effect.map(reading("outbox")([1, 2], 10)(runner), (rows) => rows.map(({ id }) => Number(id)))

describe("a read of which a later statement counts more", () => {
  it.effect("is completed with what was committed before", () =>
    Effect.gen(function*() {
      const first = [stored(1, 3), stored(2, 5)]
      const again = [stored(1, 2), stored(1, 3)]
      assert.deepStrictEqual(yield* read(answering(first, counts({ 1: 2, 2: 1 }), again)), [2, 3, 5])
    }))

  it.effect("goes no further with any key than the first statement did", () =>
    Effect.gen(function*() {
      // Of the other key 4 may be hidden still, so 5 is left for the next read.
      const first = [stored(1, 3), stored(1, 6)]
      const again = [stored(1, 2), stored(1, 3), stored(1, 5, "another key"), stored(1, 6)]
      assert.deepStrictEqual(yield* read(answering(first, counts({ 1: 4 }), again)), [2, 3, 6])
    }))

  it.effect("is left as it is when nothing more is there", () =>
    Effect.gen(function*() {
      const first = [stored(1, 3), stored(2, 5)]
      assert.deepStrictEqual(yield* read(answering(first, counts({ 1: 1, 2: 1 }))), [3, 5])
      assert.deepStrictEqual(yield* read(answering([])), [])
    }))
})

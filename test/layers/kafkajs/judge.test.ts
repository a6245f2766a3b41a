/** What an answer to a produce, or its absence, means for the batch. */
import { assert, describe, it } from "@effect/vitest"
import { judge } from "../../../src/Layers/internal/kafka/producer.ts"
import { failureOf } from "../../../src/Layers/internal/kafkajs/errors.ts"

const answered = (type: string, retriable = false) =>
  failureOf(Object.assign(new Error(type), { name: "KafkaJSProtocolError", type, retriable }))
const unanswered = failureOf(
  Object.assign(new Error("timed out"), { name: "KafkaJSRequestTimeoutError", retriable: true })
)

describe("a batch", () => {
  const cases = [
    ["without an answer is sent again", unanswered, "Again", "Again"],
    ["that met a passing refusal is sent again", answered("NOT_ENOUGH_REPLICAS", true), "Again", "Again"],
    ["that met an error which the broker does not know is sent again", answered("UNKNOWN"), "Again", "Again"],
    [
      "that is known was written, if it can have been",
      answered("DUPLICATE_SEQUENCE_NUMBER"),
      "FreshIdentity",
      "Written"
    ],
    [
      "out of sequence is given up, if it may have been written",
      answered("OUT_OF_ORDER_SEQUENCE_NUMBER"),
      "FreshIdentity",
      "GiveUp"
    ],
    ["that is refused for good is given up", answered("MESSAGE_TOO_LARGE"), "GiveUp", "GiveUp"]
  ] as const
  for (const [name, failure, atFirst, afterDoubt] of cases) {
    it(name, () => {
      assert.deepStrictEqual([judge(failure, false), judge(failure, true)], [atFirst, afterDoubt])
    })
  }
})

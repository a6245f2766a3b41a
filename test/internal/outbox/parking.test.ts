import { assert, describe, it } from "@effect/vitest"
import {
  BrokerError,
  Fenced,
  NotAllowed,
  Refused,
  ResultUnknown,
  TooLarge,
  UnknownTopic,
  Unreachable
} from "../../../src/Broker.ts"
import * as Parking from "../../../src/internal/outbox/parking.ts"
import type { StoredRow } from "../../../src/MessageStore.ts"

const row = (id: number, key: string | null, topic = "orders"): StoredRow => ({
  part: 0,
  id: BigInt(id),
  messageKey: `key-${id}`,
  topic,
  key,
  headers: {},
  payload: null
})

describe("what a failed send says about its row", () => {
  const cause = new Error("test")
  const verdicts = [
    [new TooLarge({ topic: "t", bytes: 1, detail: "" }), "Refused"],
    [new Refused({ operation: "send", detail: "", cause }), "Refused"],
    [new UnknownTopic({ topic: "t" }), "MayPass"],
    [new NotAllowed({ right: "Write", topic: "t", cause }), "MayPass"],
    [new Unreachable({ address: "a", tried: "", cause }), "Outage"],
    [new ResultUnknown({ topic: "t", partition: 0, detail: "" }), "Outage"],
    [new Fenced({ detail: "" }), "Outage"]
  ] as const
  for (const [reason, verdict] of verdicts) {
    it(`${reason._tag}: ${verdict}`, () => {
      assert.strictEqual(Parking.verdictOf(new BrokerError({ reason })), verdict)
    })
  }
})

describe("parking", () => {
  it("takes what comes after a refused row of its topic and key, whatever its own outcome says", () => {
    const rows = [row(1, "a"), row(2, "a"), row(3, "b"), row(4, "a", "other"), row(5, null), row(6, "a"), row(7, null)]
    const refused = new Map([[rows[1]!, "no"], [rows[4]!, "never"], [rows[5]!, "no"]])
    assert.deepStrictEqual(
      Parking.withFollowers(rows, refused).map(({ reason, row }) => [row.id, reason]),
      [[2n, "no"], [5n, "never"], [6n, null]]
    )
  })

  it("is told by topic: how many rows, and the first that is refused", () => {
    const parkings = [
      { row: row(1, "a"), reason: null },
      { row: row(2, "b"), reason: "no" },
      { row: row(3, "c"), reason: "never" },
      { row: row(4, "d", "other"), reason: null }
    ]
    assert.deepStrictEqual(Array.from(Parking.byTopic(parkings)), [
      ["orders", { rows: 3, first: parkings[1]! }],
      ["other", { rows: 1, first: undefined }]
    ])
  })

  it("holds what comes after a parked row of its topic and key, and nothing that comes before it", () => {
    const blocked = Parking.blockedBy([{ part: 0, topic: "orders", key: "a", id: 5n }])
    const behind = [row(4, "a"), row(5, "a"), row(6, "a"), row(7, "b"), row(8, null), row(9, "a", "other")]
      .filter((one) => Parking.isBehind(blocked, one))
    assert.deepStrictEqual(behind.map(({ id }) => id), [6n])
  })
})

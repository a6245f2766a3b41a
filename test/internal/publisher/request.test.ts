/** What a lane's next request takes of the entries that wait. */
import { assert, describe, it } from "@effect/vitest"
import * as Exit from "effect/Exit"
import { BrokerError, ResultUnknown } from "../../../src/Broker.ts"
import * as Request from "../../../src/internal/publisher/request.ts"

const late: Request.Outcome = Exit.fail(
  new BrokerError({ reason: new ResultUnknown({ topic: "orders", partition: 0, detail: "too late" }) })
)

const entry = (deadline: number, count: number) => {
  const settled: Array<Request.Outcome> = []
  const entry: Request.Entry = {
    messages: Array.from({ length: count }, () => ({ topic: "orders", key: "k", value: null, headers: {}, bytes: 1 })),
    deadline,
    next: 0,
    cancelled: false,
    blocked: undefined,
    settle: (_, outcome) => void settled.push(outcome)
  }
  return { entry, settled }
}

const laneOf = (...entries: ReadonlyArray<Request.Entry>): Request.Lane => ({
  topic: "orders",
  partition: 0,
  entries: [...entries],
  running: true
})

describe("a request", () => {
  it("takes nothing whose time is up, whether a timer has said so or not, and tells those who wait for it", () => {
    const [expired, open] = [entry(1_000, 3), entry(1_001, 2)]
    const { deadline, pieces } = Request.take(laneOf(expired.entry, open.entry), 1_000, () => late)
    assert.deepStrictEqual(pieces.map(({ entry }) => entry), [open.entry, open.entry])
    assert.strictEqual(deadline, 1_001)
    assert.deepStrictEqual(expired.settled, [late, late, late])
    assert.isEmpty(open.settled)
  })

  it("leaves what is on its way alone: only the rest of a call is too late", () => {
    const { entry: half, settled } = entry(1_000, 3)
    half.next = 2
    assert.isEmpty(Request.take(laneOf(half), 2_000, () => late).pieces)
    assert.lengthOf(settled, 1)
  })
})

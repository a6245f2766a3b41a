/**
 * Which rows leave the outbox unsent. Pure.
 *
 * A row that the broker refuses for good would stand in the way of all that
 * comes after it in its partition, for ever. It is parked: taken out, with the
 * reason. So are later rows of its topic and key, which must not overtake it;
 * they come back under the ids that they had, and so in their order.
 *
 *     refused for good ──────────────▶ parked at once
 *     refused, and it may pass ──────▶ waits `patience`, then parked
 *     no answer, no broker ──────────▶ waits; nothing is counted
 *
 * @internal
 */
import type { BrokerError } from "../../Broker.ts"
import type { ParkedKey, RowKey, StoredRow } from "../../MessageStore.ts"

/** What a failed send says about its row. */
export type Verdict = "Refused" | "MayPass" | "Outage"

export const verdictOf = ({ reason }: BrokerError): Verdict => {
  switch (reason._tag) {
    case "TooLarge":
    case "Refused":
      return "Refused"
    case "UnknownTopic":
    case "NotAllowed":
      return "MayPass"
    default:
      return "Outage"
  }
}

const nameOf = (topic: string, key: string): string => `${topic}\u0000${key}`

/** The first parked row of each topic and key. */
export type Blocked = ReadonlyMap<string, bigint>

export const blockedBy = (keys: ReadonlyArray<ParkedKey>): Blocked =>
  new Map(keys.map(({ id, key, topic }) => [nameOf(topic, key), id]))

/** Whether an earlier row of its topic and key is parked. */
export const isBehind = (blocked: Blocked, { id, key, topic }: StoredRow): boolean => {
  if (blocked.size === 0 || key === null) return false
  const first = blocked.get(nameOf(topic, key))
  return first !== undefined && first < id
}

/** The keys of rows, each once. */
export const keysOf = (rows: ReadonlyArray<StoredRow>): Array<RowKey> => {
  const keys = new Map<string, RowKey>()
  for (const { key, part, topic } of rows) if (key !== null) keys.set(nameOf(topic, key), { part, topic, key })
  return Array.from(keys.values())
}

/** The rows of these keys, and those without any. */
export const ofKeys = (rows: ReadonlyArray<StoredRow>, keys: ReadonlyArray<RowKey>): Array<StoredRow> => {
  const names = new Set(keys.map(({ key, topic }) => nameOf(topic, key)))
  return rows.filter(({ key, topic }) => key === null || names.has(nameOf(topic, key)))
}

/** A row to be parked; `reason` is `null` for one that is only behind another. */
export interface Parking {
  readonly row: StoredRow
  readonly reason: string | null
}

/** What is parked of each topic: how many rows, and the first that is refused. */
export const byTopic = (
  parkings: ReadonlyArray<Parking>
): ReadonlyMap<string, { readonly rows: number; readonly first: Parking | undefined }> => {
  const topics = new Map<string, { readonly rows: number; readonly first: Parking | undefined }>()
  for (const parking of parkings) {
    const { first, rows } = topics.get(parking.row.topic) ?? { first: undefined, rows: 0 }
    topics.set(parking.row.topic, { rows: rows + 1, first: first ?? (parking.reason === null ? undefined : parking) })
  }
  return topics
}

/** The refused rows, and those of the batch that come after one of them. */
export const withFollowers = (
  rows: ReadonlyArray<StoredRow>,
  refused: ReadonlyMap<StoredRow, string>
): Array<Parking> => {
  const parkings: Array<Parking> = []
  const stuck = new Set<string>()
  for (const row of rows) {
    const reason = refused.get(row)
    const name = row.key === null ? undefined : nameOf(row.topic, row.key)
    // What comes after a refused row was not sent, whatever its outcome says.
    if (name !== undefined && stuck.has(name)) parkings.push({ row, reason: null })
    else if (reason !== undefined) {
      parkings.push({ row, reason })
      if (name !== undefined) stuck.add(name)
    }
  }
  return parkings
}

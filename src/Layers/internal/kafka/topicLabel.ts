/**
 * Owns the identity of a topic in a committed position: whether the position
 * belongs to the topic that has the name now. Pure.
 *
 * Invariant: a position is committed with the id that was asked for before the
 * first record of its grant was fetched. So what was read of a later topic can
 * carry the id of an earlier one, and is read again; never the other way round.
 *
 * The insight: Kafka commits and fetches by name, so a position in a topic that
 * was deleted is one in its successor, too, and what lies below would never be
 * read. Positions are kept with a text of the client's own, where the id has
 * room.
 */

const prefix = "topic-id:"

/** An id of 16 bytes, as a text; `undefined` if the broker has none to tell. */
export const idOf = (bytes: Buffer): string | undefined =>
  bytes.every((byte) => byte === 0) ? undefined : bytes.toString("base64url")

/** The text that is committed with a position. */
export const labelOf = (id: string): string => prefix + id

/** Whether a position was committed in another topic than the one of this id. A position without an id is believed. */
export const isOfAnother = (label: string | null, id: string | undefined): boolean =>
  id !== undefined && label !== null && label.startsWith(prefix) && label !== labelOf(id)

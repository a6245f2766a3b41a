/**
 * Owns what members of a group and their leader tell each other: Kafka's
 * consumer protocol, version 0. Pure.
 */
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Candidate, Owned } from "./assigner.ts"
import { int32 } from "./compact.ts"
import { Reader } from "./reader.ts"

const UserData = Schema.fromJsonString(Schema.Struct({
  owned: Schema.Record(Schema.String, Schema.Array(Schema.Number)),
  keeps: Schema.Boolean
}))
const readUserData = Schema.decodeUnknownOption(UserData)

const int16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2)
  bytes.writeInt16BE(value)
  return bytes
}
const text = (value: string): Buffer => {
  const bytes = Buffer.from(value)
  return Buffer.concat([int16(bytes.length), bytes])
}
const sized = (bytes: Buffer): Buffer => Buffer.concat([int32(bytes.length), bytes])
const list = (items: ReadonlyArray<Buffer>): Buffer => Buffer.concat([int32(items.length), ...items])

const readText = (reader: Reader): string => reader.slice(Math.max(0, reader.int16())).toString()
const readList = <A>(reader: Reader, read: () => A): Array<A> => {
  const items: Array<A> = []
  for (let left = reader.int32(); left > 0 && reader.left > 0; left--) items.push(read())
  return items
}
const readSized = (reader: Reader): Buffer =>
  reader.left < 4 ? Buffer.alloc(0) : reader.slice(Math.max(0, reader.int32()))

/** The name under which members offer this assigner, and its version. */
export const name = "effect-events"
const version = 0

/** A member's JoinGroup. */
export const encodeMember = ({ keeps, owned, topics }: Omit<Candidate, "id">): Buffer =>
  Buffer.concat([int16(version), list(topics.map(text)), sized(Buffer.from(JSON.stringify({ owned, keeps })))])

/** Reads a member's JoinGroup. A member that cannot be read subscribes to nothing. */
export const decodeMember = (id: string, metadata: Uint8Array): Candidate => {
  const reader = new Reader(Buffer.from(metadata))
  if (reader.left < 6) return { id, topics: [], owned: {}, keeps: false }
  reader.skip(2)
  const topics = readList(reader, () => readText(reader))
  const userData = Option.getOrElse(readUserData(readSized(reader).toString()), () => ({ owned: {}, keeps: false }))
  return { id, topics, ...userData }
}

/** What a member gets. */
export const encodeAssignment = (assignment: Owned): Buffer =>
  Buffer.concat([
    int16(version),
    list(
      Object.entries(assignment).map(([topic, partitions]) => Buffer.concat([text(topic), list(partitions.map(int32))]))
    ),
    sized(Buffer.alloc(0))
  ])

/** Reads what a member gets. */
export const decodeAssignment = (bytes: Uint8Array): Owned => {
  const reader = new Reader(Buffer.from(bytes))
  if (reader.left < 6) return {}
  reader.skip(2)
  return Object.fromEntries(
    readList(reader, () => [readText(reader), readList(reader, () => reader.int32())] as const)
  )
}

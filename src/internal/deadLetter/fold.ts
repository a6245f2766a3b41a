/**
 * How letters stand: the last record of each says it. Pure and mutable.
 *
 * Only the place of a letter's last copy is kept, and forgotten when the
 * letter is done: memory follows the letters that are open, and no values.
 *
 * @internal
 */
import type { ConsumerRecord } from "../../Broker.ts"
import * as Wire from "../wire/deadLetter.ts"

export type State = "saved" | "waiting" | "replaying"

interface Place {
  readonly partition: number
  readonly offset: bigint
  readonly state: State
}

export class Fold {
  private readonly topic: string
  private readonly group: string
  private readonly open = new Map<string, Place>()

  /** `topic` is the dead-letter topic. */
  constructor(topic: string, group: string) {
    this.topic = topic
    this.group = group
  }

  private head(partition: number, record: ConsumerRecord): Wire.Head | undefined {
    const head = Wire.head(this.topic, partition, record)
    return head?.group === this.group ? head : undefined
  }

  /** Takes note of a record. Records of one partition come in their order. */
  add(partition: number, record: ConsumerRecord): void {
    const head = this.head(partition, record)
    if (head === undefined) return
    const { due, id, kind } = head
    if (kind === "drop" || kind === "done") return void this.open.delete(id)
    const state = kind === "replay" ? "replaying" : due === undefined ? "saved" : "waiting"
    this.open.set(id, { partition, offset: record.offset, state })
  }

  /** The open letter whose last copy this record is. */
  find(partition: number, record: ConsumerRecord): { readonly head: Wire.Head; readonly state: State } | undefined {
    const head = this.head(partition, record)
    const place = head === undefined ? undefined : this.open.get(head.id)
    return head !== undefined && place?.offset === record.offset && place.partition === partition
      ? { head, state: place.state }
      : undefined
  }
}

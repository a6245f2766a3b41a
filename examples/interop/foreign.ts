/** What the foreign program writes, and what should become of each record. */

export interface Handled {
  readonly _tag: "Handled"
  readonly id: RegExp
  readonly type: string
  readonly source: string
  readonly key: string | null
  /** RFC 3339; without it any time is right. */
  readonly time?: string
}

export interface DeadLetter {
  readonly _tag: "DeadLetter"
  /** Headers that it carries in the dead-letter topic. */
  readonly headers: Readonly<Record<string, RegExp>>
}

export interface Foreign {
  readonly name: string
  /** The order in it, by which it is recognised later; of what is no JSON, the text. */
  readonly orderId: string
  readonly line: string
  readonly fate: Handled | DeadLetter
}

const order = (orderId: string) => JSON.stringify({ orderId, total: 42 })

/** `parse.headers=true`, `parse.key=true`: headers, tab, key, tab, value. */
const line = (headers: Readonly<Record<string, string>>, key: string, value: string) =>
  [Object.entries(headers).map(([name, value]) => `${name}:${value}`).join(","), key, value].join("\t")

export const withHeadersAndKeys: ReadonlyArray<Foreign> = [
  {
    name: "CloudEvents, binary mode",
    orderId: "f-1",
    line: line(
      {
        ce_specversion: "1.0",
        ce_id: "4711",
        ce_type: "com.example.order.placed",
        ce_source: "/legacy/shop",
        ce_time: "2026-01-02T03:04:05Z",
        "content-type": "application/json"
      },
      "ada",
      order("f-1")
    ),
    fate: {
      _tag: "Handled",
      id: /^4711$/,
      type: "com.example.order.placed",
      source: "/legacy/shop",
      key: "ada",
      time: "2026-01-02T03:04:05.000Z"
    }
  },
  {
    name: "CloudEvents, structured mode",
    orderId: "f-2",
    line: line(
      { "content-type": "application/cloudevents+json; charset=UTF-8" },
      "bob",
      JSON.stringify({
        specversion: "1.0",
        id: "4712",
        type: "com.example.order.placed",
        source: "/legacy/shop",
        time: "2026-01-02T04:04:05+01:00",
        datacontenttype: "application/json",
        data: { orderId: "f-2", total: 42 }
      })
    ),
    fate: {
      _tag: "Handled",
      id: /^4712$/,
      type: "com.example.order.placed",
      source: "/legacy/shop",
      key: "bob",
      time: "2026-01-02T03:04:05.000Z"
    }
  },
  {
    name: "not JSON",
    orderId: "order f-3, 42 EUR",
    line: line(
      { ce_specversion: "1.0", ce_id: "4713", ce_type: "com.example.order.placed", ce_source: "/legacy/shop" },
      "cyd",
      "order f-3, 42 EUR"
    ),
    fate: {
      _tag: "DeadLetter",
      headers: {
        ce_id: /^4713$/,
        ce_source: /^\/legacy\/shop$/,
        dl_error_tag: /^Undecodable$/,
        dl_error_message: /JSON/,
        dl_handler: /^orders\.placed$/,
        dl_group: /^interop$/,
        dl_attempts: /^1$/,
        dl_original_topic: /^orders\.placed$/,
        dl_original_partition: /^\d+$/,
        dl_original_offset: /^\d+$/
      }
    }
  }
]

/** The console producer as it is: a line is a value. */
export const valuesOnly: ReadonlyArray<Foreign> = [
  {
    name: "no header, no key",
    orderId: "f-4",
    line: order("f-4"),
    // Derived from where it lies: topic, partition, offset, timestamp.
    fate: { _tag: "Handled", id: /^orders\.placed\/\d+\/\d+\/\d+$/, type: "", source: "", key: null }
  }
]

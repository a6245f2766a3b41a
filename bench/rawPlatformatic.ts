/** `@platformatic/kafka` under our safety rule: one partition per send, one send of a producer under way. */
import { Producer } from "@platformatic/kafka"
import type { Message } from "kafkajs"
import { brokers } from "./orders.ts"

const buffer = (text: unknown): Buffer => Buffer.from(text as string)

/** A producer for one partition. */
export const connect = (topic: string, partition: number) => {
  const producer = new Producer({
    clientId: "bench",
    bootstrapBrokers: brokers,
    idempotent: true,
    retries: 10,
    retryDelay: 250
  })
  return {
    send: (messages: ReadonlyArray<Message>) =>
      producer.send({
        acks: -1,
        messages: messages.map(({ headers, key, value }) => ({
          topic,
          partition,
          key: buffer(key),
          value: buffer(value),
          headers: new Map(Object.entries(headers!).map(([name, text]) => [buffer(name), buffer(text)]))
        }))
      }),
    close: () => producer.close()
  }
}

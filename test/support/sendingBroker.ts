/** A broker whose way of sending is the test's. */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Broker, type Producer } from "../../src/Broker.ts"

type Send = Producer["send"]

/** `send` is given the way of sending that it stands for. */
export const sendingBroker = (send: (batch: Parameters<Send>[0], original: Send) => ReturnType<Send>) =>
  Layer.effect(
    Broker,
    Effect.map(Broker, (broker) =>
      Broker.of({
        ...broker,
        producer: Effect.map(broker.producer, (producer) => ({
          ...producer,
          send: (batch) => send(batch, producer.send)
        }))
      }))
  )

/** The Kafka Layers against the conformance suite of brokers. */
import { describe } from "@effect/vitest"
import { brokerSuite } from "../suites/broker/index.ts"
import { clientName, KafkaLayer, type Options } from "../support/kafkaClient.ts"
import { kafkaBrokers, requireOrSkip } from "../support/services.ts"
import { outside } from "./kafka/outside.ts"

describe.skipIf(requireOrSkip("kafka"))("with a real Kafka", () => {
  const brokers = kafkaBrokers ?? []
  const { addPartitions, deleteTopic, expire, skipOffsets } = outside(brokers)
  const options: Options = {
    brokers,
    clientId: "conformance",
    // Short, so that a case is not mostly waiting.
    heartbeatInterval: "500 millis",
    sessionTimeout: "6 seconds",
    metadataMaxAge: "1 second"
  }
  brokerSuite(clientName, KafkaLayer.layer(options), {
    ...KafkaLayer.features.broker,
    addPartitions,
    deleteTopic,
    expire,
    skipOffsets
  })
})
